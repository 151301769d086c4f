//! A topic and its partitions, wherever they lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::topic::is_internal;
use forebay_log::{NodeId, TopicConfig};
use uuid::Uuid;

use super::partition::Partition;
use super::placement::Placement;

/// All topics by name.
pub type Topics = BTreeMap<String, Arc<Topic>>;

/// A topic and its partitions.
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    /// Each at the position of its index.
    pub partitions: Vec<Arc<Partition>>,
    config: Arc<ArcSwap<TopicConfig>>,
}

/// A topic as whoever decides on topics knows it now.
pub(super) struct Known {
    pub(super) name: String,
    pub(super) id: Uuid,
    pub(super) config: Arc<TopicConfig>,
    pub(super) partitions: Vec<Seat>,
}

/// Where a partition lies, and its replica on this node if there is one.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) placement: Arc<Placement>,
    pub(super) replica: Option<Arc<forebay_disk::Partition>>,
}

impl Topic {
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    /// Whether it holds the program's own state.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// The topics that are `known` on node `here`. Handles of those that were there `before` stay the same: they are cached.
pub(super) fn following(before: &Topics, known: Vec<Known>, here: NodeId) -> Topics {
    let topics = known.into_iter().map(|known| {
        let topic = match before.get(&known.name).filter(|topic| topic.id == known.id) {
            Some(topic) => grown(topic, known, here),
            None => {
                let config = Arc::new(ArcSwap::new(known.config));
                with_partitions(known.name, known.id, Vec::new(), known.partitions, config, here)
            }
        };
        (topic.name.clone(), topic)
    });
    topics.collect()
}

/// The topic as it is known now; only one with more partitions is another.
fn grown(topic: &Arc<Topic>, known: Known, here: NodeId) -> Arc<Topic> {
    if !Arc::ptr_eq(&topic.config.load(), &known.config) {
        topic.config.store(known.config);
    }
    let mut seats = known.partitions.into_iter();
    for (partition, seat) in topic.partitions.iter().zip(seats.by_ref()) {
        partition.place(seat.placement);
        partition.hold(seat.replica);
    }
    if seats.len() == 0 {
        return Arc::clone(topic);
    }
    let (partitions, config) = (topic.partitions.clone(), Arc::clone(&topic.config));
    with_partitions(known.name, known.id, partitions, seats, config, here)
}

fn with_partitions(
    name: String,
    id: Uuid,
    mut partitions: Vec<Arc<Partition>>,
    seats: impl IntoIterator<Item = Seat>,
    config: Arc<ArcSwap<TopicConfig>>,
    here: NodeId,
) -> Arc<Topic> {
    let shared: Arc<str> = name.as_str().into();
    for seat in seats {
        let index = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        partitions.push(Arc::new(Partition::new(Arc::clone(&shared), index, here, seat)));
    }
    Arc::new(Topic { name, id, partitions, config })
}
