//! Carries out what the offload machine asks for: manifest, object store, table and local log at the edge.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use forebay_log::{Millis, Offset};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Change, Effect, Event, Ids, Offload, Policy, Segment, background};
use crate::manifest::Entry;
use crate::parquet::{Job, SegmentSource, Written, copy_segment};
use crate::shape::Shape;
use crate::table::Table;

/// Where the manifest is kept.
#[async_trait]
pub trait ManifestStore: Send + Sync {
    /// The entries and the shape of a topic.
    ///
    /// # Errors
    /// An entry cannot be read.
    fn load(&self, topic_id: Uuid) -> Result<(Vec<Entry>, Shape), String>;
    /// Makes changes durable, all or none.
    ///
    /// # Errors
    /// They may or may not be durable.
    async fn persist(&self, topic_id: Uuid, changes: &[Change]) -> Result<(), String>;
}

/// The local log of a topic.
#[async_trait]
pub trait LocalLog: Send + Sync {
    fn partitions(&self) -> u32;
    /// The log start and the closed segments below the high watermark, oldest first.
    fn local(&self, partition: u32) -> (Offset, Vec<Segment>);
    fn source(&self, partition: u32) -> Box<dyn SegmentSource>;
    /// # Errors
    /// The partition takes no changes now.
    async fn set_tiered(&self, partition: u32, end: Offset) -> Result<(), String>;
}

/// Why the driver must start over from the manifest.
#[derive(Debug, Clone, thiserror::Error)]
#[error("lake manifest: {0}")]
pub struct DriverError(pub String);

/// The offload of one topic at work.
pub struct Driver {
    topic_id: Uuid,
    offload: Offload,
    store: Arc<dyn ObjectStore>,
    manifest: Arc<dyn ManifestStore>,
    log: Arc<dyn LocalLog>,
    table: Box<dyn Table>,
    copies: Arc<Semaphore>,
    clock: Arc<dyn Fn() -> Millis + Send + Sync>,
    /// What the log could not be told yet.
    untold: BTreeMap<u32, Offset>,
    /// The next copy takes no rest.
    hurry: bool,
}

/// What a driver works with.
pub struct Parts {
    pub topic: String,
    pub topic_id: Uuid,
    pub policy: Policy,
    pub ids: Ids,
    pub store: Arc<dyn ObjectStore>,
    pub manifest: Arc<dyn ManifestStore>,
    pub log: Arc<dyn LocalLog>,
    pub table: Box<dyn Table>,
    /// Copies at the same time in this node.
    pub copies: Arc<Semaphore>,
    pub clock: Arc<dyn Fn() -> Millis + Send + Sync>,
}

impl Driver {
    /// Goes on from the manifest.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn open(parts: Parts) -> Result<Driver, DriverError> {
        let (entries, shape) = parts.manifest.load(parts.topic_id).map_err(DriverError)?;
        let offload = Offload::recover(&parts.topic, parts.topic_id, parts.policy, entries, shape, parts.ids);
        Ok(Driver {
            topic_id: parts.topic_id,
            offload,
            store: parts.store,
            manifest: parts.manifest,
            log: parts.log,
            table: parts.table,
            copies: parts.copies,
            clock: parts.clock,
            untold: BTreeMap::new(),
            hurry: false,
        })
    }

    pub fn offload(&self) -> &Offload {
        &self.offload
    }

    pub fn table(&mut self) -> &mut dyn Table {
        self.table.as_mut()
    }

    /// Looks at the local log and does what is due, but copies one segment at most; returns whether another one is due at
    /// once.
    ///
    /// # Errors
    /// The manifest could not be written: open a new driver.
    pub async fn poll(&mut self, policy: Policy, flush: bool) -> Result<bool, DriverError> {
        let unhurried = policy.unhurried_bytes;
        let mut events = VecDeque::from([Event::Policy(policy)]);
        for (partition, end) in self.untold.clone() {
            self.tell_tiered(partition, end).await;
        }
        let mut waiting = 0;
        for partition in 0..self.log.partitions() {
            let (log_start, segments) = self.log.local(partition);
            let done = self.offload.tiered_end(partition).unwrap_or(log_start);
            waiting += segments.iter().filter(|segment| segment.end > done).map(|segment| segment.bytes).sum::<u64>();
            events.push_back(Event::Local { partition, log_start, segments });
        }
        self.hurry = flush || waiting > unhurried;
        events.push_back(if flush { Event::Flush } else { Event::Tick });
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            self.offload.handle((self.clock)(), event, &mut effects);
            for effect in effects {
                events.extend(self.perform(effect).await?);
            }
        }
        Ok(self.offload.has_more((self.clock)()))
    }

    async fn perform(&mut self, effect: Effect) -> Result<Option<Event>, DriverError> {
        Ok(match effect {
            Effect::Persist { changes, then } => {
                self.manifest.persist(self.topic_id, &changes).await.map_err(DriverError)?;
                Some(Event::Persisted(then))
            }
            Effect::Copy { entry, shape } => {
                let (partition, id) = (entry.partition, entry.id);
                Some(Event::Copied { partition, id, result: self.copy(*entry, shape).await })
            }
            Effect::Commit { adds, removes, shape, at } => {
                let result = self.table.commit(&adds, &removes, &shape, at).await;
                Some(Event::Committed { result: result.map_err(|error| error.to_string()) })
            }
            Effect::DeleteObject { partition, id, path } => {
                let result = match self.store.delete(&Path::from(path)).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(format!("object store: {error}")),
                };
                Some(Event::Deleted { partition, id, result })
            }
            Effect::Tiered { partition, end } => {
                self.tell_tiered(partition, end).await;
                None
            }
        })
    }

    async fn tell_tiered(&mut self, partition: u32, end: Offset) {
        match self.log.set_tiered(partition, end).await {
            Ok(()) => drop(self.untold.remove(&partition)),
            Err(error) => {
                if self.untold.insert(partition, end).is_none() {
                    tracing::warn!(partition, %end, error, "the log was not told what is in the lake; trying again");
                }
            }
        }
    }

    /// Shaping and compressing is work for a thread of its own, one copy after the other.
    async fn copy(&self, entry: Entry, shape: Arc<Shape>) -> Result<(Written, Shape), String> {
        let permit = self.copies.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let (store, source) = (self.store.clone(), self.log.source(entry.partition));
        let (runtime, hurry) = (Handle::current(), self.hurry);
        let work = move || {
            let _permit = permit;
            let mut source = if hurry { source } else { Box::new(background::Unhurried::new(source)) };
            let path = Path::from(entry.path);
            let range = (entry.base, entry.end);
            let job = Job { store, path: &path, source: source.as_mut(), partition: entry.partition, range };
            runtime.block_on(copy_segment(job, shape.as_ref().clone()))
        };
        match tokio::task::spawn_blocking(move || background::run(work)).await {
            Ok(result) => result?.map_err(|error| error.to_string()),
            Err(error) => Err(format!("the copy stopped: {error}")),
        }
    }
}
