//! Where a partition lies: its replicas, those in sync, and who leads it.

use forebay_log::{Epoch, NodeId};

/// Where a partition lies, as whoever places partitions says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// None while no in-sync replica is there to lead.
    pub leader: Option<NodeId>,
    /// The log may know a later one: of a node alone it raises the epoch itself, at each start.
    pub leader_epoch: Epoch,
    /// All replicas; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// The replicas that have every acknowledged record.
    pub isr: Vec<NodeId>,
}

impl Placement {
    /// On one node, which leads.
    #[must_use]
    pub fn on(node: NodeId) -> Placement {
        Placement { leader: Some(node), leader_epoch: Epoch(0), replicas: vec![node], isr: vec![node] }
    }
}

/// A node of the cluster that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// Where Kafka clients reach it: host and port. None while it has no door for them.
    pub kafka: Option<(String, u16)>,
}
