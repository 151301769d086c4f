//! The log as it is in memory: the vote, and every entry that is not purged.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use crate::quorum::frame;
use crate::quorum::raft::{Entry, LogId, Vote};

/// Vote and entries, as the journal has them on disk. Entries follow each other without gaps.
#[derive(Default)]
pub(in crate::quorum) struct Memory {
    pub(in crate::quorum) vote: Option<Vote>,
    pub(in crate::quorum) purged: Option<LogId>,
    /// Not on disk: after a restart the leader says it anew.
    pub(in crate::quorum) committed: Option<LogId>,
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Memory {
    pub(in crate::quorum) fn first(&self) -> Option<LogId> {
        self.entries.front().map(|entry| entry.log_id)
    }

    /// The last entry, or the last purged one if there is none.
    pub(in crate::quorum) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// Bytes of all entries, about.
    pub(in crate::quorum) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether `entries` follow what is there. To an empty log anything can be added: what is missing may be purged.
    pub(super) fn follows(&self, entries: &[Entry]) -> bool {
        let mut last = self.entries.back().map(|entry| entry.log_id.index);
        entries.iter().all(|entry| {
            let before = last.replace(entry.log_id.index);
            before.is_none_or(|before| before.checked_add(1) == Some(entry.log_id.index))
        })
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        self.bytes += entries.iter().map(|entry| frame::size(entry) as u64).sum::<u64>();
        self.entries.extend(entries);
    }

    /// Removes `since` and all above.
    pub(super) fn truncate(&mut self, since: u64) {
        while let Some(last) = self.entries.pop_back_if(|entry| entry.log_id.index >= since) {
            self.bytes -= frame::size(&last) as u64;
        }
    }

    /// Removes `upto` and all below.
    pub(super) fn purge(&mut self, upto: LogId) {
        while let Some(first) = self.entries.pop_front_if(|entry| entry.log_id.index <= upto.index) {
            self.bytes -= frame::size(&first) as u64;
        }
        self.purged = self.purged.max(Some(upto));
    }

    /// Those of the entries in `range` that are there, up to about `most` bytes, but one at least.
    pub(super) fn get(&self, range: impl RangeBounds<u64>, most: usize) -> Vec<Entry> {
        let Some(first) = self.first().map(|id| id.index) else { return Vec::new() };
        let from = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.iter().skip(skip).take_while(|entry| range.contains(&entry.log_id.index)) {
            bytes += frame::size(entry);
            if bytes > most && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        taken
    }
}
