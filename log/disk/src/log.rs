//! The log of one node: its topics and partitions, and their life.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_log::TopicConfig;
use forebay_log::cluster::Refusal;
use forebay_log::limits::MAX_PENDING_APPEND_BYTES;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::cleaner::Cleaner;
use crate::engine::Engine;
use crate::files::{Files, is_disk_full};
use crate::keeper::{Care, Keeper};
use crate::layout::LOG_DIR;
use crate::lifecycle::{Prepared, finish_deletions};
use crate::meta::Metadata;
use crate::open::identify;
use crate::points::{self, Points};
use crate::pool::SyncPool;
use crate::replica::IsrProposal;
use crate::shard::{Mailboxes, Request, Shard};
use crate::shared::Outbox;
use crate::space::Space;
use crate::stats::{LogStats, Stats};
use crate::topic::{NewTopic, Topic};
use crate::unopened::{Clock, UnopenedList};

/// How the node's log runs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Threads that own partitions.
    pub shards: usize,
    /// fdatasync before an append completes; `false` leaves it to the page cache.
    pub fsync: bool,
    /// Every partition is led here, from the start on; `false` leaves that to a controller ([`crate::Partition::lead`]).
    pub alone: bool,
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
    /// More replicas are asked for than there are nodes to take them.
    #[error("{0}")]
    TooFewNodes(String),
    /// Whoever decides on topics refuses.
    #[error(transparent)]
    NotPossible(#[from] Refusal),
    /// Whoever decides on it has not answered; it may be done all the same.
    #[error("{0}")]
    Unavailable(String),
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

/// Called when topics have changed.
pub(crate) type Listener = Box<dyn Fn() + Send + Sync>;

/// The log of one node. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) options: LogOptions,
    pub(crate) cluster_id: String,
    pub(crate) space: Arc<Space>,
    pub(crate) admission: Arc<Semaphore>,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) topics: Arc<ArcSwap<Topics>>,
    pub(crate) unopened: Arc<UnopenedList>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) listeners: Mutex<Vec<Listener>>,
    pub(crate) outbox: Outbox,
    proposals: Mutex<Option<mpsc::UnboundedReceiver<IsrProposal>>>,
    pub(crate) next_key: AtomicU64,
    /// The one that changes topics holds this; blocking threads only.
    pub(crate) metadata: Mutex<Metadata>,
    /// The recovery points as they are on the disk; held while they are written.
    pub(crate) points: Arc<Mutex<Points>>,
    /// Taken by the shutdown.
    pub(crate) running: Mutex<Option<Running>>,
    /// A simulation steps the shards.
    pub(crate) stepped: bool,
}

pub(crate) struct Running {
    shards: Vec<Shard>,
    keeper: Keeper,
    cleaner: Cleaner,
}

impl Log {
    /// Opens `files` (the data directory), recovers every partition and starts the shards. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be read or its metadata is damaged. A damaged partition is no error: it is reported and
    /// goes on with what is whole, or is offline.
    pub fn open(files: Arc<dyn Files>, options: LogOptions) -> Result<Log, LogError> {
        Log::open_as(1, files, options)
    }

