//! The partitions that are on this node, by the cluster's ids: what feeding and fetching look up.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_disk::Partition;
use forebay_log::NodeId;
use forebay_log::replication::PartitionId;

/// A partition on this node.
#[derive(Clone)]
pub struct Replica {
    pub partition: Arc<Partition>,
    /// Who is in sync, as the cluster's metadata says.
    pub in_sync: Arc<[NodeId]>,
}

/// All of them. Changed by one task, read by all.
#[derive(Default)]
pub struct Replicas {
    by_id: ArcSwap<HashMap<PartitionId, Replica>>,
}

impl Replicas {
    pub fn get(&self, id: PartitionId) -> Option<Replica> {
        self.by_id.load().get(&id).cloned()
    }

    /// Changes many at once; `None` takes one away.
    pub fn change(&self, changes: impl IntoIterator<Item = (PartitionId, Option<Replica>)>) {
        let mut next = HashMap::clone(&self.by_id.load());
        for (id, replica) in changes {
            match replica {
                Some(replica) => drop(next.insert(id, replica)),
                None => drop(next.remove(&id)),
            }
        }
        self.by_id.store(Arc::new(next));
    }
}
