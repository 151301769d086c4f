//! What nodes ask of the controller, and what it answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::Refusal;
use crate::cluster::record::{LevelRange, PartitionState};
use crate::units::{Epoch, Incarnation, MetadataVersion, NodeId, PartitionEpoch};

/// Asked of the controller. Reads are not: every node has the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first of all: makes the cluster of these nodes.
    CreateCluster {
        id: Uuid,
        nodes: Vec<NodeId>,
    },
    Register(Register),
    /// A node is there. `applied` is the version of its image.
    Heartbeat {
        id: NodeId,
        incarnation: Incarnation,
        applied: MetadataVersion,
        /// Its disk has no room for more records: what it leads others lead that are in sync.
        #[serde(default)]
        full: bool,
        /// It would like to end: its leaderships are moved, and the answer tells when it may.
        #[serde(default)]
        wants_shutdown: bool,
    },
    /// Node `by` had its connection to this one refused or reset.
    Suspect {
        id: NodeId,
        incarnation: Incarnation,
        by: NodeId,
    },
    CreateTopic(CreateTopic),
    /// A topic that a node had before it was in a cluster, with the leader epochs that its partitions have come to.
    AdoptTopic {
        id: Uuid,
        name: String,
        config: BTreeMap<String, String>,
        node: NodeId,
        leader_epochs: Vec<Epoch>,
    },
    /// Gives a topic `count` partitions in all.
    CreatePartitions {
        topic: Uuid,
        count: u32,
        /// How many it has, as far as the asker knows: if it has `count` by then, an earlier answer was lost.
        #[serde(default)]
        had: Option<u32>,
        /// The replicas of each new partition; by placement when none are given.
        #[serde(default)]
        assignment: Option<Vec<Vec<NodeId>>>,
        #[serde(default)]
        validate_only: bool,
    },
    DeleteTopic {
        topic: Uuid,
    },
    /// Replaces all configs of a topic. Names and values are for the caller to check.
    AlterConfigs {
        topic: Uuid,
        config: BTreeMap<String, String>,
        #[serde(default)]
        validate_only: bool,
    },
    /// A leader proposes in-sync replicas for partitions that it leads (KIP-497).
    AlterPartitions {
        from: NodeId,
        incarnation: Incarnation,
        partitions: Vec<AlterPartition>,
    },
    /// Elects leaders (KIP-183, KIP-460): of these partitions, or of all.
    ElectLeaders {
        election: ElectionType,
        #[serde(default)]
        partitions: Option<Vec<(Uuid, u32)>>,
    },
    /// Changes or cancels reassignments (KIP-455).
    AlterReassignments {
        partitions: Vec<Reassign>,
    },
    /// The node may join the cluster.
    AddNode {
        id: NodeId,
    },
    /// Moves all replicas of the node to others, or stops doing so.
    DrainNode {
        id: NodeId,
        draining: bool,
    },
    /// Takes an empty, stopped node out of the cluster.
    RemoveNode {
        id: NodeId,
    },
    /// Changes settings, all or none; none where one of those `expected` is another by now, or is there or not there.
    PutSettings {
        changes: Vec<SettingChange>,
        #[serde(default)]
        expected: Vec<SettingChange>,
    },
    /// Gives out a block of producer ids that nobody else gets.
    AllocateProducerIds {
        count: u32,
    },
}

/// A process of a node has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    pub id: NodeId,
    /// Higher than that of each process of the node before.
    pub incarnation: Incarnation,
    /// Drawn by the process: a directory put back from a backup has an incarnation once more, and this tells the two apart.
    #[serde(default)]
    pub process: Uuid,
    pub directory: Uuid,
    /// `host:port` by the listener's name.
    pub addresses: BTreeMap<String, String>,
    #[serde(default)]
    pub rack: Option<String>,
    pub levels: LevelRange,
    /// The cluster that the node was in last; none when it is new.
    #[serde(default)]
    pub cluster: Option<Uuid>,
}

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// A new id: the caller draws it.
    pub id: Uuid,
    pub name: String,
    pub replicas: Assignment,
    /// Names and values are for the caller to check.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    #[serde(default)]
    pub validate_only: bool,
}

/// Where the replicas of a new topic go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    Placed {
        partitions: u32,
        replication_factor: u16,
    },
    /// The replicas of each partition, the preferred leader first.
    Explicit {
        replicas: Vec<Vec<NodeId>>,
    },
}

/// A replica that is to be in sync, and the process of it that the leader has seen in sync (KIP-903).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrMember {
    pub id: NodeId,
    pub incarnation: Incarnation,
}

/// New in-sync replicas of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterPartition {
    pub topic: Uuid,
    pub index: u32,
    pub leader_epoch: Epoch,
    pub partition_epoch: PartitionEpoch,
    pub isr: Vec<IsrMember>,
    /// Raise the partition epoch though nothing changes: no older copy of a request that was given up can be decided any more.
    #[serde(default)]
    pub fence: bool,
}

/// Which leader is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElectionType {
    /// The first replica.
    Preferred,
    /// Any replica, in sync or not: refused, as it loses acknowledged records.
    Unclean,
}

/// A reassignment of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassign {
    pub topic: Uuid,
    pub index: u32,
    /// The replicas that it shall have; none cancels what is under way.
    #[serde(default)]
    pub target: Option<Vec<NodeId>>,
}

/// A setting to be put, or removed where it has no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    pub namespace: String,
    pub key: String,
    #[serde(default)]
    pub value: Option<String>,
}

/// What the controller answers when it does not refuse. It holds once the records of the same call are committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is so.
    Done,
    /// The node is unfenced when a heartbeat says that it has applied this.
    Registered {
        since: MetadataVersion,
    },
    Heartbeat(HeartbeatReply),
    /// The new partitions' replicas, from `first` on.
    Placed {
        first: u32,
        replicas: Vec<Vec<NodeId>>,
    },
    /// One for each partition asked for, in their order: its state now, or why it stays as it was.
    Altered {
        partitions: Vec<Result<PartitionState, Refusal>>,
    },
    /// One for each partition asked for; of an election for all, those that had another leader than the preferred one.
    Elected {
        partitions: Vec<Elected>,
    },
    /// One for each partition asked for, in their order.
    Reassigned {
        partitions: Vec<Result<(), Refusal>>,
    },
    /// Producer ids from `first` on, `count` of them.
    ProducerIds {
        first: i64,
        count: u32,
    },
}

/// What a node is told when it says that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// It may not lead nor be in sync yet, or any more.
    pub fenced: bool,
    /// Others take its leaderships, since it wants to end.
    pub stopping: bool,
    /// It may end: whatever others can lead they lead, and they know.
    pub may_shut_down: bool,
}

/// How an election went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elected {
    pub topic: Uuid,
    pub index: u32,
    pub outcome: Result<(), Refusal>,
}
