//! What can go wrong with a quorum, as its users see it.

use super::transport::NodeId;

/// The quorum cannot start or cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QuorumError {
    /// What is stored cannot be read or written; the text names the file, and what to do about it.
    #[error("the quorum's storage: {0}")]
    Storage(String),
    /// The options contradict each other.
    #[error("the quorum's options: {0}")]
    Options(String),
    /// The quorum has stopped on this node.
    #[error("the quorum has stopped on this node: {0}")]
    Stopped(String),
}

/// Why a proposal is not known to be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead: the entry is not applied and never will be. `leader` is the one that this node knows of.
    #[error("this node does not lead the quorum")]
    NotLeader { leader: Option<NodeId> },
    /// The entry is larger than [`MAX_ENTRY`](super::limits::MAX_ENTRY); it is not applied.
    #[error("the entry has {size} bytes, more than {most}")]
    TooLarge { size: usize, most: usize },
    /// The entry may be applied, now or later, or never.
    #[error("whether the entry is committed is unknown: {0}")]
    Unknown(String),
    /// The quorum has stopped on this node before the entry was taken; it is not applied.
    #[error("the quorum has stopped on this node")]
    Closed,
}

/// Why the leadership could not be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    #[error("this node does not lead the quorum")]
    NotLeader { leader: Option<NodeId> },
    /// Too few voters answered.
    #[error("the quorum was not reached")]
    NoQuorum,
    #[error("the quorum has stopped on this node")]
    Closed,
}

/// Why the members could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("this node does not lead the quorum")]
    NotLeader { leader: Option<NodeId> },
    /// Another change is under way, a node is unknown, or no voter would be left; the text says which.
    #[error("{0}")]
    Refused(String),
    /// The change may be done, now or later, in part or never. Asking for it again is safe.
    #[error("whether the members changed is unknown: {0}")]
    Unknown(String),
    #[error("the quorum has stopped on this node")]
    Closed,
}
