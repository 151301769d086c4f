//! The log of one node: its topics and partitions, and their life.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use forebay_log::limits::{MAX_PARTITIONS_PER_TOPIC, MAX_PENDING_APPEND_BYTES};
use forebay_log::partition::Event;
use forebay_log::topic::check_topic_name;
use forebay_log::{AppendError, TopicConfig};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::dirs;
use crate::engine::{Engine, PartitionKey};
use crate::files::{Files, is_disk_full};
use crate::keeper::{Care, Keeper};
use crate::layout::{LOG_DIR, partition_dir};
use crate::meta::{Metadata, TopicMeta};
use crate::open::{OpenPartition, identify};
use crate::partition::Partition;
use crate::points::{self, Points};
use crate::pool::SyncPool;
use crate::shard::{Mailboxes, Request, Shard, shard_of};
use crate::shared::Shared;
use crate::space::Space;
use crate::stats::{LogStats, Stats};
use crate::topic::Topic;
use crate::unopened::{Unopened, UnopenedList};

/// How the node's log runs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Threads that own partitions.
    pub shards: usize,
    /// fdatasync before an append completes; `false` leaves it to the page cache.
    pub fsync: bool,
}

/// Why the log could not be opened, or a topic not be made.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{path}: {what}")]
    Format { path: String, what: String },
    #[error("the data directory is in use by another process")]
    Locked,
    #[error("topic {0} exists")]
    TopicExists(String),
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    #[error("{0}")]
    InvalidTopic(String),
    #[error("disk full")]
    DiskFull,
    #[error("shutting down")]
    Closed,
}

impl LogError {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> LogError {
        let path = path.as_ref().display().to_string();
        move |source| if is_disk_full(&source) { LogError::DiskFull } else { LogError::Io { path, source } }
    }
}

/// All topics by name.
pub(crate) type Topics = BTreeMap<String, Arc<Topic>>;

/// The log of one node. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    files: Arc<dyn Files>,
    options: LogOptions,
    cluster_id: String,
    space: Arc<Space>,
    admission: Arc<Semaphore>,
    mailboxes: Mailboxes,
    topics: Arc<ArcSwap<Topics>>,
    unopened: Arc<UnopenedList>,
    stats: Arc<Stats>,
    changed: watch::Sender<u64>,
    next_key: AtomicU64,
    /// The one that changes topics holds this; blocking threads only.
    metadata: Mutex<Metadata>,
    /// Taken by the shutdown.
    running: Mutex<Option<Running>>,
}

struct Running {
    shards: Vec<Shard>,
    keeper: Keeper,
}

impl Log {
    /// Opens `files` (the data directory), recovers every partition and starts the shards. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be read or its metadata is damaged. A damaged partition is no error: it is reported and
    /// goes on with what is whole, or is offline.
    pub fn open(files: Arc<dyn Files>, options: LogOptions) -> Result<Log, LogError> {
        files.create_dir_all(Path::new(LOG_DIR)).map_err(LogError::io(LOG_DIR))?;
        let space = Arc::new(Space::open(Arc::clone(&files)));
        let mut metadata = identify(files.as_ref(), &space)?;
        if let Err(error) = finish_deletions(files.as_ref(), &space, &mut metadata) {
            tracing::warn!(%error, "files of deleted topics are not all removed: tried again later");
        }
        let known = points::load(files.as_ref()).map_err(LogError::io(LOG_DIR))?;
        let stats = Arc::new(Stats::default());
        let started = start_shards(&space, &stats, &options).map_err(LogError::io("shards"))?;
        let mailboxes: Mailboxes = started.iter().map(|shard| shard.mailbox.clone()).collect();
        let topics = Arc::new(ArcSwap::default());
        let unopened = Arc::new(UnopenedList::default());
        let care = Care { files: Arc::clone(&files), space: Arc::clone(&space), topics: Arc::clone(&topics) };
        let keeper = Keeper::start(care, Arc::clone(&unopened), known.clone(), options.fsync);
        let keeper = keeper.map_err(LogError::io("keeper"))?;
        let (changed, _) = watch::channel(0);
        let inner = Inner {
            cluster_id: metadata.cluster_id.clone(),
            files,
            options,
            space,
            admission: Arc::new(Semaphore::new(MAX_PENDING_APPEND_BYTES)),
            mailboxes,
            topics,
            unopened,
            stats,
            changed,
            next_key: AtomicU64::new(0),
            metadata: Mutex::new(metadata.clone()),
            running: Mutex::new(Some(Running { shards: started, keeper })),
        };
        let mut opened = Topics::new();
        for (name, meta) in metadata.topics.iter().filter(|(_, meta)| !meta.deleting) {
            opened.insert(name.clone(), inner.open_topic(name, meta, &known)?);
        }
        inner.topics.store(Arc::new(opened));
        Ok(Log { inner: Arc::new(inner) })
    }

