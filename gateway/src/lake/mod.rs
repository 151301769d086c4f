//! The lake of this node: drives the offload of closed segments and serves reads of the cold tier.
//!
//! One task a topic polls the closed segments of the partitions that this node leads and does what the offload machine of
//! `forebay-tiering` asks for; copies go one at a time in the whole node. The manifest is the internal topic `_lake_manifest`,
//! which every node sees, so that each reads what any has written.

mod between;
mod cold;
mod flush;
mod local;
mod manifest;
mod retire;
mod status;
mod told;
mod verify;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use forebay_cluster::{Log, Topic};
use forebay_log::topic::LakeFormat;
use forebay_log::{Millis, Offset, ReadError};
use forebay_tiering::manifest::{Entry, TopicEntry};
use forebay_tiering::parquet::ColdReader;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::leadership;
use crate::metrics::Metrics;
use cold::ColdReads;
use manifest::Manifest;
pub use status::{TopicStatus, VerifyReport};
use worker::{Command, Worker};

/// The internal topic of the manifest.
pub const MANIFEST_TOPIC: &str = "_lake_manifest";
/// Copies at the same time in one node: offload must not take the machine from the doors.
const COPIES: usize = 1;
/// How long a start waits for the manifest to be readable; then it is read when it can be.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether a topic is to be removed from the lake, or its name is free again.
const LOOK: Duration = Duration::from_secs(1);
/// Commands that may wait in front of a topic's worker.
const COMMANDS: usize = 16;

