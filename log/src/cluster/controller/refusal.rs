//! Why the controller refuses: what, why, and what to do. Each is one of Kafka's error codes, where Kafka has the
//! request.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cluster::record::LevelRange;
use crate::units::{Incarnation, Level, NodeId};

/// Why a request changes nothing. The text is for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("there is no cluster yet: its first nodes are still to form it, try again")]
    NoCluster,
    #[error("the cluster is there already, its id is {id}")]
    ClusterExists { id: Uuid },
    #[error("a cluster needs 1 to {most} nodes with different ids that are not negative")]
    InvalidNodes { most: usize },
    #[error(
        "node {id} belongs to cluster {theirs}, this is cluster {ours}: correct its [cluster] peers, or start it \
         with an empty data directory to join this one"
    )]
    WrongCluster { id: NodeId, ours: Uuid, theirs: Uuid },
    #[error(
        "node {id} is not in the cluster: admit it with `forebay cluster add {id}` on one of the nodes, or correct \
         its node.id"
    )]
    UnknownNode { id: NodeId },
    #[error("node {id} has not registered, or has been removed since: it has to register")]
    NotRegistered { id: NodeId },
    #[error(
        "node {id} has registered with incarnation {known}, this is {got}: another process of it has started since, \
         two nodes have this id, or its data directory was put back from a backup; a new process has to register with a \
         higher one: start the node again"
    )]
    StaleIncarnation { id: NodeId, known: Incarnation, got: Incarnation },
    #[error(
        "node {id} came with data directory {got}, its replicas and votes are in {known}: start it with that \
         directory; if it is lost, take the node out with `forebay cluster drain {id}` and `remove {id}` and add it \
         again"
    )]
    OtherDirectory { id: NodeId, known: Uuid, got: Uuid },
    #[error(
        "node {id} supports levels {} to {}, the cluster runs at level {level}: start it with a release that \
         supports it",
        .levels.least, .levels.most
    )]
    UnsupportedLevel { id: NodeId, level: Level, levels: LevelRange },
    #[error(
        "the registration of node {id} is too long: a name, address or rack has at most {most} bytes, 16 addresses \
         at most"
    )]
    InvalidRegistration { id: NodeId, most: usize },

    #[error("topic {name} exists already")]
    TopicExists { name: String },
    #[error("topic id {id} is in use already: draw another")]
    TopicIdExists { id: Uuid },
    #[error("topic {name:?}: {why}")]
    InvalidTopic { name: String, why: String },
    #[error("there is no topic with id {id}: it was deleted, or this node has not heard of it yet")]
    UnknownTopicId { id: Uuid },
    #[error("topic {topic} has no partition {index}")]
    UnknownPartition { topic: String, index: u32 },
    #[error("{count} partitions are not possible: {why}")]
    InvalidPartitions { count: u64, why: String },
    #[error(
        "replication factor {wanted} is not possible: {available} nodes can take replicas; start more nodes, end a \
         drain, or ask for a lower one"
    )]
    InvalidReplicationFactor { wanted: u16, available: usize },
    #[error("these replicas are not possible: {why}")]
    InvalidReplicaAssignment { why: String },
    #[error("the configs of topic {name} have {bytes} bytes, {most} are the most")]
    ConfigTooLarge { name: String, bytes: usize, most: usize },
    #[error(
        "the cluster would have {partitions} partitions, {most} are the most: delete topics, or use fewer partitions"
    )]
    TooManyPartitions { partitions: usize, most: usize },

    #[error("the partition's leader epoch is newer: this node does not lead it any more")]
    FencedLeaderEpoch,
    #[error("the partition has changed since: take its newer state and propose again")]
    InvalidUpdateVersion,
    #[error("the epochs are newer than this controller's: it is not the active one any more, ask again")]
    NotController,
    #[error("this is no proposal for in-sync replicas: {why}")]
    InvalidRequest { why: String },
    #[error("node {id} cannot be in sync: it is fenced, about to end, or another process of it has started")]
    IneligibleReplica { id: NodeId },
    #[error("an unclean election would lose acknowledged records and is off: bring an in-sync replica back")]
    UncleanElection,
    #[error("the preferred leader, node {id}, is not there, not in sync, or its disk is full")]
    PreferredLeaderNotAvailable { id: NodeId },
    #[error("the preferred leader leads already")]
    ElectionNotNeeded,
    #[error("the partition is not being reassigned")]
    NoReassignmentInProgress,
    #[error("only replicas that the running reassignment adds are in sync: let it end first")]
    ReassignmentInProgress,

    #[error("node {id} is in the cluster already")]
    NodeExists { id: NodeId },
    #[error("the cluster has {most} nodes, which is the most")]
    TooManyNodes { most: usize },
    #[error(
        "node {id} cannot be drained: partition {topic}-{index} has {replicas} replicas, {left} other nodes are \
         left to hold them; add a node first, or reassign the partition to fewer replicas"
    )]
    NotEnoughNodes { id: NodeId, topic: String, index: u32, replicas: usize, left: usize },
    #[error("node {id} has {replicas} replicas still: move them with `forebay cluster drain {id}` first")]
    NodeHasReplicas { id: NodeId, replicas: usize },
    #[error("node {id} votes in the controller quorum: take it out of the quorum first")]
    NodeVotes { id: NodeId },
    #[error("node {id} is running: stop it first")]
    NodeAlive { id: NodeId },

    #[error("a setting's namespace and key have 1 to {most} bytes")]
    InvalidSetting { most: usize },
    #[error("setting {key} of {namespace} was changed meanwhile: read it and decide again")]
    SettingChanged { namespace: String, key: String },
    #[error("{bytes} bytes of settings, {most} are the most, of all of them and of those changed at once")]
    SettingsTooLarge { bytes: usize, most: usize },
    #[error("1 to {most} producer ids can be had at once, not {wanted}")]
    InvalidProducerIds { wanted: u32, most: u32 },
    #[error("all producer ids are given out")]
    ProducerIdsExhausted,
    #[error("{count} partitions in one request, {most} are the most: ask for fewer at once")]
    RequestTooLarge { count: usize, most: usize },
}
