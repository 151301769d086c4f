//! Which leader wrote which offsets: the leader epoch cache (KIP-101), kept in Kafka's `leader-epoch-checkpoint`.

use std::fmt::Write as _;

use crate::units::{Epoch, Offset};

/// The first offset of each leader epoch, rising in both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochCache {
    entries: Vec<(Epoch, Offset)>,
}

impl EpochCache {
    /// The latest epoch that has written a batch.
    #[must_use]
    pub fn latest(&self) -> Option<Epoch> {
        self.entries.last().map(|&(epoch, _)| epoch)
    }

    /// Notes that `epoch` wrote a batch at `start`; returns whether that begins an epoch.
    pub fn assign(&mut self, epoch: Epoch, start: Offset) -> bool {
        if self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        // An epoch that wrote nothing below `start` has no records: its entry would overlap.
        while self.entries.last().is_some_and(|&(_, from)| from >= start) {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
        true
    }

    /// Where `epoch` wrote its first batch; `None` when it has not written.
    #[must_use]
    pub fn start_of(&self, epoch: Epoch) -> Option<Offset> {
        let at = self.entries.binary_search_by_key(&epoch, |&(epoch, _)| epoch).ok()?;
        self.entries.get(at).map(|&(_, start)| start)
    }

    /// The largest epoch not above `asked`, and the offset after its last record (Kafka's OffsetForLeaderEpoch). Of an epoch
    /// older than all known ones nothing is left: it ends where they begin. `None` when no epoch is known.
    #[must_use]
    pub fn end_offset(&self, asked: Epoch, log_end: Offset) -> Option<(Epoch, Offset)> {
        let after = self.entries.partition_point(|&(epoch, _)| epoch <= asked);
        let Some(&(epoch, _)) = after.checked_sub(1).and_then(|at| self.entries.get(at)) else {
            return self.entries.first().map(|&(_, start)| (asked, start));
        };
        Some((epoch, self.entries.get(after).map_or(log_end, |&(_, start)| start)))
    }

    /// Forgets what stands at or above `end`: the log was truncated there.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|&(_, start)| start < end);
    }

    /// Kafka's text form: version 0, the number of entries, then `epoch start` a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            let _ = writeln!(text, "{epoch} {start}");
        }
        text
    }

    /// Reads Kafka's text form; `None` when it is anything else (the batches tell the epochs again).
    #[must_use]
    pub fn from_text(text: &str) -> Option<EpochCache> {
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut cache = EpochCache::default();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let (epoch, start) = (Epoch(epoch.parse().ok().filter(|&epoch| epoch >= 0)?), Offset::from_text(start)?);
            if cache.entries.last().is_some_and(|&(e, s)| e >= epoch || s >= start) {
                return None;
            }
            cache.entries.push((epoch, start));
        }
        (cache.entries.len() == count).then_some(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> EpochCache {
        let mut cache = EpochCache::default();
        assert!(cache.assign(Epoch(1), Offset(0)));
        assert!(!cache.assign(Epoch(1), Offset(5)));
        assert!(cache.assign(Epoch(4), Offset(10)));
        cache
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let cache = cache();
        assert_eq!(cache.end_offset(Epoch(0), Offset(20)), Some((Epoch(0), Offset(0))), "older than all");
        assert_eq!(EpochCache::default().end_offset(Epoch(0), Offset(20)), None);
        assert_eq!(cache.end_offset(Epoch(1), Offset(20)), Some((Epoch(1), Offset(10))));
        assert_eq!(cache.end_offset(Epoch(3), Offset(20)), Some((Epoch(1), Offset(10))));
        assert_eq!(cache.end_offset(Epoch(4), Offset(20)), Some((Epoch(4), Offset(20))));
    }

    #[test]
    fn truncation_forgets_the_epochs_that_began_above() {
        let mut cache = cache();
        cache.truncate(Offset(10));
        assert_eq!(cache.latest(), Some(Epoch(1)));
    }

    #[test]
    fn an_epoch_without_records_is_replaced() {
        let mut cache = cache();
        assert!(cache.assign(Epoch(5), Offset(10)));
        assert_eq!(cache.end_offset(Epoch(4), Offset(20)), Some((Epoch(1), Offset(10))));
    }

    #[test]
    fn the_checkpoint_is_kafkas_text_and_reads_back() {
        let cache = cache();
        assert_eq!(cache.to_text(), "0\n2\n1 0\n4 10\n");
        assert_eq!(EpochCache::from_text(&cache.to_text()), Some(cache));
        for bad in ["", "1\n0\n", "0\n2\n1 0\n", "0\n2\n4 10\n1 0\n", "0\n1\nx\n"] {
            assert_eq!(EpochCache::from_text(bad), None, "{bad:?}");
        }
    }
}
