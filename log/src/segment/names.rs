//! Names of a segment's files: the base offset in twenty digits, then what the file holds.

use crate::units::Offset;

/// Digits that hold any offset, so that names sort as offsets do.
const DIGITS: usize = 20;

/// The files of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// `.log`: record batches
    Log,
    /// `.index`: offset to position
    Index,
    /// `.timeindex`: timestamp to offset
    TimeIndex,
}

impl FileKind {
    fn extension(self) -> &'static str {
        match self {
            FileKind::Log => "log",
            FileKind::Index => "index",
            FileKind::TimeIndex => "timeindex",
        }
    }
}

/// The name of a file of the segment that starts at `base`, such as `00000000000000000042.log`.
#[must_use]
pub fn file_name(base: Offset, kind: FileKind) -> String {
    format!("{:0DIGITS$}.{}", base.0, kind.extension())
}

/// Reads what [`file_name`] wrote; `None` for any other name.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(Offset, FileKind)> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() != DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kind =
        [FileKind::Log, FileKind::Index, FileKind::TimeIndex].into_iter().find(|k| k.extension() == extension)?;
    let base: i64 = digits.parse().ok()?;
    // Indexes count from the base in 32 bits: no segment of ours starts where that would pass the last offset.
    base.checked_add(i64::from(u32::MAX) + 1)?;
    Some((Offset(base), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_come_back() {
        assert_eq!(file_name(Offset(42), FileKind::Log), "00000000000000000042.log");
        for kind in [FileKind::Log, FileKind::Index, FileKind::TimeIndex] {
            let base = Offset(i64::MAX - (1 << 32));
            assert_eq!(parse_file_name(&file_name(base, kind)), Some((base, kind)));
        }
    }

    #[test]
    fn foreign_files_are_not_taken_for_segments() {
        for name in
            ["1.log", "00000000000000000042.log.deleted", "00000000000000000042.tmp", "99999999999999999999.log", "x"]
        {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_whose_offsets_would_overflow_is_no_segments() {
        assert_eq!(parse_file_name("09223372036854775807.log"), None);
    }
}
