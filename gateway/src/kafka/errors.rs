//! What the log's refusals are called in the Kafka protocol.

use forebay_cluster::LogError;
use forebay_log::group::GroupError;
use forebay_log::{AppendError, ReadError};
use kafka_protocol::ResponseError;

use crate::settings::SettingsError;

/// A refusal: the protocol's code and, where the response has room for it, the reason for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i16,
    pub(crate) message: Option<String>,
}

impl Refusal {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Refusal {
        Refusal { code: error.code(), message: Some(message.into()) }
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Refusal {
        Refusal { code: error.code(), message: None }
    }
}

/// What the group machine's refusals are called in the Kafka protocol.
pub(crate) fn group_error(error: GroupError) -> ResponseError {
    match error {
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnreleasedInstanceId => ResponseError::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::InvalidRegularExpression => ResponseError::InvalidRegularExpression,
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Refusal {
        Refusal::new(group_error(error), error.to_string())
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        let code = match &error {
            AppendError::Corrupt(_) => ResponseError::CorruptMessage,
            AppendError::Invalid(_) => ResponseError::InvalidRecord,
            AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
            AppendError::DiskFull | AppendError::Storage(_) | AppendError::Offline(_) => {
                ResponseError::KafkaStorageError
            }
            AppendError::OutOfOrderSequence => ResponseError::OutOfOrderSequenceNumber,
            AppendError::ProducerFenced => ResponseError::InvalidProducerEpoch,
            AppendError::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
            AppendError::NotEnoughReplicasAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
            // A node that shuts down is no leader any more: the client looks for the next one.
            // As when replication takes too long: the producer asks again, and an idempotent one has it stored once.
            AppendError::Unknown(_) => ResponseError::RequestTimedOut,
            // And where something is missing that comes again: perhaps another node leads, and has it.
            AppendError::NotLeader
            | AppendError::AwaitsEarlier
            | AppendError::FencedLeaderEpoch
            | AppendError::Closed => ResponseError::NotLeaderOrFollower,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        let code = match &error {
            ReadError::OutOfRange { .. } | ReadError::Tiered { .. } => ResponseError::OffsetOutOfRange,
            ReadError::Corrupt { .. } => ResponseError::CorruptMessage,
            ReadError::Storage(_) | ReadError::Offline(_) => ResponseError::KafkaStorageError,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Refusal {
        let code = match &error {
            LogError::NotPossible(refusal) => return refusal.clone().into(),
            LogError::TopicExists(_) => ResponseError::TopicAlreadyExists,
            LogError::UnknownTopic(_) => ResponseError::UnknownTopicOrPartition,
            LogError::InvalidTopic(_) => ResponseError::InvalidTopicException,
            LogError::Io { .. } | LogError::Format { .. } | LogError::Locked | LogError::DiskFull => {
                ResponseError::KafkaStorageError
            }
            LogError::TooFewNodes(_) => ResponseError::InvalidReplicationFactor,
            LogError::Unavailable(_) => ResponseError::RequestTimedOut,
            LogError::Closed => ResponseError::NotController,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<SettingsError> for Refusal {
    fn from(error: SettingsError) -> Refusal {
        match error {
            SettingsError::Log(error) => error.into(),
            SettingsError::Refused(refusal) => refusal.into(),
            // For the client to try again.
            SettingsError::Changed => Refusal::new(ResponseError::RequestTimedOut, error.to_string()),
        }
    }
}
