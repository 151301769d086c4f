//! What the lake tells of itself: per topic what lies in the table and what is still to come.

use std::sync::Arc;

use forebay_disk::Topic;
use forebay_log::Offset;
use forebay_log::topic::LakeFormat;
use forebay_tiering::manifest::{Entry, State};
use serde::{Deserialize, Serialize};

use super::worker::Progress;

/// What `/api/v1/lake`, `forebay lake status` and the console show of one topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyReport {
    pub topic: String,
    pub files: u64,
    pub rows: u64,
    pub problems: Vec<String>,
}

/// The state that an entry has once it is in the lake for good.
pub(super) fn settled(topic: &Topic) -> State {
    if topic.config().lake_format == LakeFormat::None { State::CopyFinished } else { State::Committed }
}

/// Where each partition's lake ends, by the manifest.
pub(super) fn lake_end(topic: &Topic, entries: &[Arc<Entry>], partition: u32) -> Offset {
    let least = settled(topic);
    let own = entries.iter().filter(|entry| entry.partition == partition && entry.state >= least);
    own.map(|entry| entry.end).max().unwrap_or(Offset::ZERO)
}

pub(super) fn of(topic: &Topic, url: &str, entries: &[Arc<Entry>], progress: Progress) -> TopicStatus {
    let least = settled(topic);
    let held = entries.iter().filter(|entry| entry.state >= least && entry.state != State::DeleteStarted);
    let (mut files, mut rows, mut bytes) = (0, 0, 0);
    for facts in held.filter_map(|entry| entry.facts.as_ref()) {
        files += 1;
        rows += facts.rows;
        bytes += facts.bytes;
    }
    let lag = topic.partitions.iter().map(|partition| {
        let marks = partition.watermarks();
        let done = lake_end(topic, entries, partition.index()).max(marks.log_start);
        (marks.high_watermark.0 - done.0).max(0)
    });
    TopicStatus {
        topic: topic.name.clone(),
        url: format!("{url}/{}", topic.name),
        table_version: progress.table_version,
        files,
        rows,
        bytes,
        lag_records: lag.sum(),
        error: progress.error,
    }
}
