//! A segment on disk: names, offset index, time index, and the scan that recovers a torn one.
//!
//! All in Kafka's own format, so that `kafka-dump-log` reads it.

mod indexes;
mod names;
mod offset_index;
mod scan;
mod time_index;

pub use indexes::Indexes;
pub use names::{FileKind, file_name, parse_file_name};
pub use offset_index::{OffsetEntry, OffsetIndex};
pub use scan::{BadRange, GoodRange, Scan, ScanProblem, scan};
pub use time_index::{TimeEntry, TimeIndex};

/// What is wrong with the bytes of an index file; the remedy is to rebuild it by [`scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexProblem {
    #[error("size is no multiple of the entry size")]
    Size,
    #[error("entries are out of order")]
    Order,
    #[error("an entry points behind the end of the log file")]
    Position,
}
