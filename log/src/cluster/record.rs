//! The records that change the cluster's metadata, and from which level on each kind may be written.
//!
//! A record's form never changes: fields may be added with a default, and new kinds with a level of their own, so that
//! a release that does not know them meets none while it is in the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::units::{Epoch, Incarnation, Level, NodeId, PartitionEpoch};

/// The levels that a release supports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelRange {
    pub least: Level,
    pub most: Level,
}

impl LevelRange {
    /// What this release supports.
    pub const OURS: LevelRange = LevelRange { least: Level(1), most: Level(1) };

    #[must_use]
    pub fn supports(self, level: Level) -> bool {
        (self.least..=self.most).contains(&level)
    }
}

/// A partition as the controller knows it. A record holds it whole, so that the last one says everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionState {
    /// All replicas; the first is the preferred leader. While they are reassigned, first those that will stay.
    pub replicas: Vec<NodeId>,
    /// The replicas that have every acknowledged record; never empty.
    pub isr: Vec<NodeId>,
    /// None while no in-sync replica is there to lead.
    #[serde(default)]
    pub leader: Option<NodeId>,
    pub leader_epoch: Epoch,
    pub partition_epoch: PartitionEpoch,
    /// Replicas that a reassignment brings: it ends when all of them are in sync.
    #[serde(default)]
    pub adding: Vec<NodeId>,
    /// Replicas that leave when the reassignment ends.
    #[serde(default)]
    pub removing: Vec<NodeId>,
}

impl PartitionState {
    #[must_use]
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Whether fewer replicas are in sync than there are, those that a reassignment still brings not counted.
    #[must_use]
    pub fn is_under_replicated(&self) -> bool {
        self.replicas.iter().any(|replica| !self.adding.contains(replica) && !self.isr.contains(replica))
    }
}

/// One change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The first record: the cluster's id, and the nodes of its first quorum.
    ClusterCreated {
        id: Uuid,
        level: Level,
        nodes: Vec<NodeId>,
    },
    LevelFinalised {
        level: Level,
    },
    /// The node may join: it is in the cluster from here on, though it may never have been heard of.
    NodeAdded {
        id: NodeId,
    },
    /// A process of the node has started; it is fenced until it has caught up to this.
    NodeRegistered {
        id: NodeId,
        incarnation: Incarnation,
        /// The id of its data directory.
        directory: Uuid,
        /// `host:port` by the listener's name (`cluster`, `kafka`, `mqtt`, ...).
        addresses: BTreeMap<String, String>,
        #[serde(default)]
        rack: Option<String>,
        levels: LevelRange,
        /// The process's own number.
        #[serde(default)]
        process: Uuid,
    },
    /// The node is not to lead nor to be in sync.
    NodeFenced {
        id: NodeId,
    },
    NodeUnfenced {
        id: NodeId,
    },
    /// The node is about to end (controlled shutdown): it leads only what nobody else can.
    NodeStopping {
        id: NodeId,
    },
    /// Whether the node is being emptied: its replicas move to others.
    NodeDraining {
        id: NodeId,
        draining: bool,
    },
    NodeRemoved {
        id: NodeId,
    },
    TopicCreated {
        id: Uuid,
        name: String,
        config: BTreeMap<String, String>,
    },
    /// The topic's configs, all of them.
    TopicConfigChanged {
        id: Uuid,
        config: BTreeMap<String, String>,
    },
    TopicDeleted {
        id: Uuid,
    },
    /// A partition's state; one with the next index makes the partition.
    Partition {
        topic: Uuid,
        index: u32,
        state: PartitionState,
    },
    /// A setting of a namespace (users, ACLs, quotas, rules); without a value it is removed.
    Setting {
        namespace: String,
        key: String,
        #[serde(default)]
        value: Option<String>,
    },
    /// Producer ids below this one are given out.
    ProducerIds {
        next: i64,
    },
}

impl Record {
    /// The level from which on records of this kind may be written.
    #[must_use]
    pub fn since(&self) -> Level {
        match self {
            Record::ClusterCreated { .. }
            | Record::LevelFinalised { .. }
            | Record::NodeAdded { .. }
            | Record::NodeRegistered { .. }
            | Record::NodeFenced { .. }
            | Record::NodeUnfenced { .. }
            | Record::NodeStopping { .. }
            | Record::NodeDraining { .. }
            | Record::NodeRemoved { .. }
            | Record::TopicCreated { .. }
            | Record::TopicConfigChanged { .. }
            | Record::TopicDeleted { .. }
            | Record::Partition { .. }
            | Record::Setting { .. }
            | Record::ProducerIds { .. } => Level(1),
        }
    }
}
