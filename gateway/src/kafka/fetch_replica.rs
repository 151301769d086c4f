//! Which replica a consumer reads from: the nearest one that is in sync (KIP-392).

use std::sync::Arc;

use forebay_cluster::{Node, Partition};
use forebay_log::NodeId;
use kafka_protocol::messages::FetchRequest;

use super::Shared;

/// First version in which consumers tell their rack, and read from followers.
const FOLLOWERS_FROM: i16 = 11;

/// Who fetches, as far as it decides where from.
pub(super) struct Reader {
    /// This node, where the client may read from followers.
    pub(super) follower: Option<NodeId>,
    /// The client's rack and the nodes that are up; none where it names no rack.
    rack: Option<(String, Arc<Vec<Node>>)>,
}

impl Reader {
    pub(super) fn of(shared: &Shared, version: i16, request: &FetchRequest) -> Reader {
        let log = &shared.door.log;
        let follower = (version >= FOLLOWERS_FROM).then(|| log.node_id());
        let rack = follower.filter(|_| !request.rack_id.is_empty());
        Reader { follower, rack: rack.map(|_| (request.rack_id.to_string(), log.nodes())) }
    }

    /// A replica in the client's rack, if the leader is in another one: in sync, so that it has all that may be read, and up.
    pub(super) fn nearer(&self, partition: &Partition) -> Option<NodeId> {
        let (rack, nodes) = self.rack.as_ref()?;
        let placement = partition.placement();
        let is_near = |id: NodeId| nodes.iter().any(|node| node.id == id && node.rack.as_ref() == Some(rack));
        if placement.leader.is_none_or(is_near) {
            return None;
        }
        let reached = |id: &NodeId| nodes.iter().any(|node| node.id == *id && node.kafka.is_some());
        placement.isr.iter().copied().find(|id| is_near(*id) && reached(id))
    }
}
