//! Log compaction: of each key the last record stays, and offsets stay what they were.
//!
//! A pass reads the part that was never compacted into a [`Keys`] map (key to last offset), then rewrites every closed segment
//! from the log start on: a record goes when the map knows a later one of its key. What was removed leaves batches without
//! records in its place, as Kafka's own compaction leaves for producers: so offsets have no gaps, and a reader can still tell
//! a compacted log from a damaged one.
//!
//! A tombstone (a record without value) goes too, but only `delete.retention.ms` after the first pass that covered it, so that
//! a reader who is no further behind than that sees it. The time stands in its batch (KIP-534). By then every earlier record of
//! its key is gone: each pass rewrites all segments, the oldest first.

mod keys;
mod plan;
mod rewrite;

pub use keys::Keys;
pub use plan::{Plan, groups, plan};
pub use rewrite::{Rewriter, Rules};

#[cfg(test)]
mod tests;
