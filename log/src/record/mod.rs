//! Records as Kafka stores them: v2 record batches, read in place and built from gathered records.
//!
//! Source: Kafka's "Record Batch" message format, magic 2 (KIP-98).

mod batch;
mod builder;
mod chunk;
mod compression;
mod reader;
mod retain;
mod validate;
mod varint;

pub use batch::{BatchHeader, BatchProblem, Batches};
pub use builder::BatchBuilder;
pub use chunk::RecordChunk;
pub use compression::Compression;
pub use reader::{Headers, Record, RecordHeader, RecordReader, RecordRef};
pub use retain::{Retained, empty_batch, recompress, retain};
pub use validate::{NO_KEY, validate, validate_records};

#[cfg(test)]
mod tests;
