//! What followers and leaders tell each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::partition::{Anew, LeaderMarks};
use crate::units::{Epoch, Offset};

/// A partition of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    pub topic: Uuid,
    pub index: u32,
}

/// Asks for what comes next of all partitions of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Drawn by the follower; another one each time that it begins anew.
    pub session: u64,
    /// 0 begins the session; each further pull has the next number.
    pub sequence: u32,
    /// Partitions that begin, or begin again elsewhere.
    pub wants: Vec<Want>,
    /// Partitions that are no longer followed.
    pub drops: Vec<PartitionId>,
}

/// Where a follower stands with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub partition: PartitionId,
    /// Of the leader that it follows.
    pub epoch: Epoch,
    /// It has everything below, durably.
    pub from: Offset,
    /// The leader epoch of its last batch; none of an empty log.
    pub last_epoch: Option<Epoch>,
}

/// A follower has everything below `end` durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub end: Offset,
}

/// An answer about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub partition: PartitionId,
    /// As the follower has asked.
    pub epoch: Epoch,
    pub body: PartBody,
}

/// What of a partition comes next. After all but `Batches` the leader sends nothing more of it before it is wanted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartBody {
    /// Whole batches from `from` on; without any it tells the marks alone.
    Batches {
        from: Offset,
        marks: LeaderMarks,
        batches: Bytes,
    },
    /// The largest epoch of the leader's log that is not above the follower's last one, and where it ends: the follower has other
    /// records there.
    Diverges {
        epoch: Epoch,
        end: Offset,
    },
    /// What follows on the follower's log is only in the cold tier: it begins anew at `at`.
    Anew {
        at: Offset,
        anew: Anew,
    },
    Refused(PullRefusal),
}

/// Why nothing is sent of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullRefusal {
    /// This node does not lead it, or has never heard of it.
    NotLeader,
    /// The follower's epoch is over.
    FencedEpoch,
    /// The follower knows a later leadership than this node.
    UnknownEpoch,
    /// It cannot be read here.
    Storage(String),
}
