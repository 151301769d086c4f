//! What goes into a partition's machine and what comes out of it.

use bytes::Bytes;

use super::compacted::Compacted;
use super::epochs::EpochCache;
use super::follower::{Copied, Truncation};
use super::leader::{Follower, IsrChange, Leadership};
use super::machine::Restored;
use super::producers::{ActiveProducer, Changed};
use super::segments::{Segment, Starts};
use crate::error::AppendError;
use crate::record::{BatchHeader, RecordChunk};
use crate::topic::TopicConfig;
use crate::units::{Epoch, Incarnation, Millis, NodeId, Offset, PartitionEpoch};

/// What is appended.
#[derive(Debug)]
pub enum AppendData {
    /// Records gathered with those of other requests into one batch, compressed by the topic's `compression.type`.
    Chunk(RecordChunk),
    /// Whole v2 batches as a Kafka producer sent them; validated (CRC, sizes, counts), stored as they are.
    Batches(Bytes),
}

impl AppendData {
    /// Bytes for admission control.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            AppendData::Chunk(chunk) => chunk.bytes(),
            AppendData::Batches(batches) => batches.len(),
        }
    }
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// When it was appended, where that is the records' timestamp (`message.timestamp.type=LogAppendTime`).
    pub append_time: Option<Millis>,
}

/// One append; `T` is whatever the driver needs to answer it.
#[derive(Debug)]
pub struct Append<T> {
    pub data: AppendData,
    /// Answered when every in-sync replica has it, and enough of them are (`min.insync.replicas`); else when this one has.
    pub all: bool,
    pub token: T,
}

/// An append that is to be answered.
#[derive(Debug)]
pub(super) struct Ack<T> {
    pub(super) token: T,
    pub(super) at: Appended,
    pub(super) all: bool,
}

/// The offsets of a partition that readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset of the whole log, cold tier included (Kafka's log start offset).
    pub log_start: Offset,
    /// First offset on the local disk (Kafka's local log start offset).
    pub local_start: Offset,
    /// Readers see records below this: durable on every in-sync replica.
    pub high_watermark: Offset,
    /// The next offset to be written.
    pub log_end: Offset,
}

/// Why work on the disk failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// ENOSPC or EDQUOT: refused until space returns.
    DiskFull,
    /// Any other IO error, for a person.
    Io(String),
}

impl Fault {
    pub(super) fn refusal(&self) -> AppendError {
        match self {
            Fault::DiskFull => AppendError::DiskFull,
            Fault::Io(what) => AppendError::Storage(what.clone()),
        }
    }
}

