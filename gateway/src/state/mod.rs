//! Key-value state kept as records of an internal topic: sessions, retained messages, lake manifest, alert state.
//!
//! One mechanism for all that the program must remember: a `put` is durable by the same commit as any reading. Each node holds
//! a view of the topic in memory: the records in the order of the log, its own and those of other nodes, the last one of a key
//! wins. The log's cleaner keeps the topic short.

mod claimed;
mod follower;
mod lead;
mod mending;
mod page;
#[cfg(test)]
mod tests;
mod view;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_cluster::{AppendData, Claim, Log, LogError, Partition, Term, Topic};
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Millis, TopicConfig};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use follower::{Follower, MAX_IN_FLIGHT, Own};
use page::{Damage, From};
use view::View;

use crate::log_limit::FaultLog;

/// How long `sync` waits.
const SYNC_PATIENCE: Duration = Duration::from_secs(15);
/// Pause before a topic that cannot be read is tried again at a start.
const RETRY: Duration = Duration::from_millis(100);
/// The key of records that only say that everything before them was applied. No user has keys that begin with a zero byte.
const SYNC_KEY: &[u8] = b"\0sync";

/// A change of one key; `None` removes it.
pub(crate) type Change = (Bytes, Option<Bytes>);
type Observer = Box<dyn Fn(&[Change]) + Send + Sync>;

/// A map of keys to values whose every change is a record, the same on every node.
pub struct StateTopic {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    own: mpsc::Sender<Own>,
    damaged: Option<String>,
    mending: Arc<Mending>,
    /// No other node may write the topic.
    alone: bool,
    /// Writes as the partition's leader of this term, and otherwise to whoever leads it.
    term: Option<Term>,
}

/// What the handle and the follower share.
#[derive(Default)]
struct Shared {
    view: Mutex<View>,
    observers: RwLock<Vec<Observer>>,
}

/// Puts wait while a damaged topic is put in order.
#[derive(Default)]
struct Mending {
    under_way: AtomicBool,
    over: Notify,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observed(&self, changes: &[Change]) {
        for observer in self.observers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            observer(changes);
        }
    }
}

impl StateTopic {
    /// Opens (or makes) the internal topic `name`, with one partition, and loads it. Opened once in a node. Damage in its log is
    /// no error: see [`StateTopic::damaged`]. Where this node has no replica of it, this takes until another one can be asked.
    ///
    /// # Errors
    /// What kept the topic from being made or read.
    pub async fn open(log: &Log, name: &str) -> Result<Arc<StateTopic>, LogError> {
        let topic = match log.topic(name) {
            Some(topic) => topic,
            None => match log.create_topic(name, 1, TopicConfig::internal()).await {
                // By another node, at the same time.
                Err(LogError::TopicExists(_)) => {
                    log.topic(name).ok_or_else(|| LogError::UnknownTopic(name.to_owned()))?
                }
                made => made?,
            },
        };
        let config = topic.config();
        if config.self_compacting {
            // Earlier releases rewrote these topics by themselves.
            log.alter_topic(name, TopicConfig { self_compacting: false, ..TopicConfig::clone(&config) }).await?;
        }
        let nodes = log.cluster().map_or(1, |cluster| cluster.metadata().borrow().image.nodes().len());
        let state = StateTopic::begin(first_partition(&topic)?, nodes <= 1, None).await?;
        if !state.alone
            && let Err(error) = state.sync().await
        {
            tracing::warn!(topic = name, %error, "the node's own state may be older than it is elsewhere for a while");
        }
        Ok(state)
    }

    /// Loads what there is, and begins to follow it.
    async fn begin(partition: Arc<Partition>, alone: bool, term: Option<Term>) -> Result<Arc<StateTopic>, LogError> {
        require_open(&partition)?;
        let mut damage = Damage::new(partition.topic());
        let view = load(&partition, &mut damage).await?;
        let (own, queue) = mpsc::channel(MAX_IN_FLIGHT);
        let shared = Arc::new(Shared { view: Mutex::new(view), ..Shared::default() });
        let damaged = damage.told();
        tokio::spawn(Follower::new(Arc::clone(&partition), Arc::clone(&shared), queue, damage).run());
        Ok(Arc::new(StateTopic { shared, partition, own, damaged, mending: Arc::default(), alone, term }))
    }

    /// Which stretches of the log could not be read, file and offsets, when there are any. Changes in them are missing: a
    /// key that was set there has its older value again or none, one that was removed there is back.
    ///
    /// The cleaner leaves such a topic as it is, so that the next start finds the same damage and a copy can still be put in its
    /// place, until [`StateTopic::go_on_damaged`].
    pub fn damaged(&self) -> Option<String> {
        self.damaged.clone()
    }

    /// Its user can do with what is whole; to be called before the first put. What is known is made durable at the tail, and
    /// only then the log start moves past the damage, with which the damage is over; puts wait until then. A topic that other
    /// nodes write too, or have a replica of, stays as it is: there the damaged replica is to be replaced by a whole one.
    pub fn go_on_damaged(self: &Arc<Self>) {
        if self.damaged.is_some() && !self.mending.under_way.swap(true, Ordering::AcqRel) {
            tokio::spawn(mending::mend(Arc::clone(self)));
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.shared.view().get(key)
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.shared.view().count()
    }

    /// All entries whose key starts with `prefix`, in key order.
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.shared.view().scan(prefix, usize::MAX)
    }