/// What all parts of the lake share.
struct Shared {
    log: Log,
    store: Arc<dyn ObjectStore>,
    url: String,
    reader: Arc<ColdReader>,
    cold: ColdReads,
    manifest: Manifest,
    copies: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

/// A topic's worker, from outside.
struct Running {
    name: String,
    commands: mpsc::Sender<Command>,
    progress: Arc<Mutex<worker::Progress>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The lake service of a node.
pub struct Lake {
    shared: Arc<Shared>,
    workers: Mutex<BTreeMap<Uuid, Running>>,
    /// Names of deleted topics whose table is being removed: new topics of these names wait.
    retiring: Mutex<BTreeMap<Uuid, String>>,
}

/// Whether a topic's segments go to the lake.
fn is_offloaded(topic: &Topic) -> bool {
    let config = topic.config();
    config.remote_storage_enable && !config.compact && (!topic.is_internal() || config.lake_format != LakeFormat::None)
}

impl Lake {
    /// Opens the object store and the manifest and starts the offload. An unreachable store is no error: it starts
    /// degraded and retries. Nor is a damaged manifest: then the lake is [`Lake::off`]. One that lies on other nodes and cannot be read
    /// for a while is read when it can be.
    ///
    /// # Errors
    /// The object store's settings are wrong, or the manifest's topic cannot be made.
    pub async fn start(
        log: Log,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Lake>> {
        let url = config.object_store.url.trim_end_matches('/').to_owned();
        let store = forebay_tiering::store::open(&url, &config.object_store.options)?;
        Lake::start_on(store, url, log, metrics, shutdown).await
    }

    /// As [`Lake::start`], on a store that is open.
    pub(crate) async fn start_on(
        store: Arc<dyn ObjectStore>,
        url: String,
        log: Log,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Lake>> {
        let manifest = Manifest::new(metrics.clone());
        metrics.lake.set_off(true);
        let reader = Arc::new(ColdReader::new(store.clone()));
        let cold = ColdReads::new(reader.clone(), metrics.clone());
        let copies = Arc::new(Semaphore::new(COPIES));
        let shared = Arc::new(Shared { log, store, url, reader, cold, manifest, copies, metrics, shutdown });
        let lake = Arc::new(Lake { shared, workers: Mutex::default(), retiring: Mutex::default() });
        let mut begun = tokio::spawn(lake.clone().begin());
        match tokio::time::timeout(START_PATIENCE, &mut begun).await {
            Ok(begun) => begun??,
            Err(_) => tracing::error!("{}; until then nothing is offloaded", lake.off().unwrap_or_default()),
        }
        Ok(lake)
    }

    /// Reads the manifest, and goes on from there.
    async fn begin(self: Arc<Lake>) -> anyhow::Result<()> {
        let Shared { log, manifest, metrics, shutdown, .. } = &*self.shared;
        let Some(read) = shutdown.run_until_cancelled(manifest.read_all(log)).await else { return Ok(()) };
        if let Err(error) = read {
            tracing::error!("the lake stays off: {error:#}");
            return Err(error);
        }
        if let Some(why) = self.off() {
            tracing::error!("{why}; until then nothing is offloaded and no offsets are read from the lake");
            // What was offloaded before may still be on the local disk: it stays there.
            for partition in log.topics().values().flat_map(|topic| &topic.partitions).filter(|held| held.is_here()) {
                if let Err(error) = partition.hold_local(true).await {
                    tracing::warn!(topic = partition.topic(), %error, "local retention goes on while the lake is off");
                }
            }
            return Ok(());
        }
        metrics.lake.set_off(false);
        self.remove_deleted();
        self.follow_topics();
        tokio::spawn(supervise(self.clone()));
        Ok(())
    }

    /// Why nothing is offloaded or read from the lake, if so: its manifest is damaged, or could not be read yet.
    pub fn off(&self) -> Option<&str> {
        self.shared.manifest.broken()
    }

    fn check_on(&self) -> Result<(), ReadError> {
        self.off().map_or(Ok(()), |why| Err(ReadError::Offline(why.to_owned())))
    }

    /// A worker for each topic, none for topics that are gone.
    fn follow_topics(self: &Arc<Self>) {
        let topics = self.shared.log.topics();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |id: &Uuid, running: &Running| topics.get(&running.name).is_some_and(|topic| topic.id == *id);
        let gone: Vec<Uuid> = workers.iter().filter(|(id, running)| !there(id, running)).map(|(id, _)| *id).collect();
        for topic_id in gone {
            if let Some(Running { name, stop, task, .. }) = workers.remove(&topic_id) {
                stop.cancel();
                self.retire(TopicEntry { topic_id, name, removal: None }, Some(task));
            }
        }
        let retiring = self.retiring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.shared.manifest.topics();
        for topic in topics.values() {
            let is_other = |entry: &TopicEntry| entry.name == topic.name && entry.topic_id != topic.id;
            if workers.contains_key(&topic.id)
                || retiring.values().any(|name| *name == topic.name)
                || known.iter().any(is_other)
                || (topic.is_internal() && !is_offloaded(topic))
            {
                continue;
            }
            let (commands, queue) = mpsc::channel(COMMANDS);
            let (progress, stop) = (Arc::default(), self.shared.shutdown.child_token());
            let worker = Worker::new(self.shared.clone(), topic.clone(), Arc::clone(&progress), stop.clone());
            let task = tokio::spawn(worker.run(queue));
            workers.insert(topic.id, Running { name: topic.name.clone(), commands, progress, stop, task });
        }
    }

    /// Goes on with the removal of topics that were deleted, where this node has to.
    fn remove_deleted(self: &Arc<Self>) {
        if self.shared.manifest.is_keeper(&self.shared.log) {
            for topic in retire::unfinished(&self.shared) {
                let known = |running: &BTreeMap<Uuid, Running>| running.contains_key(&topic.topic_id);
                if !known(&self.workers.lock().unwrap_or_else(PoisonError::into_inner)) {
                    self.retire(topic, None);
                }
            }
        }
    }

    /// Says of deleted topics that this node does nothing more for them, once that is so.
    fn rest(&self) {
        for topic in retire::unfinished(&self.shared) {
            let works = self.workers.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&topic.topic_id)
                || self.retiring.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&topic.topic_id);
            let (shared, here) = (self.shared.clone(), self.shared.log.node_id());
            if !works && !shared.manifest.rests(topic.topic_id, here) {
                tokio::spawn(async move {
                    if let Err(error) = shared.manifest.rest(topic.topic_id, here).await {
                        tracing::debug!(topic = topic.name, error, "not said that nothing more is done for it");
                    }
                });
            }
        }
    }

    /// Removes the table and objects of a deleted topic in the background.
    fn retire(self: &Arc<Self>, topic: TopicEntry, worker: Option<JoinHandle<()>>) {
        let id = topic.topic_id;
        let before = self.retiring.lock().unwrap_or_else(PoisonError::into_inner).insert(id, topic.name.clone());
        if before.is_some() {
            return;
        }
        let lake = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = lake.shared.shutdown.cancelled() => return,
                () = retire::retire(&lake.shared, topic, worker) => {}
            }
            lake.retiring.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            lake.rest();
            lake.follow_topics();
        });
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, ReadError> {
        self.shared.log.topic(name).ok_or_else(|| ReadError::Offline(format!("topic {name} does not exist")))
    }

    /// Record batches from the one that holds the first record at or after `from`, with the offsets, timestamps, keys, headers
    /// and values as appended. Empty if the lake reaches beyond `from` but has no record there: reading goes on in the local log.
    ///
    /// # Errors
    /// The offset is not in the lake, its object cannot be read now, or the lake is off.
    pub async fn read(&self, topic: &str, partition: u32, from: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        self.check_on()?;
        let topic = self.topic(topic)?;
        let entries = self.shared.manifest.readable(topic.id, partition);
        let first = entries.partition_point(|entry| entry.end <= from);
        for entry in &entries[first..] {
            // A range may end in a gap (control batches, damage): then the next has what follows.
            let read = self.shared.cold.run(entry, move |reader: Arc<ColdReader>, path: Path| async move {
                reader.read(&path, from, max_bytes).await
            });
            let batches = read.await?;
            if !batches.is_empty() {
                self.shared.metrics.lake.cold_read(batches.len());
                return Ok(batches);
            }
        }
        if first < entries.len() {
            return Ok(Bytes::new());
        }
        let start = entries.first().map_or(Offset::ZERO, |entry| entry.base);
        let end = entries.last().map_or(Offset::ZERO, |entry| entry.end);
        Err(ReadError::OutOfRange { asked: from, start, end })
    }

