//! What the machine knows of the partition's segments, and when the active one must roll.

use crate::topic::TopicConfig;
use crate::units::{Millis, Offset};

/// Largest segment file, in bytes: index entries hold the position as 31 bits (Kafka's limit). An index of one entry
/// for each [`crate::limits::INDEX_INTERVAL_BYTES`] cannot be full before that, so it never asks for a roll.
pub(super) const MAX_SEGMENT_BYTES: u64 = (1 << 31) - 1 - crate::limits::MAX_BATCH_BYTES as u64;

/// A segment on the local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    pub bytes: u64,
    /// Greatest record timestamp.
    pub max_timestamp: Millis,
    /// When its first record was appended.
    pub created: Millis,
    /// When its last record was appended.
    pub appended: Millis,
}

impl Segment {
    pub(super) fn empty(base_offset: Offset, now: Millis) -> Segment {
        Segment {
            base_offset,
            end_offset: base_offset,
            bytes: 0,
            max_timestamp: Millis(i64::MIN),
            created: now,
            appended: now,
        }
    }

    /// Whether this active segment must be closed before `incoming` bytes and `records` records are appended.
    pub(super) fn must_roll(&self, config: &TopicConfig, now: Millis, incoming: u64, records: i64) -> bool {
        self.bytes > 0
            && (self.bytes + incoming > config.segment_bytes.min(MAX_SEGMENT_BYTES)
                || self.is_aged(config, now)
                || self.end_offset.0 + records - self.base_offset.0 > i64::from(i32::MAX))
    }

    /// Whether this active segment is to be closed though nothing is appended: `segment.ms`, or the UTC day has changed,
    /// so that all records of a segment have one day of append.
    pub(super) fn is_aged(&self, config: &TopicConfig, now: Millis) -> bool {
        self.bytes > 0
            && (now.0 >= self.created.0.saturating_add(config.segment_ms) || now.utc_day() != self.appended.utc_day())
    }

    /// When [`Segment::is_aged`] becomes true.
    pub(super) fn ages_at(&self, config: &TopicConfig) -> Option<Millis> {
        let midnight = (self.appended.utc_day() + 1) * Millis::DAY;
        (self.bytes > 0).then(|| Millis(self.created.0.saturating_add(config.segment_ms).min(midnight)))
    }

    /// This segment as others see it once it is closed.
    pub(super) fn closed(&self) -> ClosedSegment {
        ClosedSegment {
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            appended: self.appended,
            append_day: self.appended.utc_day(),
        }
    }
}

/// A segment that can no longer change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedSegment {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    pub bytes: u64,
    pub max_timestamp: Millis,
    /// When its last record was appended.
    pub appended: Millis,
    /// UTC day on which its records were appended, days since 1970-01-01. Segments roll at midnight UTC.
    pub append_day: i64,
}

/// A segment that only the cold tier still has: what the retention of the whole log needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdSegment {
    pub end_offset: Offset,
    pub bytes: u64,
    pub appended: Millis,
}

/// Where the log starts, saved with the partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Starts {
    /// First offset of the whole log.
    pub log_start: Offset,
    /// Records below this are in the cold tier.
    pub tiered: Offset,
    /// Records below this are compacted.
    pub compacted: Offset,
    /// Segments that have left the local disk but not the log, oldest first.
    pub cold: Vec<ColdSegment>,
}
