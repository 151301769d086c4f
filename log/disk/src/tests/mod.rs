//! Tests of the log from inside: they drive a shard's engine without its thread, so that a run is the same each time.

mod compaction;
mod files;
mod hosting;
mod producers;
mod simulation;

/// Where a node alone would propose changes of its in-sync replicas, which it never does.
fn outbox() -> crate::shared::Outbox {
    tokio::sync::mpsc::unbounded_channel().0
}
