//! A topic and its partitions, as the doors see it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::TopicConfig;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::topic::{check_topic_name, is_internal};

use crate::LogError;
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

impl NewTopic {
    /// Whether it can be made as far as its name and its number of partitions go.
    ///
    /// # Errors
    /// [`LogError::InvalidTopic`]: they are not possible.
    pub fn check(&self) -> Result<(), LogError> {
        let NewTopic { name, partitions, .. } = self;
        check_topic_name(name).map_err(|why| LogError::InvalidTopic(format!("{name:?}: {why}")))?;
        if (1..=MAX_PARTITIONS_PER_TOPIC).contains(partitions) {
            return Ok(());
        }
        let why = format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions, not {partitions}");
        Err(LogError::InvalidTopic(why))
    }
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
