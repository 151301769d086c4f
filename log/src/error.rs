//! Why an append or a read was refused. Each door maps these to its protocol's own code.

use crate::units::Offset;

/// Why an append was not made durable. Nothing of a refused append is ever visible to a reader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("batch is corrupt: {0}")]
    Corrupt(&'static str),
    #[error("batch is not valid here: {0}")]
    Invalid(&'static str),
    #[error("batch of {bytes} bytes exceeds max.message.bytes={limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("disk full")]
    DiskFull,
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("partition is offline: {0}")]
    Offline(String),
    /// It was on its way to the leader, and may be in the log or not.
    #[error("what became of it is not known: {0}")]
    Unknown(String),
    #[error("this node is not the partition's leader")]
    NotLeader,
    #[error("not enough in-sync replicas")]
    NotEnoughReplicas,
    /// It is in the log, but was replicated less often than `min.insync.replicas` asks for.
    #[error("not enough in-sync replicas when the records were to be acknowledged; they may still be kept")]
    NotEnoughReplicasAfterAppend,
    /// What a follower received is not from the leader of the epoch that it follows.
    #[error("another leader epoch")]
    FencedLeaderEpoch,
    /// An idempotent producer's batch does not follow its last one, and what is missing did not come: it was lost (KIP-98).
    #[error("the producer's sequence numbers have a gap here")]
    OutOfOrderSequence,
    /// An idempotent producer's batch came before one that it has to follow, which is expected to come: it was refused for a while, or
    /// is in the log of another leader.
    #[error("an earlier batch of this producer is missing here and has to come first")]
    AwaitsEarlier,
    #[error("a later epoch of this producer has written since")]
    ProducerFenced,
    #[error("shutting down")]
    Closed,
}

impl AppendError {
    /// Whether the records may be in the log all the same: they were sent or written, and the leader changed, or too few replicas had them.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        matches!(
            self,
            AppendError::Unknown(_)
                | AppendError::NotLeader
                | AppendError::NotEnoughReplicasAfterAppend
                | AppendError::Closed
        )
    }
}

/// Why a read returned no batches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("offset {asked} is outside {start}..={end}")]
    OutOfRange { asked: Offset, start: Offset, end: Offset },
    /// The records are not on this disk any more: the cold tier has them.
    #[error("offset {asked} is below the local log start {local_start}")]
    Tiered { asked: Offset, local_start: Offset },
    /// The records from the offset asked for up to `next` are damaged; reading goes on there.
    #[error("corrupt batch in {file} at byte {position}: {what}")]
    Corrupt { file: String, position: u64, what: &'static str, next: Offset },
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("partition is offline: {0}")]
    Offline(String),
}