    /// The identity of this cluster, made at the first start.
    pub fn cluster_id(&self) -> String {
        self.inner.cluster_id.clone()
    }

    /// Makes a topic; it is durable on return.
    ///
    /// # Errors
    /// A bad name or count, a topic of that name, a disk that fails.
    pub async fn create_topic(&self, name: &str, partitions: u32, config: TopicConfig) -> Result<Arc<Topic>, LogError> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.create_topic(name, partitions, config)).await
    }

    /// Deletes a topic; that is durable on return.
    ///
    /// # Errors
    /// No such topic, a disk that fails.
    pub async fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.delete_topic(&name)).await
    }

    /// Gives a topic new configs; durable on return.
    ///
    /// # Errors
    /// No such topic, a disk that fails.
    pub async fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.alter_topic(&name, config)).await
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.topics.load().get(name).cloned()
    }

    /// All topics by name, a snapshot.
    pub fn topics(&self) -> Arc<BTreeMap<String, Arc<Topic>>> {
        self.inner.topics.load_full()
    }

    /// Changes whenever a topic is made, altered or deleted.
    pub fn topics_changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Whether appends are refused now because the disk is full.
    pub fn disk_full(&self) -> bool {
        self.inner.space.is_full()
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.inner.stats.read()
    }

    /// Flushes everything and stops the shards. Blocking. Later appends are refused with [`AppendError::Closed`].
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    async fn blocking<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || change(&inner)).await.unwrap_or(Err(LogError::Closed))
    }
}

impl Inner {
    fn open_topic(&self, name: &str, meta: &TopicMeta, known: &Points) -> Result<Arc<Topic>, LogError> {
        let config = Arc::new(ArcSwap::from_pointee(meta.config.clone()));
        let mut partitions = Vec::new();
        for index in 0..meta.partitions {
            let key: PartitionKey = self.next_key.fetch_add(1, Ordering::Relaxed);
            let mailbox = shard_of(key, &self.mailboxes).ok_or(LogError::Closed)?;
            let point = known.get(&(meta.id, index)).copied().unwrap_or_default();
            let shared = Arc::new(Shared::new(name, index, point, Arc::clone(&self.stats)));
            let open = OpenPartition {
                files: Arc::clone(&self.files),
                space: Arc::clone(&self.space),
                shared: Arc::clone(&shared),
                config: Arc::clone(&config),
                point,
            };
            self.unopened.open(Unopened { key, mailbox: mailbox.clone(), open })?;
            partitions.push(Arc::new(Partition {
                key,
                shared,
                mailbox: mailbox.clone(),
                admission: Arc::clone(&self.admission),
                space: Arc::clone(&self.space),
                config: Arc::clone(&config),
            }));
        }
        Ok(Arc::new(Topic { name: name.to_owned(), id: meta.id, partitions, config }))
    }

