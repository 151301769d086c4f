//! Consumer groups as pure state machines: who is a member, which generation runs, who owns what.

pub mod classic;
pub mod consumer;
pub mod stored;
pub mod subscription;

use std::sync::Arc;

/// A name that is passed around often: a member id, an instance id, a protocol.
pub type Name = Arc<str>;

/// Why a member's request is refused; each is one of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("no member of the group has this id")]
    UnknownMemberId,
    #[error("another generation runs by now")]
    IllegalGeneration,
    #[error("the group rebalances: join again")]
    RebalanceInProgress,
    #[error("no protocol of the member is one that all members have")]
    InconsistentGroupProtocol,
    #[error("another member has taken this instance id")]
    FencedInstanceId,
    #[error("join again with the member id given")]
    MemberIdRequired,
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    #[error("the session timeout is outside of what the broker allows")]
    InvalidSessionTimeout,
    #[error("the group's state could not be stored")]
    CoordinatorNotAvailable,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group is of another kind, and has members")]
    GroupIdNotFound,
    #[error("the member is in another epoch: it has to let go of its partitions and join again")]
    FencedMemberEpoch,
    #[error("the member is in another epoch by now")]
    StaleMemberEpoch,
    #[error("another member has this instance id and has not left")]
    UnreleasedInstanceId,
    #[error("there is no such assignor; there are uniform and range")]
    UnsupportedAssignor,
    #[error("this is no regular expression (RE2), or it is too large, or the group has a hundred others")]
    InvalidRegularExpression,
}

/// What the broker allows (Kafka's `group.*` configs); times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub min_session_timeout: i64,
    pub max_session_timeout: i64,
    /// Members of one group.
    pub max_size: usize,
    /// How long the first rebalance of an empty group waits for further members; each that comes makes it wait once more.
    pub initial_rebalance_delay: i64,
    /// How long a member of the consumer protocol may be silent (`group.consumer.session.timeout.ms`).
    pub consumer_session_timeout: i64,
    /// How often it is told to be heard of (`group.consumer.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval: i64,
}

impl Default for Limits {
    /// Kafka's, but for the delay (3 s there): 50 members that start together do so within a second.
    fn default() -> Limits {
        Limits {
            min_session_timeout: 6_000,
            max_session_timeout: 1_800_000,
            max_size: 10_000,
            initial_rebalance_delay: 300,
            consumer_session_timeout: 45_000,
            consumer_heartbeat_interval: 5_000,
        }
    }
}