    /// Has `observer` called after each change has been applied, in the order of the log, whoever made it, and before its put
    /// returns. It must be quick, and make no puts itself. What was there before, it is not told.
    pub(crate) fn observe(&self, observer: impl Fn(&[Change]) + Send + Sync + 'static) {
        self.shared.observers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(observer));
    }

    /// Sets (or with `None` removes) a key; returns when that is durable and reads here see it.
    ///
    /// # Errors
    /// Why the change was not made. It may come to hold all the same when its outcome is not known: the connection to the leader
    /// was lost.
    pub async fn put(&self, key: impl Into<Bytes>, value: Option<Bytes>) -> Result<(), AppendError> {
        self.put_all(vec![(key.into(), value)]).await
    }

    /// Changes several keys in one batch: after a crash all of them hold or none does. Puts that are awaited one after
    /// the other keep their order, those at once share a commit.
    ///
    /// # Errors
    /// As [`StateTopic::put`], of all of them.
    pub async fn put_all(&self, changes: Vec<Change>) -> Result<(), AppendError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.submit(changes).await.await.unwrap_or(Err(AppendError::Closed))
    }

    /// As [`StateTopic::put_all`], but returns when the changes have their place in the order; the receiver tells when they
    /// are durable. It fails if the topic is closed.
    pub async fn submit(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<(), AppendError>> {
        self.mending.ended().await;
        self.submit_now(changes).await
    }

    async fn submit_now(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<(), AppendError>> {
        self.submit_for(None, changes).await
    }

    async fn submit_for(
        &self,
        claim: Option<&Claim>,
        changes: Vec<Change>,
    ) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, result) = oneshot::channel();
        let now = Millis::from_system(SystemTime::now());
        let mut chunk = RecordChunk::new();
        for (key, value) in &changes {
            chunk.push(now, Some(key), value.as_deref(), &[]);
        }
        let data = AppendData::Chunk(chunk);
        let submitted = match (&self.term, claim) {
            (Some(term), _) => self.partition.submit_in(term, data).await,
            (None, Some(claim)) => self.partition.submit_as(claim, data).await,
            (None, None) => self.partition.submit(data).await,
        };
        match submitted {
            // Without a follower the receiver fails at once.
            Ok(ticket) => drop(self.own.send(Own { ticket, changes, done }).await),
            Err(error) => drop(done.send(Err(error))),
        }
        result
    }

    /// Returns when all that was acknowledged anywhere before the call is applied here.
    ///
    /// # Errors
    /// The topic has no leader that can be reached, or this did not come about in time.
    pub async fn sync(&self) -> Result<(), AppendError> {
        let marked = self.put_all(vec![(Bytes::from_static(SYNC_KEY), None)]);
        let late = || AppendError::Offline(format!("{} was not up to date in time", self.partition.topic()));
        timeout(SYNC_PATIENCE, marked).await.map_err(|_| late())?
    }
}

impl Mending {
    async fn ended(&self) {
        while self.under_way.load(Ordering::Acquire) {
            let mut over = std::pin::pin!(self.over.notified());
            over.as_mut().enable();
            if self.under_way.load(Ordering::Acquire) {
                over.await;
            }
        }
    }
}

/// Applies the topic from its start to what is known to be committed. What another node has is waited for: taken for lost, it would be
/// written again.
async fn load(partition: &Arc<Partition>, damage: &mut Damage) -> Result<View, LogError> {
    static FAULTS: FaultLog = FaultLog::new();
    let mut view = View::at(partition.watermarks().log_start);
    loop {
        let (next, here) = (view.next(), partition.is_here());
        match page::read(partition, From::Nearest, next, damage).await {
            Ok(page) if page.next == next => return Ok(view),
            Ok(page) => view.apply(&page.changes, page.next),
            Err(error) if !here || !partition.is_here() => {
                if let Some(suppressed) = FAULTS.admit(&error) {
                    tracing::warn!(topic = partition.topic(), %error, suppressed,
                        "the node's own state lies on another node and cannot be read now; waiting for it");
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                let path = format!("{}-{} at offset {next}", partition.topic(), partition.index());
                return Err(LogError::Format { path, what: error.to_string() });
            }
        }
    }
}

fn first_partition(topic: &Topic) -> Result<Arc<Partition>, LogError> {
    topic.partitions.first().cloned().ok_or_else(|| LogError::UnknownTopic(topic.name.clone()))
}

/// Refuses to go on without what the node itself has written before: taken for empty, it would be written again.
///
/// # Errors
/// The replica here could not be opened; says why and what to do.
pub(crate) fn require_open(partition: &Partition) -> Result<(), LogError> {
    let Some(why) = partition.unopened().filter(|_| partition.is_here()) else { return Ok(()) };
    Err(LogError::Format {
        path: format!("{}-{}", partition.topic(), partition.index()),
        what: format!(
            "the node's own state cannot be opened ({why}); mend or restore that directory, then start again"
        ),
    })
}
