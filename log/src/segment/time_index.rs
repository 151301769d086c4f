//! The time index: sparse pairs of greatest timestamp so far and the offset that has it, twelve bytes each.

use super::IndexProblem;
use crate::units::{Millis, Offset};

/// Bytes of one entry in the file.
const ENTRY_BYTES: usize = 12;

/// One entry: no record up to this offset (relative to the segment's base) has a later timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp: Millis,
    pub relative_offset: u32,
}

/// The time index of one segment, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeIndex {
    base: Offset,
    entries: Vec<TimeEntry>,
}

impl TimeIndex {
    #[must_use]
    pub fn new(base: Offset) -> TimeIndex {
        TimeIndex { base, entries: Vec::new() }
    }

    /// Adds the greatest timestamp so far and the last offset of the batch that holds it; left out unless both rise.
    pub fn append(&mut self, timestamp: Millis, offset: Offset) {
        let Ok(relative_offset) = u32::try_from(offset.0.saturating_sub(self.base.0)) else { return };
        if self.entries.last().is_none_or(|l| l.timestamp < timestamp && l.relative_offset < relative_offset) {
            self.entries.push(TimeEntry { timestamp, relative_offset });
        }
    }

    /// The offset from which to look for the first record at or after `at`: all records before it are earlier.
    #[must_use]
    pub fn lookup(&self, at: Millis) -> Offset {
        let after = self.entries.partition_point(|e| e.timestamp < at);
        after.checked_sub(1).map_or(self.base, |i| self.base.plus(i64::from(self.entries[i].relative_offset)).next())
    }

    /// Forgets all entries at or above `end` (truncation of the log).
    pub fn truncate(&mut self, end: Offset) {
        let keep = self.entries.partition_point(|e| self.base.plus(i64::from(e.relative_offset)) < end);
        self.entries.truncate(keep);
    }

    #[must_use]
    pub fn entries(&self) -> &[TimeEntry] {
        &self.entries
    }

    /// The file's bytes from entry number `from` on, so that a file is extended by what is new.
    #[must_use]
    pub fn encode(&self, from: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.entries.len() - from.min(self.entries.len())) * ENTRY_BYTES);
        for entry in self.entries.iter().skip(from) {
            bytes.extend_from_slice(&entry.timestamp.0.to_be_bytes());
            bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
        }
        bytes
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What shows that the file is damaged.
    pub fn decode(base: Offset, bytes: &[u8]) -> Result<TimeIndex, IndexProblem> {
        let (words, []) = bytes.as_chunks::<ENTRY_BYTES>() else { return Err(IndexProblem::Size) };
        let mut entries: Vec<TimeEntry> = Vec::with_capacity(words.len());
        for &[a, b, c, d, e, f, g, h, i, j, k, l] in words {
            let entry = TimeEntry {
                timestamp: Millis(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
                relative_offset: u32::from_be_bytes([i, j, k, l]),
            };
            if let Some(last) = entries.last()
                && (last.timestamp >= entry.timestamp || last.relative_offset >= entry.relative_offset)
            {
                return Err(IndexProblem::Order);
            }
            entries.push(entry);
        }
        Ok(TimeIndex { base, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> TimeIndex {
        let mut index = TimeIndex::new(Offset(100));
        index.append(Millis(1000), Offset(109));
        index.append(Millis(900), Offset(119));
        index.append(Millis(2000), Offset(129));
        index
    }

    #[test]
    fn lookup_never_skips_a_record_at_or_after_the_time() {
        for (at, offset) in [(0, 100), (1000, 100), (1001, 110), (2000, 110), (2001, 130)] {
            assert_eq!(index().lookup(Millis(at)), Offset(offset), "{at}");
        }
    }

    #[test]
    fn the_file_comes_back_and_damage_is_noticed() {
        let bytes = index().encode(0);
        assert_eq!(bytes.len(), 24, "an earlier timestamp adds no entry");
        assert_eq!(TimeIndex::decode(Offset(100), &bytes), Ok(index()));
        assert_eq!(TimeIndex::decode(Offset(100), &bytes[..13]), Err(IndexProblem::Size));
        let swapped: Vec<u8> = [&bytes[12..], &bytes[..12]].concat();
        assert_eq!(TimeIndex::decode(Offset(100), &swapped), Err(IndexProblem::Order));
    }

    #[test]
    fn truncation_forgets_what_was_cut_off() {
        let mut index = index();
        index.truncate(Offset(129));
        assert_eq!(index.lookup(Millis(5000)), Offset(110));
    }
}
