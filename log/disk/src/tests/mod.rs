//! Tests of the log from inside: they drive a shard's engine without its thread, so that a run is the same each time.

mod compaction;
mod files;
mod producers;
mod simulation;
