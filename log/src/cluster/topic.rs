//! A topic as the image has it: its configs and the states of its partitions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::PartitionState;
use super::shared::Shared;

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub id: Uuid,
    pub name: String,
    /// Configs by Kafka's names, as set for this topic.
    pub config: BTreeMap<String, String>,
    /// Partition n is at n.
    pub partitions: Vec<Shared<PartitionState>>,
}

impl Topic {
    #[must_use]
    pub fn partition(&self, index: u32) -> Option<&PartitionState> {
        self.partitions.get(usize::try_from(index).ok()?).map(|state| &**state)
    }

    /// The partitions with their indexes.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, &PartitionState)> {
        (0u32..).zip(self.partitions.iter().map(|state| &**state))
    }
}
