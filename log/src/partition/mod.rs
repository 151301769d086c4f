//! One partition as a pure state machine: append, high watermark, epochs, roll, retention, repair after a failed write.
//!
//! [`Partition::handle`] takes the time and an [`Event`] and pushes [`Effect`]s, which the driver performs in their
//! order. At most one [`Persist`] is outstanding; what arrives meanwhile gathers for the next, which is the group commit.
//! The acknowledgements of a write travel inside it, in a [`Durable`] that only the machine can open: the driver hands
//! it back with [`Event::Persisted`] after the sync, or with [`Event::PersistFailed`], so no driver can answer earlier.
//! The machine's own state moves only then, so a failed write has nothing to undo in memory.
//!
//! Replication is designed in (KIP-101, KIP-966): every batch carries the leader epoch, [`EpochCache`] answers where an
//! epoch ended, and the high watermark is the least durable end among the in-sync replicas; with no followers
//! that is our own.

mod ages;
mod commit;
mod compacted;
mod epochs;
mod event;
mod machine;
mod producers;
mod retention;
mod segments;
mod work;

pub use ages::believable;
pub use commit::check_batches;
pub use compacted::Compacted;
pub use epochs::EpochCache;
pub use event::{
    Append, AppendData, Appended, Durable, Effect, Event, Fault, Outcome, Persist, Placed, Repair, ReplicaId,
    Watermarks, Work, Write,
};
pub use machine::{Partition, REPAIR_RETRY_MS, Restored};
pub use producers::{ActiveProducer, Producers};
pub use segments::{ClosedSegment, ColdSegment, Segment, Starts};

#[cfg(test)]
mod tests;