/// What happens to a partition.
#[derive(Debug)]
pub enum Event<T> {
    /// Appends that arrived together. [`super::check_batches`] has passed their batches.
    Append(Vec<Append<T>>),
    /// The work of a [`Persist`] is durable.
    Persisted(Durable<T>),
    /// The work of a [`Persist`] failed; how much of it reached the disk is unknown.
    PersistFailed(Durable<T>, Fault),
    /// The disk holds exactly what a [`Repair`] asked for.
    Repaired,
    RepairFailed(Fault),
    /// Time has passed: rolls, retention and retries are due when they are.
    Tick,
    /// The clock was set by `by` milliseconds, apart from the time that passed.
    ClockStepped {
        by: i64,
    },
    Configure(TopicConfig),
    /// Whether local retention rests: the cold tier could not give back what it lets go.
    HoldLocal(bool),
    /// Close the active segment if it holds records.
    Roll(T),
    /// Records below this are in the cold tier.
    SetTiered(Offset, T),
    /// Records below this are to go.
    SetLogStart(Offset, T),
    /// Put a compacted segment into its place.
    Compact(Box<Compacted>, T),
    /// Records below this are compacted.
    SetCompacted(Offset, T),
    /// Tell which idempotent producers are remembered.
    DescribeProducers(T),
    /// This node leads, as the controller says; also when only the in-sync replicas have changed.
    Lead(Leadership),
    /// Another node leads from this epoch on, or none. Answered when nothing of before is under way any more.
    Follow(Epoch, T),
    /// A follower of this leader epoch has everything below `end` durably.
    Replicated {
        epoch: Epoch,
        replica: NodeId,
        /// What an earlier start of that node had told does not count any more.
        incarnation: Incarnation,
        end: Offset,
    },
    /// The controller has not taken the change of the in-sync replicas that was proposed at this partition epoch.
    IsrRefused(PartitionEpoch),
    /// Tell how far the followers are.
    DescribeFollowers(T),
    /// Batches of the leader, for a follower.
    Copy(Copied<T>),
    /// Cut the log back to where it agrees with the leader's.
    Truncate(Truncation, T),
    /// The log is cut, and this is what is there now.
    Truncated(Box<Restored>),
    TruncateFailed(Fault),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Appended(Appended),
    /// What was asked for holds durably.
    Applied,
    Producers(Vec<ActiveProducer>),
    Followers(Vec<Follower>),
    Refused(AppendError),
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect<T> {
    /// Make this durable, then hand `then` back.
    Persist(Persist<T>),
    /// Bring the disk back to what was durable before a failed write.
    Repair(Repair),
    /// Cut the log, and recover what is left of it.
    Truncate(Truncation),
    /// Ask the controller for other in-sync replicas.
    ProposeIsr(IsrChange),
    /// Remove the segments with these base offsets: no reader may see them any more.
    Delete(Vec<Offset>),
    /// Remember these times of append with the segments of these base offsets; a hint for after a restart.
    Stamp(Vec<(Offset, Millis)>),
    /// Readers see these from now on. Comes before the outcomes that depend on it.
    Watermarks(Watermarks),
    /// Answer a request.
    Done(T, Outcome),
}

/// Work on the disk and what follows from it.
#[derive(Debug)]
pub struct Persist<T> {
    pub work: Work,
    pub then: Durable<T>,
}

/// What is to be made durable.
#[derive(Debug)]
pub enum Work {
    Write(Write),
    /// Replace the partition's saved starts.
    Starts(Starts),
    /// Put a compacted segment into the place of those that it was made of.
    Compact(Box<Compacted>),
}

/// Batches for the active segment.
#[derive(Debug)]
pub struct Write {
    /// Seal the active segment and begin a new one, with `segment` as its base, before the write.
    pub roll: bool,
    /// Base offset of the segment written to.
    pub segment: Offset,
    /// Where in the segment the bytes go.
    pub position: u64,
    /// The bytes, in order; empty for a roll alone.
    pub slices: Vec<Bytes>,
    /// The batches in those bytes, for the indexes.
    pub batches: Vec<Placed>,
    /// The leader epochs, when this write begins one.
    pub epochs: Option<EpochCache>,
}

/// A batch and where it stands in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub position: u64,
    pub header: BatchHeader,
}

/// The disk as it has to be before anything else is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// The active segment.
    pub segment: Offset,
    /// Its durable length: later bytes are cut off, and the cut is synced.
    pub len: u64,
    /// A segment that a failed roll may have left behind.
    pub remove: Option<Offset>,
}

/// What follows once work is durable: the change to the machine and the acknowledgements. Only the machine opens it.
#[derive(Debug)]
pub struct Durable<T> {
    pub(super) change: Change,
    /// Appends that this work holds.
    pub(super) acks: Vec<Ack<T>>,
    /// Requests that hold once it is durable.
    pub(super) applied: Vec<T>,
}

impl<T> Durable<T> {
    /// Whom the appends in this work are to be answered.
    pub fn tokens_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.acks.iter_mut().map(|ack| &mut ack.token)
    }
}

/// How durable work moves the machine.
#[derive(Debug)]
pub(super) enum Change {
    /// The active segment as it is after the write, and whether it is a new one.
    Written {
        rolled: bool,
        active: Segment,
        epochs: Option<EpochCache>,
        producers: Changed,
    },
    Starts(Starts),
    Compacted(Box<Compacted>),
}
