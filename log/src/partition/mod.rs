//! One partition as a pure state machine: append, high watermark, epochs, roll, retention, repair after a failed write.
//!
//! [`Partition::handle`] takes the time and an [`Event`] and pushes [`Effect`]s, which the driver performs in their
//! order. At most one [`Persist`] is outstanding; what arrives meanwhile gathers for the next, which is the group commit.
//! The acknowledgements of a write travel inside it, in a [`Durable`] that only the machine can open: the driver hands
//! it back with [`Event::Persisted`] after the sync, or with [`Event::PersistFailed`], so no driver can answer earlier.
//! The machine's own state moves only then, so a failed write has nothing to undo in memory.
//!
//! A partition leads or follows, as the controller says ([`Event::Lead`], [`Event::Follow`]). Every batch carries the epoch of
//! the leader that wrote it, [`EpochCache`] answers where an epoch ended (KIP-101, KIP-279), and the high watermark is the
//! least durable end among the in-sync replicas; with no followers that is our own. A follower stores its leader's
//! batches where that one has them, and cuts its log to where the two agree before it goes on.

mod ages;
mod commit;
mod compacted;
mod epochs;
mod event;
mod failure;
mod follower;
mod leader;
mod machine;
mod producers;
mod retention;
mod role;
mod segments;
mod watermark;
mod work;

pub use ages::believable;
pub use commit::check_batches;
pub use compacted::Compacted;
pub use epochs::EpochCache;
pub use event::{
    Append, AppendData, Appended, Durable, Effect, Event, Fault, Outcome, Persist, Placed, Repair, Watermarks, Work,
    Write,
};
pub use follower::{Anew, Copied, LeaderMarks, Truncation, agreement, check_copy};
pub use leader::{Follower, IsrChange, Leadership};
pub use machine::{Partition, REPAIR_RETRY_MS, Restored};
pub use producers::{ActiveProducer, Producers};
pub use segments::{ClosedSegment, ColdSegment, Segment, Starts};

#[cfg(test)]
mod tests;