    /// The first record in the lake with a timestamp at or after `at`, not below the log start.
    ///
    /// # Errors
    /// An object cannot be read now, or the lake is off.
    pub async fn offset_for_time(
        &self,
        topic: &str,
        partition: u32,
        at: Millis,
    ) -> Result<Option<(Offset, Millis)>, ReadError> {
        self.check_on()?;
        let topic = self.topic(topic)?;
        let log_start = topic.partitions.get(partition as usize).map_or(Offset::ZERO, |p| p.watermarks().log_start);
        let reaches = |entry: &&Arc<Entry>| entry.facts.as_ref().is_none_or(|facts| facts.max_timestamp >= at);
        for entry in self.shared.manifest.readable(topic.id, partition).iter().filter(reaches) {
            if entry.end <= log_start {
                continue;
            }
            let found = self.shared.cold.run(entry, move |reader: Arc<ColdReader>, path: Path| async move {
                reader.offset_for_time(&path, at).await
            });
            if let Some(found) = found.await?.filter(|(offset, _)| *offset >= log_start) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The largest timestamp of a partition's records in the lake, objects wholly below the log start left out.
    pub fn largest_timestamp(&self, topic: &str, partition: u32) -> Option<Millis> {
        let topic = self.shared.log.topic(topic)?;
        let log_start = topic.partitions.get(partition as usize)?.watermarks().log_start;
        let entries = self.shared.manifest.readable(topic.id, partition);
        let kept = entries.iter().filter(|entry| entry.end > log_start);
        kept.filter_map(|entry| entry.facts.as_ref().filter(|facts| facts.rows > 0))
            .map(|facts| facts.max_timestamp)
            .max()
    }

    pub fn status(&self) -> Vec<TopicStatus> {
        let topics = self.shared.log.topics();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let offloaded = topics.values().filter(|topic| is_offloaded(topic));
        offloaded
            .map(|topic| {
                let progress = workers.get(&topic.id).map(|running| running.progress.clone());
                let progress = progress.map(|p| p.lock().unwrap_or_else(PoisonError::into_inner).clone());
                let mut progress = progress.unwrap_or_default();
                progress.error = self.off().map(str::to_owned).or(progress.error);
                let totals = self.shared.manifest.totals(topic.id, status::settled(topic));
                let leads = leadership::of_topic(&self.shared.log, topic).into_keys().collect();
                status::of(topic, &self.shared.url, &totals, progress, leads)
            })
            .collect()
    }

    /// Reads manifest, objects, table log and local log, and compares.
    ///
    /// # Errors
    /// The topic is not offloaded. What does not agree is in the report.
    pub async fn verify(self: &Arc<Self>, topic: &str) -> anyhow::Result<VerifyReport> {
        self.command(topic, Command::Verify).await
    }

    fn offloaded(&self, topic: &str) -> anyhow::Result<Arc<Topic>> {
        let found = self.shared.log.topic(topic).ok_or_else(|| anyhow!("topic {topic} does not exist"))?;
        if !is_offloaded(&found) {
            return Err(anyhow!("topic {topic} is not offloaded: set remote.storage.enable=true"));
        }
        self.off().map_or(Ok(found), |why| Err(anyhow!("{why}")))
    }

    async fn command<T>(
        self: &Arc<Self>,
        topic: &str,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> anyhow::Result<T> {
        let found = self.offloaded(topic)?;
        self.follow_topics();
        let commands = {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.get(&found.id).map(|running| running.commands.clone())
        };
        let commands =
            commands.ok_or_else(|| anyhow!("the table of the deleted topic {topic} is still being removed"))?;
        let (done, result) = oneshot::channel();
        commands.send(command(done)).await.map_err(|_| anyhow!("the lake is shutting down"))?;
        result.await.map_err(|_| anyhow!("the lake is shutting down"))
    }
}

/// Starts and stops workers as topics come and go.
async fn supervise(lake: Arc<Lake>) {
    let mut changed = lake.shared.log.topics_changed();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = lake.shared.shutdown.cancelled() => return,
            _ = looks.tick() => {
                lake.remove_deleted();
                lake.follow_topics();
                lake.rest();
            }
            result = changed.changed() => {
                if result.is_err() {
                    return;
                }
                lake.follow_topics();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
