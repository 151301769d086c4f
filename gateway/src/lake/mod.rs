//! The lake of this node: drives the offload of closed segments and serves reads of the cold tier.

use std::sync::Arc;

use bytes::Bytes;
use forebay_disk::Log;
use forebay_log::{Millis, Offset, ReadError};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::Metrics;

/// The lake service of a node.
pub struct Lake {
    _private: (),
}

/// What `/api/v1/lake`, `forebay lake status` and the console show of one topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicStatus {
    pub topic: String,
    pub url: String,
    /// Delta table version; `None` before the first commit.
    pub table_version: Option<i64>,
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Records below the high watermark that are not yet in the table.
    pub lag_records: i64,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}

/// What a verification found; empty `problems` means that manifest, objects, table and log agree.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    pub topic: String,
    pub files: u64,
    pub rows: u64,
    pub problems: Vec<String>,
}

impl Lake {
    /// Opens the object store and the manifest and starts the offload. An unreachable store is no error: it starts
    /// degraded and retries.
    pub async fn start(
        log: Log,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Lake>> {
        let _ = (log, config, metrics, shutdown);
        todo!()
    }
    /// Record batches from the one that holds `from`, with the offsets, timestamps, keys, headers and values as appended.
    pub async fn read(&self, topic: &str, partition: u32, from: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        let _ = (topic, partition, from, max_bytes);
        todo!()
    }
    pub async fn offset_for_time(
        &self,
        topic: &str,
        partition: u32,
        at: Millis,
    ) -> Result<Option<(Offset, Millis)>, ReadError> {
        let _ = (topic, partition, at);
        todo!()
    }
    pub fn status(&self) -> Vec<TopicStatus> {
        todo!()
    }
    /// Rolls the topic's active segments, offloads everything below the high watermark and commits; returns when the
    /// table holds it.
    pub async fn flush(&self, topic: &str) -> anyhow::Result<()> {
        let _ = topic;
        todo!()
    }
    /// Reads manifest, objects, table log and local log, and compares.
    pub async fn verify(&self, topic: &str) -> anyhow::Result<VerifyReport> {
        let _ = topic;
        todo!()
    }
}
