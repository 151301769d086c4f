//! One partition on its way into the lake: its ranges, the copy in progress, and what must be cleaned up.

use std::collections::BTreeMap;

use forebay_log::{Millis, Offset};
use uuid::Uuid;

use super::event::{Policy, Segment};
use crate::manifest::{Entry, State};

/// First wait after a failure, in milliseconds; doubled for each further one.
const BACKOFF_FIRST: i64 = 1_000;
/// Longest wait after a failure, in milliseconds.
const BACKOFF_MOST: i64 = 60_000;

/// Whether a wait of `wait` milliseconds that ends at `at` is over. One that would end later than it can was begun by a clock
/// that has been set back since.
pub(super) fn is_over(at: Millis, wait: i64, now: Millis) -> bool {
    at <= now || at.0.saturating_sub(now.0) > wait
}

/// When to try again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    at: Option<Millis>,
}

impl Retry {
    pub(super) fn failed(&mut self, now: Millis) {
        let wait = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MOST);
        self.failures = self.failures.saturating_add(1);
        self.at = Some(Millis(now.0.saturating_add(wait)));
    }

    pub(super) fn succeeded(&mut self) {
        *self = Retry::default();
    }

    pub(super) fn hurry(&mut self) {
        self.at = None;
    }

    pub(super) fn ready(&self, now: Millis) -> bool {
        self.at.is_none_or(|at| is_over(at, BACKOFF_MOST, now))
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        self.at
    }
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) log_start: Offset,
    pub(super) segments: Vec<Segment>,
    /// Ranges whose object is whole, by base offset.
    pub(super) ranges: BTreeMap<Offset, Entry>,
    pub(super) copying: Option<Entry>,
    /// That copy was begun in a shape that is none any more: whatever comes of it goes.
    pub(super) outdated: bool,
    /// Copies that failed or were cut off by a crash: their objects must go before the next copy.
    pub(super) trash: Vec<Entry>,
    /// Objects being deleted now.
    pub(super) deleting: Vec<Uuid>,
    pub(super) retry: Retry,
    /// Why the last copy failed, until one succeeds.
    pub(super) copy_error: Option<String>,
    /// Why the last deletion of an object failed, until one succeeds.
    pub(super) delete_error: Option<String>,
    /// Whether the log was told, since the start, how far the lake has come.
    pub(super) announced: bool,
}

impl Lane {
    /// The offset that the next range begins at, if its segment begins no later.
    pub(super) fn next(&self) -> Offset {
        let covered = self.ranges.values().next_back().map_or(Offset::ZERO, |entry| entry.end);
        covered.max(self.log_start)
    }

    /// The part of a closed segment that is to be copied next.
    pub(super) fn next_segment(&self) -> Option<Segment> {
        let next = self.next();
        let segment = self.segments.iter().find(|segment| segment.end > next)?;
        Some(Segment { base: segment.base.max(next), ..segment.clone() })
    }

    /// Everything below is in the lake, the table included if there is one.
    pub(super) fn tiered_end(&self, policy: &Policy) -> Option<Offset> {
        let least = if policy.table { State::Committed } else { State::CopyFinished };
        self.ranges.values().take_while(|entry| entry.state >= least).last().map(|entry| entry.end)
    }

    /// Takes a recovered entry in. Of two that claim one range, the one further on is right.
    pub(super) fn recover(&mut self, entry: Entry) {
        if !entry.readable() {
            self.trash.push(entry);
            return;
        }
        match self.ranges.get_mut(&entry.base) {
            Some(other) if other.state >= entry.state => self.trash.push(entry),
            Some(other) => self.trash.push(std::mem::replace(other, entry)),
            None => {
                self.ranges.insert(entry.base, entry);
            }
        }
    }
}
