//! The log of one node: its topics and partitions, and the handles through which the doors append and read.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Millis, Offset, ReadError, TopicConfig};
use tokio::sync::{oneshot, watch};

use crate::files::Files;

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
    Io { path: String, source: std::io::Error },
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

/// The log of one node. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    #[allow(dead_code)]
    inner: Arc<()>,
}

impl Log {
    /// Opens `files` (the data directory), recovers every partition and starts the shards. Blocking.
    pub fn open(files: Arc<dyn Files>, options: LogOptions) -> Result<Log, LogError> {
        let _ = (files, options);
        todo!()
    }
    /// The identity of this cluster, made at the first start.
    pub fn cluster_id(&self) -> String {
        todo!()
    }
    pub async fn create_topic(&self, name: &str, partitions: u32, config: TopicConfig) -> Result<Arc<Topic>, LogError> {
        let _ = (name, partitions, config);
        todo!()
    }
    pub async fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let _ = name;
        todo!()
    }
    pub async fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        let _ = (name, config);
        todo!()
    }
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let _ = name;
        todo!()
    }
    /// All topics by name, a snapshot.
    pub fn topics(&self) -> Arc<BTreeMap<String, Arc<Topic>>> {
        todo!()
    }
    /// Changes whenever a topic is made, altered or deleted.
    pub fn topics_changed(&self) -> watch::Receiver<u64> {
        todo!()
    }
    /// Whether appends are refused now because the disk is full.
    pub fn disk_full(&self) -> bool {
        todo!()
    }
    /// Flushes everything and stops the shards. Blocking.
    pub fn shutdown(&self) {
        todo!()
    }
}

/// A topic and its partitions.
pub struct Topic {
    pub name: String,
    pub id: uuid::Uuid,
    pub partitions: Vec<Arc<Partition>>,
    config: arc_swap::ArcSwap<TopicConfig>,
}

impl Topic {
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }
    /// Internal topics (the program's own state) start with `_`.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with('_')
    }
}

/// The offsets of a partition that readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset of the whole log, cold tier included (Kafka's log start offset).
    pub log_start: Offset,
    /// First offset on the local disk (Kafka's local log start offset).
    pub local_start: Offset,
    /// Readers see records below this: durable on every in-sync replica.
    pub high_watermark: Offset,
    /// The next offset to be written.
    pub log_end: Offset,
}

/// What is appended.
pub enum AppendData {
    /// Records gathered with those of other requests into one batch, compressed by the topic's `compression.type`.
    Chunk(RecordChunk),
    /// Whole v2 batches as a Kafka producer sent them; validated (CRC, sizes, counts), stored as they are.
    Batches(Bytes),
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
}

/// Completes when the append is durable, or refused.
pub struct Ticket {
    #[allow(dead_code)]
    receiver: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _ = cx;
        todo!()
    }
}

/// Whole stored batches: the first may start before the offset asked for.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub batches: Bytes,
    pub watermarks: Watermarks,
}

/// A segment that can no longer change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedSegment {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    pub bytes: u64,
    pub max_timestamp: Millis,
    /// UTC day on which its records were appended, days since 1970-01-01. Segments roll at midnight UTC.
    pub append_day: i64,
}

/// A handle to one partition. Cheap to share; reads run on the caller's thread.
pub struct Partition {
    _private: (),
}

impl Partition {
    pub fn topic(&self) -> &str {
        todo!()
    }
    pub fn index(&self) -> u32 {
        todo!()
    }
    pub fn leader_epoch(&self) -> forebay_log::Epoch {
        todo!()
    }
    pub fn watermarks(&self) -> Watermarks {
        todo!()
    }
    /// Follows the watermarks; long polls and tailers wait on it.
    pub fn watch(&self) -> watch::Receiver<Watermarks> {
        todo!()
    }
    /// Why the partition takes no writes, when it does not.
    pub fn offline(&self) -> Option<String> {
        todo!()
    }
    /// Bytes on the local disk.
    pub fn local_bytes(&self) -> u64 {
        todo!()
    }
    /// Hands `data` to the partition's shard, waiting while too much is pending in the node (back-pressure). The ticket
    /// completes when the records are durable. Appends submitted one after the other keep their order.
    pub async fn submit(&self, data: AppendData) -> Result<Ticket, AppendError> {
        let _ = data;
        todo!()
    }
    /// `submit`, and wait for the ticket.
    pub async fn append(&self, data: AppendData) -> Result<Appended, AppendError> {
        self.submit(data).await?.await
    }
    /// Whole batches from the one that holds `from`, at least one, up to `max_bytes`, below the high watermark; empty at
    /// the high watermark. CRCs are checked. Blocking file reads, normally from the page cache.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        let _ = (from, max_bytes);
        todo!()
    }
    /// The first record with a timestamp at or after `at` in the local log: its offset and timestamp.
    pub fn offset_for_time(&self, at: Millis) -> Result<Option<(Offset, Millis)>, ReadError> {
        let _ = at;
        todo!()
    }
    /// Closed segments wholly below the high watermark, oldest first.
    pub fn closed_segments(&self) -> Vec<ClosedSegment> {
        todo!()
    }
    /// Rolls the active segment if it holds records, so that it becomes a closed one.
    pub async fn roll(&self) -> Result<(), AppendError> {
        todo!()
    }
    /// Records below `end` are in the lake: local retention may let them go.
    pub async fn set_tiered(&self, end: Offset) -> Result<(), AppendError> {
        let _ = end;
        todo!()
    }
    /// Moves the log start up to `to` (DeleteRecords, retention); local segments wholly below are removed.
    pub async fn set_log_start(&self, to: Offset) -> Result<(), AppendError> {
        let _ = to;
        todo!()
    }
}
