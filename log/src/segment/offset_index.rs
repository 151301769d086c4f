//! The offset index: sparse pairs of offset and file position, big endian, eight bytes each.

use super::IndexProblem;
use crate::units::Offset;

/// Bytes of one entry in the file.
const ENTRY_BYTES: usize = 8;

/// One entry: the last offset of a batch, less the segment's base, and where that batch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetEntry {
    pub relative_offset: u32,
    pub position: u32,
}

/// The offset index of one segment, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetIndex {
    base: Offset,
    entries: Vec<OffsetEntry>,
}

impl OffsetIndex {
    #[must_use]
    pub fn new(base: Offset) -> OffsetIndex {
        OffsetIndex { base, entries: Vec::new() }
    }

    /// Adds the batch that starts at `position` and ends with `last_offset`. An offset or position that does not fit
    /// or does not rise is left out: the index is sparse anyway.
    pub fn append(&mut self, last_offset: Offset, position: u64) {
        let relative_offset = u32::try_from(last_offset.0.saturating_sub(self.base.0));
        let (Ok(relative_offset), Ok(position)) = (relative_offset, u32::try_from(position)) else {
            return;
        };
        let entry = OffsetEntry { relative_offset, position };
        if self.entries.last().is_none_or(|last| last.relative_offset < relative_offset && last.position < position) {
            self.entries.push(entry);
        }
    }

    /// The entry of a batch at or before the one that holds `offset`, where to start looking for it; `None`: at the start.
    #[must_use]
    pub fn lookup(&self, offset: Offset) -> Option<OffsetEntry> {
        let after = self.entries.partition_point(|e| self.base.plus(i64::from(e.relative_offset)) <= offset);
        after.checked_sub(1).map(|i| self.entries[i])
    }

    /// Forgets all entries of batches that start at or behind `position` (truncation of the log file).
    pub fn truncate(&mut self, position: u64) {
        let keep = self.entries.partition_point(|e| u64::from(e.position) < position);
        self.entries.truncate(keep);
    }

    #[must_use]
    pub fn entries(&self) -> &[OffsetEntry] {
        &self.entries
    }

    /// The file's bytes from entry number `from` on, so that a file is extended by what is new.
    #[must_use]
    pub fn encode(&self, from: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.entries.len() - from.min(self.entries.len())) * ENTRY_BYTES);
        for entry in self.entries.iter().skip(from) {
            bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
            bytes.extend_from_slice(&entry.position.to_be_bytes());
        }
        bytes
    }

    /// Reads a file's bytes; `log_bytes` is the size of the log file it points into.
    ///
    /// # Errors
    /// What shows that the file does not belong to that log file.
    pub fn decode(base: Offset, bytes: &[u8], log_bytes: u64) -> Result<OffsetIndex, IndexProblem> {
        let (words, []) = bytes.as_chunks::<ENTRY_BYTES>() else { return Err(IndexProblem::Size) };
        let mut entries: Vec<OffsetEntry> = Vec::with_capacity(words.len());
        for &[a, b, c, d, e, f, g, h] in words {
            let entry = OffsetEntry {
                relative_offset: u32::from_be_bytes([a, b, c, d]),
                position: u32::from_be_bytes([e, f, g, h]),
            };
            if let Some(last) = entries.last()
                && (last.relative_offset >= entry.relative_offset || last.position >= entry.position)
            {
                return Err(IndexProblem::Order);
            }
            if u64::from(entry.position) >= log_bytes {
                return Err(IndexProblem::Position);
            }
            entries.push(entry);
        }
        Ok(OffsetIndex { base, entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::TimeIndex;
    use super::super::names::{FileKind, file_name, parse_file_name};
    use super::*;
    use crate::units::Millis;

    proptest! {
        #[test]
        fn index_files_of_any_bytes_are_refused_or_answer_any_question(
            entries in proptest::collection::vec((0u32..40, 0u32..40), 0..6),
            times in proptest::collection::vec((any::<i64>(), any::<u32>()), 0..3),
            torn in proptest::collection::vec(any::<u8>(), 0..3),
            base in prop_oneof![0i64..100, i64::MAX - (1 << 33)..=i64::MAX],
            asked in prop_oneof![any::<i64>(), 0i64..100],
        ) {
            // What a name on the disk can say, as the files are only read if it is one.
            let Some((base, _)) = parse_file_name(&file_name(Offset(base), FileKind::Log)) else { return Ok(()) };
            let bytes = |mut bytes: Vec<u8>| { bytes.extend(&torn); bytes };
            let offsets = bytes(entries.iter().flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect());
            if let Ok(mut index) = OffsetIndex::decode(base, &offsets, 40) {
                prop_assert!(index.lookup(Offset(asked)).is_none_or(|entry| entry.position < 40));
                index.append(Offset(asked), 40);
                index.truncate(asked.unsigned_abs());
            }
            let times = bytes(times.iter().flat_map(|(a, b)| [&a.to_be_bytes()[..], &b.to_be_bytes()].concat()).collect());
            if let Ok(mut index) = TimeIndex::decode(base, &times) {
                prop_assert!(index.lookup(Millis(asked)) >= base);
                index.append(Millis(asked), Offset(asked));
                index.truncate(Offset(asked));
            }
        }
    }

    fn index() -> OffsetIndex {
        let mut index = OffsetIndex::new(Offset(100));
        index.append(Offset(109), 5000);
        index.append(Offset(119), 10_000);
        index
    }

    #[test]
    fn lookup_starts_at_or_before_the_batch_asked_for() {
        for (offset, position) in [(100, 0), (108, 0), (109, 5000), (118, 5000), (119, 10_000), (500, 10_000)] {
            assert_eq!(index().lookup(Offset(offset)).map_or(0, |entry| entry.position), position, "{offset}");
        }
    }

    #[test]
    fn the_file_holds_big_endian_pairs_and_comes_back() {
        let bytes = index().encode(0);
        assert_eq!(bytes[..8], [0, 0, 0, 9, 0, 0, 0x13, 0x88]);
        assert_eq!(OffsetIndex::decode(Offset(100), &bytes, 20_000), Ok(index()));
        assert_eq!(index().encode(1), bytes[8..]);
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let bytes = index().encode(0);
        let swapped: Vec<u8> = [&bytes[8..], &bytes[..8]].concat();
        assert_eq!(OffsetIndex::decode(Offset(100), &bytes[..9], 20_000), Err(IndexProblem::Size));
        assert_eq!(OffsetIndex::decode(Offset(100), &swapped, 20_000), Err(IndexProblem::Order));
        assert_eq!(OffsetIndex::decode(Offset(100), &bytes, 10_000), Err(IndexProblem::Position));
    }

    #[test]
    fn truncation_forgets_what_was_cut_off() {
        let mut index = index();
        index.truncate(10_000);
        assert_eq!(index.lookup(Offset(500)).map(|entry| entry.position), Some(5000));
    }
}
