//! The nodes that are up and where partitions lie, as Metadata and its kin show them.

use std::sync::Arc;

use forebay_cluster::{Log, Node, Partition};
use forebay_log::NodeId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;

/// In place of a node: there is none.
pub(crate) const NOBODY: BrokerId = BrokerId(-1);

/// A node that Kafka clients can reach.
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) host: StrBytes,
    pub(crate) port: i32,
    pub(crate) rack: Option<StrBytes>,
}

/// Where a partition lies.
pub(crate) struct Whereabouts {
    /// `LEADER_NOT_AVAILABLE` where there is nobody to go to, or 0.
    pub(crate) error: i16,
    pub(crate) leader: BrokerId,
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) isr: Vec<BrokerId>,
    /// Replicas on nodes that are not up.
    pub(crate) offline: Vec<BrokerId>,
}

/// The nodes that are up, at one moment.
pub(crate) struct Brokers {
    nodes: Arc<Vec<Node>>,
    pub(crate) controller: BrokerId,
}

impl Brokers {
    pub(crate) fn of(log: &Log) -> Brokers {
        Brokers { nodes: log.nodes(), controller: log.controller().map_or(NOBODY, broker_id) }
    }

    /// All that clients can reach.
    pub(crate) fn all(&self) -> impl Iterator<Item = Broker> {
        self.nodes.iter().filter_map(|node| {
            let (host, port) = node.kafka.as_ref()?;
            let host = StrBytes::from_string(host.clone());
            let rack = node.rack.clone().map(StrBytes::from_string);
            Some(Broker { id: broker_id(node.id), host, port: i32::from(*port), rack })
        })
    }

    pub(crate) fn find(&self, id: NodeId) -> Option<Broker> {
        self.all().find(|broker| broker.id == broker_id(id))
    }

    /// Where the partition lies; a leader that clients cannot reach is none to them.
    pub(crate) fn whereabouts(&self, partition: &Partition) -> Whereabouts {
        let placement = partition.placement();
        let is_up = |id: NodeId| self.nodes.iter().any(|node| node.id == id);
        let reached = |id: &NodeId| self.nodes.iter().any(|node| node.id == *id && node.kafka.is_some());
        let leader = placement.leader.filter(reached);
        let ids = |nodes: &[NodeId]| nodes.iter().copied().map(broker_id).collect();
        Whereabouts {
            error: leader.map_or(ResponseError::LeaderNotAvailable.code(), |_| 0),
            leader: leader.map_or(NOBODY, broker_id),
            replicas: ids(&placement.replicas),
            isr: ids(&placement.isr),
            offline: placement.replicas.iter().copied().filter(|id| !is_up(*id)).map(broker_id).collect(),
        }
    }
}

fn broker_id(id: NodeId) -> BrokerId {
    BrokerId(id.0)
}
