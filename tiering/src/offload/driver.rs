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

use super::{Change, Effect, Event, Ids, NotCommitted, Offload, Policy, Segment, background};
use crate::manifest::{Entry, Leads};
use crate::parquet::{Job, SegmentSource, Written, copy_segment};
use crate::shape::Shape;
use crate::table::{Table, TableError};

/// Where the manifest is kept. All nodes see it; what a node does in it it does as the leader of partitions.
#[async_trait]
pub trait ManifestStore: Send + Sync {
    /// Takes partitions over from their leaders before: on return all that those have acted upon is seen here.
    ///
    /// # Errors
    /// The manifest cannot be written, or there are later leaders.
    async fn claim(&self, topic_id: Uuid, leads: &Leads) -> Result<(), String>;
    /// The entries of partitions, and the topic's shape.
    ///
    /// # Errors
    /// An entry cannot be read.
    fn load(&self, topic_id: Uuid, leads: &Leads) -> Result<(Vec<Entry>, Shape), String>;
    /// A shape with what the leaders of other partitions have found meanwhile.
    ///
    /// # Errors
    /// Theirs cannot be read.
    fn widened(&self, topic_id: Uuid, shape: &Shape) -> Result<Shape, String>;
    /// Makes changes durable, all or none.
    ///
    /// # Errors
    /// They may or may not be durable; or a partition has a later leader, and nothing more must be done to it.
    async fn persist(&self, topic_id: Uuid, leads: &Leads, changes: &[Change]) -> Result<(), String>;
}

/// The local log of a topic.
#[async_trait]
pub trait LocalLog: Send + Sync {
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

/// The offload of one topic at work, for the partitions that this node leads.
pub struct Driver {
    topic_id: Uuid,
    leads: Leads,
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
    /// The partitions that it is for.
    pub leads: Leads,
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
    /// Takes the partitions over and goes on from the manifest.
    ///
    /// # Errors
    /// The manifest cannot be read or written, or a partition has a later leader.
    pub async fn open(parts: Parts) -> Result<Driver, DriverError> {
        parts.manifest.claim(parts.topic_id, &parts.leads).await.map_err(DriverError)?;
        let (entries, shape) = parts.manifest.load(parts.topic_id, &parts.leads).map_err(DriverError)?;
        let offload = Offload::recover(&parts.topic, parts.topic_id, parts.policy, entries, shape, parts.ids);
        Ok(Driver {
            topic_id: parts.topic_id,
            leads: parts.leads,
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

    /// The partitions that it is for.
    pub fn leads(&self) -> &Leads {
        &self.leads
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
        for partition in self.leads.keys().copied() {
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
                self.manifest.persist(self.topic_id, &self.leads, &changes).await.map_err(DriverError)?;
                Some(Event::Persisted(then))
            }
            Effect::Copy { entry, shape } => {
                let (partition, id) = (entry.partition, entry.id);
                let result = match self.manifest.widened(self.topic_id, &shape) {
                    Ok(shape) => self.copy(*entry, shape).await,
                    Err(error) => Err(error),
                };
                Some(Event::Copied { partition, id, result })
            }
            Effect::Commit { adds, removes, shape, held, at } => {
                let result = self.table.commit(&adds, &removes, &shape, &held, at).await;
                let result = result.map_err(|error| match error {
                    TableError::Settled(settled) => {
                        tracing::warn!(why = settled.why, "columns were settled by another partition's leader first");
                        NotCommitted::Settled(settled)
                    }
                    error => NotCommitted::Failed(error.to_string()),
                });
                Some(Event::Committed { result })
            }
            Effect::DeleteObject { partition, id, path, unfinished } => {
                let result = if unfinished { self.delete_unfinished(path).await } else { self.delete(path).await };
                Some(Event::Deleted { partition, id, result })
            }
            Effect::Tiered { partition, end } => {
                self.tell_tiered(partition, end).await;
                None
            }
        })
    }

    async fn delete(&self, path: String) -> Result<(), String> {
        match self.store.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(format!("object store: {error}")),
        }
    }

    /// The table never lists the object of a copy that was not finished; if it does, the manifest is wrong and it stays.
    async fn delete_unfinished(&mut self, path: String) -> Result<(), String> {
        match self.store.head(&Path::from(path.as_str())).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(format!("object store: {error}")),
            Ok(_) => {}
        }
        if self.offload.has_table() {
            let contents = self.table.contents().await.map_err(|error| error.to_string())?;
            if contents.files.iter().any(|file| file.path == path) {
                return Err(format!("object {path} is in the table, the manifest says that it is unfinished"));
            }
        }
        self.delete(path).await
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
    async fn copy(&self, entry: Entry, shape: Shape) -> Result<(Written, Shape), String> {
        let permit = self.copies.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let (store, source) = (self.store.clone(), self.log.source(entry.partition));
        let (runtime, hurry) = (Handle::current(), self.hurry);
        let work = move || {
            let _permit = permit;
            let mut source = if hurry { source } else { Box::new(background::Unhurried::new(source)) };
            let path = Path::from(entry.path);
            let range = (entry.base, entry.end);
            let job = Job { store, path: &path, source: source.as_mut(), partition: entry.partition, range };
            runtime.block_on(copy_segment(job, shape))
        };
        match tokio::task::spawn_blocking(move || background::run(work)).await {
            Ok(result) => result?.map_err(|error| error.to_string()),
            Err(error) => Err(format!("the copy stopped: {error}")),
        }
    }
}