    fn create_topic(&self, name: String, partitions: u32, config: TopicConfig) -> Result<Arc<Topic>, LogError> {
        check_topic_name(&name).map_err(|why| LogError::InvalidTopic(format!("{name:?}: {why}")))?;
        if !(1..=MAX_PARTITIONS_PER_TOPIC).contains(&partitions) {
            let why = format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions, not {partitions}");
            return Err(LogError::InvalidTopic(why));
        }
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_running()?;
        if metadata.topics.get(&name).is_some_and(|topic| !topic.deleting) {
            return Err(LogError::TopicExists(name));
        }
        finish_deletions(self.files.as_ref(), &self.space, &mut metadata)?;
        let meta = TopicMeta { id: Uuid::new_v4(), partitions, config, deleting: false };
        let make = || dirs::create(self.files.as_ref(), &name, meta.id, partitions);
        self.space.reserved(make).map_err(LogError::io(partition_dir(&name, 0)))?;
        let topic = self.open_topic(&name, &meta, &Points::new())?;
        self.save(&mut metadata, |next| {
            next.topics.insert(name.clone(), meta);
        })?;
        self.publish(|topics| {
            topics.insert(name, Arc::clone(&topic));
        });
        Ok(topic)
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
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
        for partition in &topic.partitions {
            partition.shared.removed.store(true, Ordering::Release);
            let (done, gone) = tokio::sync::oneshot::channel();
            let asked = partition.mailbox.send_blocking(Request::Remove(partition.key, done));
            if asked.is_ok() {
                drop(gone.blocking_recv());
            }
        }
        if let Err(error) = finish_deletions(self.files.as_ref(), &self.space, &mut metadata) {
            tracing::warn!(topic = name, %error, "the deleted topic's files are not all removed: tried again later");
        }
        Ok(())
    }

    fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
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
    fn save(&self, metadata: &mut Metadata, change: impl FnOnce(&mut Metadata)) -> Result<(), LogError> {
        let mut next = metadata.clone();
        change(&mut next);
        self.space.reserved(|| next.save(self.files.as_ref())).map_err(LogError::io("metadata"))?;
        *metadata = next;
        Ok(())
    }

    fn publish(&self, change: impl FnOnce(&mut Topics)) {
        let mut topics = Topics::clone(&self.topics.load());
        change(&mut topics);
        self.topics.store(Arc::new(topics));
        self.changed.send_modify(|version| *version += 1);
    }

    fn check_running(&self) -> Result<(), LogError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() { Ok(()) } else { Err(LogError::Closed) }
    }

    fn shutdown(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { shards, keeper }) = running else { return };
        self.admission.close();
        let mut clean = true;
        for shard in &shards {
            drop(shard.mailbox.send_blocking(Request::Stop));
        }
        for Shard { thread, .. } in shards {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    clean = false;
                    tracing::error!(%error, "the log could not be flushed: the next start checks it");
                }
                Err(_) => {
                    clean = false;
                    tracing::error!("a shard of the log panicked: the next start checks its partitions");
                }
            }
        }
        // After an error nothing may say that all is on the disk.
        keeper.stop(clean, self.options.fsync);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn start_shards(space: &Arc<Space>, stats: &Arc<Stats>, options: &LogOptions) -> io::Result<Vec<Shard>> {
    let pool = SyncPool::start()?;
    let engine = || Engine::new(pool.clone(), Arc::clone(space), Arc::clone(stats), options.fsync);
    (0..options.shards.max(1)).map(|number| Shard::start(number, engine())).collect()
}

/// Removes what is left of deleted topics, then their entries.
fn finish_deletions(files: &dyn Files, space: &Space, metadata: &mut Metadata) -> Result<(), LogError> {
    let deleting: Vec<(String, TopicMeta)> =
        metadata.topics.iter().filter(|(_, t)| t.deleting).map(|(name, t)| (name.clone(), t.clone())).collect();
    if deleting.is_empty() {
        return Ok(());
    }
    for (name, topic) in &deleting {
        dirs::delete(files, name, topic.id, topic.partitions).map_err(LogError::io(partition_dir(name, 0)))?;
    }
    let mut next = metadata.clone();
    next.topics.retain(|_, topic| !topic.deleting);
    space.reserved(|| next.save(files)).map_err(LogError::io("metadata"))?;
    *metadata = next;
    Ok(())
}
