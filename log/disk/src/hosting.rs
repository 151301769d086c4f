//! Which partitions of the cluster's topics are on this node: taken in and let go one by one, as the controller says.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use forebay_log::TopicConfig;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::topic::check_topic_name;
use uuid::Uuid;

use crate::LogError;
use crate::dirs;
use crate::layout::partition_dir;
use crate::lifecycle::{Prepared, finish_deletions};
use crate::log::Inner;
use crate::meta::TopicMeta;
use crate::partition::Partition;
use crate::points::{self, Points};
use crate::shard::Request;
use crate::topic::Topic;

impl Inner {
    /// Has these partitions of the topic here; those that are here already stay what they are. They follow nobody yet.
    pub(crate) fn host(
        &self,
        name: &str,
        id: Uuid,
        config: &TopicConfig,
        indexes: &[u32],
    ) -> Result<Arc<Topic>, LogError> {
        check_topic_name(name).map_err(|why| LogError::InvalidTopic(format!("{name:?}: {why}")))?;
        if let Some(index) = indexes.iter().find(|&&index| index >= MAX_PARTITIONS_PER_TOPIC) {
            return Err(LogError::InvalidTopic(format!("{name}: no topic has a partition {index}")));
        }
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        finish_deletions(self.files.as_ref(), &self.space, &mut metadata)?;
        let known = self.topics.load().get(name).cloned();
        if known.as_ref().is_some_and(|known| known.id != id) {
            return Err(LogError::TopicExists(name.to_owned()));
        }
        let here = |index: &u32| known.as_ref().is_some_and(|topic| topic.partition(*index).is_some());
        let mut more: Vec<u32> = indexes.iter().copied().filter(|index| !here(index)).collect();
        more.sort_unstable();
        more.dedup();
        if let Some(known) = known.as_ref().filter(|_| more.is_empty()) {
            return Ok(Arc::clone(known));
        }
        self.forget_points(id, &more)?;
        let Some(&first) = more.first() else { return Err(LogError::UnknownTopic(name.to_owned())) };
        let make = || dirs::create(self.files.as_ref(), std::iter::once((name, id, more.as_slice())));
        self.space.reserved(make).map_err(LogError::io(partition_dir(name, first)))?;
        let (partitions, shared_config) = known.as_ref().map_or_else(
            || (Vec::new(), Arc::new(arc_swap::ArcSwap::from_pointee(config.clone()))),
            |topic| (topic.partitions.clone(), Arc::clone(&topic.config)),
        );
        let before = Topic { name: name.to_owned(), id, partitions, config: shared_config };
        let Prepared { topic, unopened } = self.grow(before, &more, &Points::new())?;
        self.save(&mut metadata, |next| {
            let fresh = || TopicMeta { id, partitions: Vec::new(), config: config.clone(), deleting: false };
            let meta = next.topics.entry(name.to_owned()).or_insert_with(fresh);
            meta.partitions.extend(&more);
            meta.partitions.sort_unstable();
        })?;
        self.unopened.open_all(unopened)?;
        self.publish(|topics| drop(topics.insert(name.to_owned(), Arc::clone(&topic))));
        Ok(topic)
    }

    /// Has these partitions of the topic no more; what they held is deleted. Of a topic with this name and another id nothing is
    /// touched.
    pub(crate) fn unhost(&self, name: &str, id: Uuid, indexes: &[u32]) -> Result<(), LogError> {
        let Some(topic) = self.topics.load().get(name).filter(|topic| topic.id == id).cloned() else { return Ok(()) };
        let (go, stay): (Vec<_>, Vec<_>) =
            topic.partitions.iter().cloned().partition(|partition| indexes.contains(&partition.index()));
        if stay.is_empty() {
            return self.delete_topic(name);
        }
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        // Without them in the metadata a crash leaves directories that nobody opens, and that are made anew when they come back.
        self.save(&mut metadata, |next| {
            if let Some(meta) = next.topics.get_mut(name) {
                meta.partitions.retain(|index| !indexes.contains(index));
            }
        })?;
        let config = Arc::clone(&topic.config);
        let left = Arc::new(Topic { name: name.to_owned(), id, partitions: stay, config });
        self.publish(|topics| drop(topics.insert(name.to_owned(), left)));
        self.let_go(&go);
        let gone: Vec<u32> = go.iter().map(|partition| partition.index()).collect();
        if let Err(error) = dirs::delete(self.files.as_ref(), name, id, &gone) {
            tracing::warn!(topic = name, partitions = ?gone, %error, "files of partitions that moved away are not all removed");
        }
        Ok(())
    }

    /// Partitions that were here before begin empty: what they held then is not to be missed after a crash.
    fn forget_points(&self, id: Uuid, indexes: &[u32]) -> Result<(), LogError> {
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = points.clone();
        left.retain(|(topic, index), _| *topic != id || !indexes.contains(index));
        if left != *points {
            self.space
                .reserved(|| points::save(self.files.as_ref(), &left))
                .map_err(LogError::io("recovery points"))?;
            *points = left;
        }
        Ok(())
    }

    /// Takes partitions from their shards; on return nothing touches their files any more.
    pub(crate) fn let_go(&self, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            partition.shared.removed.store(true, Ordering::Release);
            let (done, gone) = tokio::sync::oneshot::channel();
            let asked = partition.mailbox.send_blocking(Request::Remove(partition.key, done));
            // Stepped shards do it with their next step.
            if asked.is_ok() && !self.stepped {
                drop(gone.blocking_recv());
            }
        }
    }
}
