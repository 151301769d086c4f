//! One segment as one Parquet object: written from record batches, read back as record batches.
//!
//! The object describes itself: the topic's [`Shape`](crate::shape::Shape) at the time of writing stands in the footer, so a
//! cold read needs nothing but the manifest entry and the object.

mod cache;
mod fetch;
mod footer;
mod read;
mod segment;
mod stats;
mod write;

pub use read::{ColdReader, ObjectCheck};
pub use segment::{SegmentSource, SourceError, Stretch};
pub use write::{Job, Written, copy_segment, infer_segment, write_segment};

/// Bytes of keys, payloads and headers in one row group: what a writer holds and what a cold read fetches at once.
pub const ROW_GROUP_BYTES: usize = 16 << 20;
/// Most records in one row group.
pub const ROW_GROUP_ROWS: usize = 65_536;
/// Bytes of records that are shaped together.
pub const SHAPE_BYTES: usize = 2 << 20;
/// Values, nulls included, of records that are shaped together.
pub const SHAPE_CELLS: usize = 1 << 20;
/// Values, nulls included, in one row group.
pub const ROW_GROUP_CELLS: usize = 8 << 20;
/// Bytes of one part of an upload.
pub const UPLOAD_PART_BYTES: usize = 8 << 20;
/// Raw bytes of records in one record batch of a cold read.
pub const COLD_BATCH_BYTES: usize = 128 << 10;
/// Bytes of decoded row groups kept for consumers that read on.
pub const CACHE_BYTES: usize = 64 << 20;
/// Footers kept.
pub const CACHE_FOOTERS: usize = 256;
/// Row groups decoded at the same time in one node.
pub const CONCURRENT_DECODES: usize = 2;

const _: () = assert!(SHAPE_BYTES <= ROW_GROUP_BYTES);
const _: () = assert!(SHAPE_CELLS <= ROW_GROUP_CELLS);
const _: () = assert!(ROW_GROUP_BYTES * 2 <= CACHE_BYTES);

/// Why an object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    #[error("{path}: {what}")]
    Format { path: String, what: String },
    #[error("local log: {0}")]
    Source(#[from] SourceError),
}

impl ObjectError {
    fn format(path: &object_store::path::Path, what: impl ToString) -> ObjectError {
        ObjectError::Format { path: path.to_string(), what: what.to_string() }
    }
}

#[cfg(test)]
mod tests;
