//! Finding topics by name or id, and making the ones that clients ask for.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_cluster::{Log, LogError, Partition, Topic};
use forebay_log::topic::check_topic_name;
pub(crate) use forebay_log::topic::is_internal;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::KafkaDoor;
use super::errors::Refusal;
use super::limits::MAX_PARTITIONS;

/// Topics by id: an index over the log's snapshot, made anew when the topics change.
pub(crate) struct TopicIds {
    index: ArcSwap<(u64, HashMap<Uuid, Arc<Topic>>)>,
}

impl TopicIds {
    pub(crate) fn new() -> TopicIds {
        TopicIds { index: ArcSwap::from_pointee((u64::MAX, HashMap::new())) }
    }

    pub(crate) fn find(&self, log: &Log, id: Uuid) -> Option<Arc<Topic>> {
        let version = *log.topics_changed().borrow();
        let index = self.index.load();
        if index.0 == version {
            return index.1.get(&id).cloned();
        }
        let by_id: HashMap<Uuid, Arc<Topic>> = log.topics().values().map(|t| (t.id, Arc::clone(t))).collect();
        let found = by_id.get(&id).cloned();
        self.index.store(Arc::new((version, by_id)));
        found
    }
}

/// Keeps the first of each key: a request that names one thing many times must not get an answer many times its size.
pub(crate) fn once<T, K: Eq + Hash>(asked: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::with_capacity(asked.len());
    asked.retain(|item| seen.insert(key(item)));
}

/// Whether clients may make a topic with so many more partitions: each costs files and memory.
pub(crate) fn check_room(log: &Log, partitions: u32) -> Result<(), Refusal> {
    let there: usize = log.topics().values().map(|topic| topic.partitions.len()).sum();
    if there + partitions as usize <= MAX_PARTITIONS {
        return Ok(());
    }
    let why =
        format!("the cluster has {there} of at most {MAX_PARTITIONS} partitions; delete topics that are not needed");
    Err(Refusal::new(ResponseError::PolicyViolation, why))
}

/// The partition of this index, if the topic has it.
pub(crate) fn partition(topic: &Topic, index: i32) -> Option<&Arc<Partition>> {
    topic.partitions.get(usize::try_from(index).ok()?)
}

/// A name for a response.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Checks a name for a new topic.
pub(crate) fn check_new_name(name: &str) -> Result<(), Refusal> {
    check_topic_name(name).map_err(|why| Refusal::new(ResponseError::InvalidTopicException, why))?;
    if is_internal(name) {
        let why = format!("topic {name} is reserved for Forebay's own state; choose another name");
        return Err(Refusal::new(ResponseError::InvalidTopicException, why));
    }
    Ok(())
}

/// The topic of this name; made with the defaults if it is missing and `create` allows it.
pub(crate) async fn find_or_create(door: &KafkaDoor, name: &str, create: bool) -> Result<Arc<Topic>, Refusal> {
    if let Some(topic) = door.log.topic(name) {
        return Ok(topic);
    }
    if check_topic_name(name).is_err() {
        return Err(ResponseError::InvalidTopicException.into());
    }
    if !create || is_internal(name) {
        return Err(ResponseError::UnknownTopicOrPartition.into());
    }
    let defaults = &door.config.topic_defaults;
    check_room(&door.log, defaults.num_partitions)?;
    match door.log.create_topic(name, defaults.num_partitions, defaults.config.clone()).await {
        Ok(topic) => {
            tracing::info!(topic = name, partitions = defaults.num_partitions, "topic made on first use");
            Ok(topic)
        }
        // Another connection was first.
        Err(LogError::TopicExists(_)) => {
            door.log.topic(name).ok_or_else(|| ResponseError::UnknownTopicOrPartition.into())
        }
        Err(error) => Err(error.into()),
    }
}
