//! The life of topics: made, altered and deleted, each change durable in the metadata before it is seen.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::partition::Event;
use forebay_log::{AppendError, TopicConfig};
use uuid::Uuid;

use crate::LogError;
use crate::dirs;
use crate::engine::PartitionKey;
use crate::files::Files;
use crate::layout::partition_dir;
use crate::log::{Inner, Topics};
use crate::meta::{Metadata, TopicMeta};
use crate::open::OpenPartition;
use crate::partition::Partition;
use crate::points::Points;
use crate::shard::{Request, shard_of};
use crate::shared::Shared;
use crate::space::Space;
use crate::topic::{NewTopic, Topic};
use crate::unopened::Unopened;

/// A topic and what is left to do for it.
pub(crate) struct Prepared {
    pub(crate) topic: Arc<Topic>,
    pub(crate) unopened: Vec<Unopened>,
}

impl Inner {
    /// A topic with handles to its partitions, which are still to be opened.
    pub(crate) fn prepare(&self, name: &str, meta: &TopicMeta, known: &Points) -> Result<Prepared, LogError> {
        let config = Arc::new(ArcSwap::from_pointee(meta.config.clone()));
        self.grow(Topic { name: name.to_owned(), id: meta.id, partitions: Vec::new(), config }, &meta.partitions, known)
    }

    /// The topic with handles to these partitions besides those that it had, which stay what they are.
    pub(crate) fn grow(&self, topic: Topic, more: &[u32], known: &Points) -> Result<Prepared, LogError> {
        let Topic { name, id, mut partitions, config } = topic;
        let mut unopened = Vec::new();
        for &index in more {
            let key: PartitionKey = self.next_key.fetch_add(1, Ordering::Relaxed);
            let mailbox = shard_of(key, &self.mailboxes).ok_or(LogError::Closed)?;
            let point = known.get(&(id, index)).copied().unwrap_or_default();
            let shared =
                Arc::new(Shared::new((name.as_str(), id), index, point, Arc::clone(&self.stats), self.outbox.clone()));
            let open = OpenPartition {
                files: Arc::clone(&self.files),
                space: Arc::clone(&self.space),
                shared: Arc::clone(&shared),
                config: Arc::clone(&config),
                point,
                alone: self.options.alone,
            };
            unopened.push(Unopened { key, mailbox: mailbox.clone(), open });
            partitions.push(Arc::new(Partition {
                key,
                shared,
                mailbox: mailbox.clone(),
                admission: Arc::clone(&self.admission),
                space: Arc::clone(&self.space),
                config: Arc::clone(&config),
            }));
        }
        partitions.sort_unstable_by_key(|partition| partition.index());
        let topic = Arc::new(Topic { name, id, partitions, config });
        Ok(Prepared { topic, unopened })
    }

    pub(crate) fn create_topics(&self, wanted: Vec<NewTopic>) -> Result<Vec<Arc<Topic>>, LogError> {
        wanted.iter().try_for_each(NewTopic::check)?;
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        let exists = |name: &String| metadata.topics.get(name).is_some_and(|topic| !topic.deleting);
        if let Some(existing) = wanted.iter().find(|topic| exists(&topic.name)) {
            return Err(LogError::TopicExists(existing.name.clone()));
        }
        let Some(first) = wanted.first().map(|topic| topic.name.clone()) else { return Ok(Vec::new()) };
        finish_deletions(self.files.as_ref(), &self.space, &mut metadata)?;
        let mut metas = BTreeMap::new();
        for NewTopic { name, partitions, config } in wanted {
            let partitions = (0..partitions).collect();
            metas.insert(name, TopicMeta { id: Uuid::new_v4(), partitions, config, deleting: false });
        }
        let dirs_of = || metas.iter().map(|(name, meta)| (name.as_str(), meta.id, meta.partitions.as_slice()));
        let make = || dirs::create(self.files.as_ref(), dirs_of());
        self.space.reserved(make).map_err(LogError::io(partition_dir(&first, 0)))?;
        let (mut made, mut waiting) = (Vec::new(), Vec::new());
        for (name, meta) in &metas {
            let Prepared { topic, unopened } = self.prepare(name, meta, &Points::new())?;
            made.push(topic);
            waiting.extend(unopened);
        }
        self.save(&mut metadata, |next| next.topics.extend(metas))?;
        self.unopened.open_all(waiting)?;
        self.publish(|topics| topics.extend(made.iter().map(|topic| (topic.name.clone(), Arc::clone(topic)))));
        Ok(made)
    }

