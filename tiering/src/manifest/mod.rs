//! The manifest: which offset range lies in which object, and how far each is on its way into or out of the lake.
//!
//! Entries are key-value state, kept in an internal topic. A cold read needs an entry and its object, nothing else: no
//! catalog, no table log.
//!
//! ```text
//! COPY_STARTED ──> COPY_FINISHED ──> COMMITTED ──> DELETE_STARTED ──> DELETE_FINISHED (the entry is removed)
//!  object may       object whole      in the table   log start has       object gone
//!  be partial                                        moved past it
//! ```

mod book;
mod codec;

use std::fmt;

use forebay_log::{Epoch, Millis, Offset};
use uuid::Uuid;

pub use book::{Leads, Scan, View, Write, adopt, changed, claim, loaded, merged_shape, superseded, view};
pub use codec::{
    FormatError, decode_ends, decode_entry, decode_shape, decode_topic, encode_ends, encode_entry, encode_shape,
    encode_topic, entry_key, entry_prefix, flush_key, lead_prefix, partition_prefix, rest_key, rest_prefix, shape_key,
    topic_key, topic_of,
};

/// Of entries from before there were leaders.
pub const NO_EPOCH: Epoch = Epoch(-1);

/// Gaps that are listed; more are only counted.
const MAX_GAPS: usize = 16;

/// How far a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    CopyStarted,
    CopyFinished,
    Committed,
    DeleteStarted,
}

/// What is known of an object once it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    pub rows: u64,
    /// Rows with an `_error`.
    pub errors: u64,
    pub bytes: u64,
    pub min_timestamp: Millis,
    pub max_timestamp: Millis,
    /// When the copy was finished.
    pub finished_at: Millis,
    /// Delta's statistics, JSON; kept until the commit.
    pub stats: Option<String>,
    /// What of the range is not in the object.
    pub lost: Lost,
}

/// Offsets of a range whose records were damaged in the local log when it was copied: they are in no object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    pub offsets: u64,
    /// The first gaps, each from its first offset to the one after its last.
    pub gaps: Vec<(Offset, Offset)>,
    /// Where the first of them was found, and what is wrong there.
    pub cause: String,
}

impl Lost {
    /// One more gap, behind those before it.
    pub fn add(&mut self, from: Offset, to: Offset, cause: &str) {
        if self.offsets == 0 {
            cause.clone_into(&mut self.cause);
        }
        self.offsets += u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0);
        if let Some(last) = self.gaps.last_mut().filter(|last| last.1 == from) {
            last.1 = to;
        } else if self.gaps.len() < MAX_GAPS {
            self.gaps.push((from, to));
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gaps: Vec<String> = self.gaps.iter().map(|(from, to)| format!("{from}..{to}")).collect();
        let listed: i64 = self.gaps.iter().map(|(from, to)| to.0 - from.0).sum();
        let more = if u64::try_from(listed) == Ok(self.offsets) { "" } else { " and more" };
        write!(f, "{} records, offsets {}{more}: {}", self.offsets, gaps.join(", "), self.cause)
    }
}

/// What the lake keeps of a topic as a whole, for the time when the topic itself is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicEntry {
    pub topic_id: Uuid,
    pub name: String,
    /// Set once the topic is deleted and it is known what goes with it.
    pub removal: Option<Removal>,
}

/// What goes with a deleted topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The table is the topic's own: everything below its folder, with what other writers have put there.
    Folder,
    /// There is no table, or one of another topic: only what this topic has written.
    OwnObjects,
}

/// One offset range of a partition and its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub topic_id: Uuid,
    pub partition: u32,
    pub base: Offset,
    /// The offset after the last one.
    pub end: Offset,
    /// Of this attempt: an object's name is never used twice.
    pub id: Uuid,
    /// Below the root of the object store.
    pub path: String,
    /// UTC day of append, days since 1970-01-01.
    pub append_day: i64,
    /// Bytes of the segment in the local log.
    pub log_bytes: u64,
    pub state: State,
    pub facts: Option<ObjectFacts>,
    /// When the table let go of it; the object follows after a grace period.
    pub removed_at: Option<Millis>,
    /// The leader epoch of the partition under which this was noted.
    pub epoch: Epoch,
}

impl Entry {
    /// Whether the object is whole and still there: cold reads may use it.
    pub fn readable(&self) -> bool {
        self.state >= State::CopyFinished
    }
}

/// The partition value and folder name of a day.
#[must_use]
pub fn date_text(day: i64) -> String {
    let millis = day.saturating_mul(Millis::DAY);
    chrono::DateTime::from_timestamp_millis(millis).unwrap_or_default().format("%Y-%m-%d").to_string()
}

/// Where the object of a range lies.
#[must_use]
pub fn object_path(topic: &str, partition: u32, base: Offset, day: i64, id: Uuid) -> String {
    format!("{topic}/_date={}/part-{partition:05}-{:020}-{id}.parquet", date_text(day), base.0)
}
