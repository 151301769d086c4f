//! What the lake tells of itself: per topic what lies in the table and what is still to come.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_cluster::Topic;
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
    /// The partitions that this node leads, and offloads.
    #[serde(default)]
    pub leads: Vec<u32>,
    /// Records below the high watermark that are not yet in the table.
    pub lag_records: i64,
    /// Offsets below the end of the lake whose records were damaged in the local log before they were copied.
    #[serde(default)]
    pub lost_records: u64,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// Unix time in milliseconds from which on each attempt has failed.
    #[serde(default)]
    pub failing_since: Option<i64>,
}

/// What a verification found; empty `problems` means that manifest, objects, table and log agree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyReport {
    pub topic: String,
    pub files: u64,
    pub rows: u64,
    pub problems: Vec<String>,
    /// What is not in the lake because it was damaged in the local log before: known, and no disagreement.
    #[serde(default)]
    pub lost: Vec<String>,
}

/// The state that an entry has once it is in the lake for good.
pub(super) fn settled(topic: &Topic) -> State {
    if topic.config().lake_format == LakeFormat::None { State::CopyFinished } else { State::Committed }
}

/// What the entries of a topic add up to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    files: u64,
    rows: u64,
    bytes: u64,
    lost: u64,
    /// Where each partition's lake ends.
    ends: BTreeMap<u32, Offset>,
}

impl Totals {
    /// Of the entries of at least this state.
    pub(super) fn of<'e>(entries: impl Iterator<Item = &'e Arc<Entry>>, least: State) -> Totals {
        let mut totals = Totals::default();
        for entry in entries.filter(|entry| entry.state >= least) {
            let end = totals.ends.entry(entry.partition).or_default();
            *end = entry.end.max(*end);
            if let Some(facts) = entry.facts.as_ref().filter(|_| entry.state != State::DeleteStarted) {
                totals.files += 1;
                totals.rows += facts.rows;
                totals.bytes += facts.bytes;
                totals.lost += facts.lost.offsets;
            }
        }
        totals
    }

    /// Where the partition's lake ends, by the manifest.
    pub(super) fn end(&self, partition: u32) -> Offset {
        self.ends.get(&partition).copied().unwrap_or_default()
    }
}

pub(super) fn of(topic: &Topic, url: &str, totals: &Totals, progress: Progress, leads: Vec<u32>) -> TopicStatus {
    let lag = topic.partitions.iter().map(|partition| {
        let marks = partition.watermarks();
        let done = totals.end(partition.index()).max(marks.log_start);
        (marks.high_watermark.0 - done.0).max(0)
    });
    TopicStatus {
        topic: topic.name.clone(),
        url: format!("{url}/{}", topic.name),
        table_version: progress.table_version,
        files: totals.files,
        rows: totals.rows,
        bytes: totals.bytes,
        leads,
        lag_records: lag.sum(),
        lost_records: totals.lost,
        error: progress.error,
        failing_since: progress.failing_since.map(|since| since.0),
    }
}