    /// Gives a topic more partitions. Their directories come first: of a crash in between nothing is left but those.
    pub(crate) fn add_partitions(&self, name: &str, count: u32) -> Result<(), LogError> {
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        let topic = self.topics.load().get(name).cloned().ok_or_else(|| LogError::UnknownTopic(name.to_owned()))?;
        let now = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        if !(now + 1..=MAX_PARTITIONS_PER_TOPIC).contains(&count) {
            let why =
                format!("topic {name} has {now} partitions; it can get up to {MAX_PARTITIONS_PER_TOPIC}, not {count}");
            return Err(LogError::InvalidTopic(why));
        }
        let more: Vec<u32> = (now..count).collect();
        let make = || dirs::create(self.files.as_ref(), std::iter::once((name, topic.id, more.as_slice())));
        self.space.reserved(make).map_err(LogError::io(partition_dir(name, now)))?;
        let same = Topic {
            name: name.to_owned(),
            id: topic.id,
            partitions: topic.partitions.clone(),
            config: Arc::clone(&topic.config),
        };
        let Prepared { topic, unopened } = self.grow(same, &more, &Points::new())?;
        self.save(&mut metadata, |next| {
            if let Some(meta) = next.topics.get_mut(name) {
                meta.partitions.extend(&more);
            }
        })?;
        self.unopened.open_all(unopened)?;
        self.publish(|topics| {
            topics.insert(name.to_owned(), topic);
        });
        Ok(())
    }

    pub(crate) fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        let topic = self.topics.load().get(name).cloned().ok_or_else(|| LogError::UnknownTopic(name.to_owned()))?;
        self.save(&mut metadata, |next| {
            if let Some(meta) = next.topics.get_mut(name) {
                meta.deleting = true;
            }
        })?;
        self.publish(|topics| {
            topics.remove(name);
        });
        self.let_go(&topic.partitions);
        if let Err(error) = finish_deletions(self.files.as_ref(), &self.space, &mut metadata) {
            tracing::warn!(topic = name, %error, "the deleted topic's files are not all removed: tried again later");
        }
        Ok(())
    }

    pub(crate) fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        let topic = self.topics.load().get(name).cloned().ok_or_else(|| LogError::UnknownTopic(name.to_owned()))?;
        self.save(&mut metadata, |next| {
            if let Some(meta) = next.topics.get_mut(name) {
                meta.config = config.clone();
            }
        })?;
        topic.config.store(Arc::new(config.clone()));
        for partition in &topic.partitions {
            let event = Request::Event(partition.key, Event::Configure(config.clone()));
            partition.mailbox.send_blocking(event).map_err(|_: AppendError| LogError::Closed)?;
        }
        self.publish(|_| {});
        Ok(())
    }

    /// Changes the metadata on disk, then in memory: a failed write changes nothing.
    pub(crate) fn save(&self, metadata: &mut Metadata, change: impl FnOnce(&mut Metadata)) -> Result<(), LogError> {
        let mut next = metadata.clone();
        change(&mut next);
        self.space.reserved(|| next.save(self.files.as_ref())).map_err(LogError::io("metadata"))?;
        *metadata = next;
        Ok(())
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Topics)) {
        let mut topics = Topics::clone(&self.topics.load());
        change(&mut topics);
        self.topics.store(Arc::new(topics));
        self.changed.send_modify(|version| *version += 1);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|listener| listener());
    }

    pub(crate) fn check_running(&self) -> Result<(), LogError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stepped || running.is_some() { Ok(()) } else { Err(LogError::Closed) }
    }
}

/// Removes what is left of deleted topics, then their entries.
pub(crate) fn finish_deletions(files: &dyn Files, space: &Space, metadata: &mut Metadata) -> Result<(), LogError> {
    let deleting: Vec<(String, TopicMeta)> =
        metadata.topics.iter().filter(|(_, t)| t.deleting).map(|(name, t)| (name.clone(), t.clone())).collect();
    if deleting.is_empty() {
        return Ok(());
    }
    for (name, topic) in &deleting {
        dirs::delete(files, name, topic.id, &topic.partitions).map_err(LogError::io(partition_dir(name, 0)))?;
    }
    let mut next = metadata.clone();
    next.topics.retain(|_, topic| !topic.deleting);
    space.reserved(|| next.save(files)).map_err(LogError::io("metadata"))?;
    *metadata = next;
    Ok(())
}
