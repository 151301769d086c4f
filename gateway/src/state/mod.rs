//! Key-value state kept as records of an internal topic: sessions, retained messages, lake manifest, alert state.
//!
//! One mechanism for all that the program must remember: a `put` is durable by the same commit as any reading. The
//! live set is held in memory; when the log of a state topic has grown to several times its live set, the live
//! set is written again at the tail and the log start moves up to it.

mod lead;
mod live;
mod load;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forebay_cluster::{Log, LogError, Partition, Term, Topic};
use forebay_log::{AppendError, TopicConfig};
use tokio::sync::{mpsc, oneshot};

use live::Live;
use load::{Loaded, load};
use writer::{Command, Writer};

/// Puts that may wait in front of the writer; more wait at their callers.
const QUEUE: usize = 256;

/// A change of one key; `None` removes it.
type Change = (Bytes, Option<Bytes>);

/// A map of keys to values whose every change is a record.
pub struct StateTopic {
    live: Arc<Mutex<Live>>,
    commands: mpsc::Sender<Command>,
    damaged: Option<String>,
}

impl StateTopic {
    /// Opens (or makes) the internal topic `name`, with one partition, and loads its live set. Opened once in a node:
    /// the writer that this starts is the topic's only one. Damage in its log is no error: see [`StateTopic::damaged`].
    ///
    /// # Errors
    /// What kept the topic from being made or read.
    pub async fn open(log: &Log, name: &str) -> Result<Arc<StateTopic>, LogError> {
        let topic = match log.topic(name) {
            Some(topic) => topic,
            None => log.create_topic(name, 1, TopicConfig::state()).await?,
        };
        let partition = first_partition(&topic)?;
        StateTopic::begin(partition, None).await
    }

    /// Loads what there is, and begins to write.
    async fn begin(partition: Arc<Partition>, term: Option<Term>) -> Result<Arc<StateTopic>, LogError> {
        let (loaded, partition) =
            tokio::task::spawn_blocking(move || load(&partition).map(|loaded| (loaded, partition)))
                .await
                .map_err(|_| LogError::Closed)??;
        let Loaded { mut live, damaged } = loaded;
        if damaged.is_some() {
            live.hold_compaction();
        }
        let live = Arc::new(Mutex::new(live));
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(partition, live.clone(), queue);
        let writer = match term {
            Some(term) => writer.in_term(term),
            None => writer,
        };
        tokio::spawn(writer.run());
        Ok(Arc::new(StateTopic { live, commands, damaged }))
    }

    /// Which stretches of the log could not be read, file and offsets, when there are any. Changes in them are missing: a
    /// key that was set there has its older value again or none, one that was removed there is back.
    ///
    /// Such a topic is not compacted, so that the next start finds the same damage and a copy can still be put in its
    /// place, until [`StateTopic::go_on_damaged`].
    pub fn damaged(&self) -> Option<String> {
        self.damaged.clone()
    }

    /// Its user can do with what is whole. From now on the topic is compacted as ever: the live set is made durable at the
    /// tail, and only then the log start moves past the damage, with which the damage is over.
    pub fn go_on_damaged(&self) {
        lock(&self.live).release_compaction();
    }

    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        lock(&self.live).get(key)
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        lock(&self.live).count()
    }

    /// All entries whose key starts with `prefix`, in key order.
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        lock(&self.live).scan(prefix)
    }

    /// Sets (or with `None` removes) a key; returns when that is durable. Reads see it from then on.
    ///
    /// # Errors
    /// Why the change was not made; then nothing of it holds.
    pub async fn put(&self, key: impl Into<Bytes>, value: Option<Bytes>) -> Result<(), AppendError> {
        self.put_all(vec![(key.into(), value)]).await
    }

    /// Changes several keys in one batch: after a crash all of them hold or none does. Puts that are awaited one after
    /// the other keep their order, those at once share a commit.
    ///
    /// # Errors
    /// Why the changes were not made; then none of them holds.
    pub async fn put_all(&self, changes: Vec<Change>) -> Result<(), AppendError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.submit(changes).await.await.unwrap_or(Err(AppendError::Closed))
    }

    /// As [`StateTopic::put_all`], but returns when the changes have their place in the order; the receiver tells when they
    /// are durable. It fails if the topic is closed.
    pub async fn submit(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, result) = oneshot::channel();
        // Without a writer the receiver fails at once.
        let _ = self.commands.send(Command { changes, done }).await;
        result
    }
}

fn lock(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_partition(topic: &Topic) -> Result<Arc<Partition>, LogError> {
    topic.partitions.first().cloned().ok_or_else(|| LogError::UnknownTopic(topic.name.clone()))
}

/// Refuses to go on without what the node itself has written before: taken for empty, it would be written again.
///
/// # Errors
/// The partition could not be opened; says why and what to do.
pub(crate) fn require_open(partition: &Partition) -> Result<(), LogError> {
    let Some(why) = partition.unopened() else { return Ok(()) };
    Err(LogError::Format {
        path: format!("{}-{}", partition.topic(), partition.index()),
        what: format!(
            "the node's own state cannot be opened ({why}); mend or restore that directory, then start again"
        ),
    })
}
