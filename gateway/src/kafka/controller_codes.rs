//! What the controller's refusals are called in the Kafka protocol.

use forebay_cluster::AskError;
use forebay_log::cluster::Refusal as Decided;
use kafka_protocol::ResponseError;

use super::errors::Refusal;

/// The code that Kafka's controller answers with, or the nearest one where Kafka has no such request.
fn code(refusal: &Decided) -> ResponseError {
    match refusal {
        Decided::NoCluster | Decided::NotController => ResponseError::NotController,
        Decided::WrongCluster { .. } => ResponseError::InconsistentClusterId,
        Decided::UnknownNode { .. } | Decided::NotRegistered { .. } => ResponseError::BrokerIdNotRegistered,
        Decided::StaleIncarnation { .. } => ResponseError::StaleBrokerEpoch,
        Decided::OtherDirectory { .. } => ResponseError::DuplicateBrokerRegistration,
        Decided::UnsupportedLevel { .. } => ResponseError::UnsupportedVersion,
        Decided::InvalidRegistration { .. } => ResponseError::InvalidRegistration,
        Decided::TopicExists { .. } | Decided::TopicIdExists { .. } => ResponseError::TopicAlreadyExists,
        Decided::InvalidTopic { .. } => ResponseError::InvalidTopicException,
        Decided::UnknownTopicId { .. } | Decided::UnknownPartition { .. } => ResponseError::UnknownTopicOrPartition,
        Decided::InvalidPartitions { .. } => ResponseError::InvalidPartitions,
        Decided::InvalidReplicationFactor { .. } => ResponseError::InvalidReplicationFactor,
        Decided::InvalidReplicaAssignment { .. } => ResponseError::InvalidReplicaAssignment,
        Decided::ConfigTooLarge { .. } => ResponseError::InvalidConfig,
        Decided::TooManyPartitions { .. } | Decided::RequestTooLarge { .. } | Decided::SettingsTooLarge { .. } => {
            ResponseError::PolicyViolation
        }
        Decided::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        Decided::InvalidUpdateVersion | Decided::SettingChanged { .. } => ResponseError::InvalidUpdateVersion,
        Decided::IneligibleReplica { .. } => ResponseError::IneligibleReplica,
        Decided::UncleanElection => ResponseError::EligibleLeadersNotAvailable,
        Decided::PreferredLeaderNotAvailable { .. } => ResponseError::PreferredLeaderNotAvailable,
        Decided::ElectionNotNeeded => ResponseError::ElectionNotNeeded,
        Decided::NoReassignmentInProgress => ResponseError::NoReassignmentInProgress,
        Decided::ReassignmentInProgress => ResponseError::ReassignmentInProgress,
        Decided::ClusterExists { .. }
        | Decided::InvalidNodes { .. }
        | Decided::InvalidRequest { .. }
        | Decided::NodeExists { .. }
        | Decided::TooManyNodes { .. }
        | Decided::NotEnoughNodes { .. }
        | Decided::NodeHasReplicas { .. }
        | Decided::NodeVotes { .. }
        | Decided::NodeAlive { .. }
        | Decided::InvalidSetting { .. }
        | Decided::InvalidProducerIds { .. } => ResponseError::InvalidRequest,
        Decided::ProducerIdsExhausted => ResponseError::UnknownServerError,
    }
}

impl From<Decided> for Refusal {
    fn from(refusal: Decided) -> Refusal {
        Refusal::new(code(&refusal), refusal.to_string())
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Refusal {
        match error {
            AskError::Refused(refusal) => refusal.into(),
            error @ AskError::Unavailable(_) => Refusal::new(ResponseError::RequestTimedOut, error.to_string()),
        }
    }
}