    /// As [`Log::open`], for the node of this number: its directory names it from the first start on.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_as(node_id: u32, files: Arc<dyn Files>, options: LogOptions) -> Result<Log, LogError> {
        let space = Arc::new(Space::open(Arc::clone(&files)));
        let stats = Arc::new(Stats::default());
        let started = start_shards(&space, &stats, &options).map_err(LogError::io("shards"))?;
        let mailboxes: Mailboxes = started.iter().map(|shard| shard.mailbox.clone()).collect();
        let opened = Inner::open(node_id, files, options, space, stats, mailboxes, Clock::System);
        let inner = match opened {
            Ok(inner) => inner,
            Err(error) => {
                // The directory is free for another try when this is told.
                for Shard { mailbox, thread } in started {
                    drop(mailbox);
                    let _ = thread.join();
                }
                return Err(error);
            }
        };
        let (files, topics) = (Arc::clone(&inner.files), Arc::clone(&inner.topics));
        let care = Care { files: Arc::clone(&files), space: Arc::clone(&inner.space), topics: Arc::clone(&topics) };
        // Only now: while topics are missing, it would write the recovery points without theirs, and after a crash in a long
        // recovery damage below a lost point would be taken for a torn tail.
        let points = Arc::clone(&inner.points);
        let keeper = Keeper::start(care, Arc::clone(&inner.unopened), points, inner.options.fsync);
        let keeper = keeper.map_err(LogError::io("keeper"))?;
        let cleaner = Cleaner::start(files, topics).map_err(LogError::io("cleaner"))?;
        *inner.running.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Running { shards: started, keeper, cleaner });
        Ok(Log { inner: Arc::new(inner) })
    }

    /// A log whose shards are stepped by a simulation.
    pub(crate) fn stepped(inner: Inner) -> Log {
        Log { inner: Arc::new(inner) }
    }

    /// Has these partitions of a topic of the cluster on this node, besides those that are here already; they are durable on return,
    /// and follow nobody yet. Blocking.
    ///
    /// # Errors
    /// A bad name or index, another topic of this name, a disk that fails.
    pub fn host(
        &self,
        name: &str,
        id: uuid::Uuid,
        config: &TopicConfig,
        indexes: &[u32],
    ) -> Result<Arc<Topic>, LogError> {
        self.inner.host(name, id, config, indexes)
    }

    /// Deletes what this node has of these partitions. Blocking.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn unhost(&self, name: &str, id: uuid::Uuid, indexes: &[u32]) -> Result<(), LogError> {
        self.inner.unhost(name, id, indexes)
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
        let made = self.create_topics(vec![NewTopic { name: name.to_owned(), partitions, config }]).await?;
        made.into_iter().next().ok_or(LogError::Closed)
    }

    /// Makes topics, all or none, by one change of the metadata; they are durable on return, and come back in the order of
    /// their names.
    ///
    /// # Errors
    /// As `create_topic`.
    pub async fn create_topics(&self, wanted: Vec<NewTopic>) -> Result<Vec<Arc<Topic>>, LogError> {
        self.blocking(move |inner| inner.create_topics(wanted)).await
    }

    /// Gives a topic more partitions, `count` in all; they are durable on return.
    ///
    /// # Errors
    /// No such topic, a count that is not more than it has or too large, a disk that fails.
    pub async fn add_partitions(&self, name: &str, count: u32) -> Result<(), LogError> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.add_partitions(&name, count)).await
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

    /// Has `listener` called whenever a topic was made, altered or deleted, before the one who did that goes on. It must not
    /// change topics itself.
    pub fn on_topics_changed(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.inner.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// The changes of in-sync replicas that the controller is to be asked for; for the first who asks.
    pub fn isr_proposals(&self) -> Option<mpsc::UnboundedReceiver<IsrProposal>> {
        self.inner.proposals.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether appends are refused now because the disk is full.
    pub fn disk_full(&self) -> bool {
        self.inner.space.is_full()
    }

    /// Runs a write of metadata of the node that lies beside the log, which repeats as a whole: after an error it is tried again,
    /// on a full disk with the room that is kept for metadata. Blocking.
    ///
    /// # Errors
    /// Those of `write`, when that does not help.
    pub fn reserved<T>(&self, write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.inner.space.reserved(write)
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.inner.stats.read()
    }

    /// How long the disk has not finished a sync that goes on now: a disk that hangs gives no error.
    pub fn sync_stalled(&self) -> Duration {
        self.inner.stats.longest_sync()
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
    /// Reads what is in the directory and opens every partition.
    pub(crate) fn open(
        node_id: u32,
        files: Arc<dyn Files>,
        options: LogOptions,
        space: Arc<Space>,
        stats: Arc<Stats>,
        mailboxes: Mailboxes,
        clock: Clock,
    ) -> Result<Inner, LogError> {
        files.create_dir_all(Path::new(LOG_DIR)).map_err(LogError::io(LOG_DIR))?;
        let mut metadata = identify(node_id, files.as_ref(), &space)?;
        if let Err(error) = finish_deletions(files.as_ref(), &space, &mut metadata) {
            tracing::warn!(%error, "files of deleted topics are not all removed: tried again later");
        }
        let known = points::load(files.as_ref());
        let points = Arc::new(Mutex::new(known.clone()));
        let stepped = matches!(clock, Clock::Stepped(_));
        let (changed, _) = watch::channel(0);
        let (outbox, proposals) = mpsc::unbounded_channel();
        let inner = Inner {
            cluster_id: metadata.cluster_id.clone(),
            files,
            options,
            space,
            admission: Arc::new(Semaphore::new(MAX_PENDING_APPEND_BYTES)),
            mailboxes,
            topics: Arc::default(),
            unopened: Arc::new(UnopenedList::new(clock)),
            stats,
            changed,
            listeners: Mutex::default(),
            outbox,
            proposals: Mutex::new(Some(proposals)),
            next_key: AtomicU64::new(0),
            metadata: Mutex::new(metadata.clone()),
            points,
            running: Mutex::default(),
            stepped,
        };
        let (mut topics, mut waiting) = (Topics::new(), Vec::new());
        for (name, meta) in metadata.topics.iter().filter(|(_, meta)| !meta.deleting) {
            let Prepared { topic, unopened } = inner.prepare(name, meta, &known)?;
            topics.insert(name.clone(), topic);
            waiting.extend(unopened);
        }
        inner.unopened.open_all(waiting)?;
        inner.topics.store(Arc::new(topics));
        Ok(inner)
    }

    fn shutdown(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { shards, keeper, cleaner }) = running else { return };
        cleaner.stop();
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
        self.files.close();
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
