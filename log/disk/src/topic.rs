//! A topic and its partitions, as the doors see it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::TopicConfig;
use forebay_log::topic::is_internal;

use crate::partition::Partition;

/// A topic and its partitions.
pub struct Topic {
    pub name: String,
    pub id: uuid::Uuid,
    /// Those on this node, by their index: on a node alone all of them.
    pub partitions: Vec<Arc<Partition>>,
    pub(crate) config: Arc<ArcSwap<TopicConfig>>,
}

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct NewTopic {
    pub name: String,
    pub partitions: u32,
    pub config: TopicConfig,
}

impl Topic {
    /// The partition of this index, if it is on this node.
    pub fn partition(&self, index: u32) -> Option<&Arc<Partition>> {
        let at = self.partitions.binary_search_by_key(&index, |partition| partition.index()).ok()?;
        self.partitions.get(at)
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }
    /// Whether it holds the program's own state.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}
