//! What a person asks of the image: what lies on a node, and which partitions move.

use super::image::Image;
use super::record::PartitionState;
use super::topic::Topic;
use crate::units::NodeId;

/// What lies on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hosting {
    pub replicas: usize,
    pub leaderships: usize,
    /// Replicas that leave it when their reassignment ends.
    pub leaving: usize,
}

impl Image {
    /// What lies on the node. When it is drained, its replicas are what is still to do.
    #[must_use]
    pub fn hosting(&self, id: NodeId) -> Hosting {
        let mut hosting = Hosting::default();
        for (_, _, state) in self.partitions() {
            hosting.replicas += usize::from(state.replicas.contains(&id));
            hosting.leaderships += usize::from(state.leader == Some(id));
            hosting.leaving += usize::from(state.removing.contains(&id));
        }
        hosting
    }

    /// The partitions that are being reassigned (KIP-455).
    pub fn reassignments(&self) -> impl Iterator<Item = (&Topic, u32, &PartitionState)> {
        self.partitions().filter(|(_, _, state)| state.is_reassigning())
    }
}
