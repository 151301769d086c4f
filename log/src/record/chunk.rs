//! Records on their way into a batch: encoded once, so that the batch builder only copies.

use bytes::BytesMut;

use crate::units::Millis;

/// A run of records for one partition, appended all or none and given consecutive offsets.
///
/// The bodies (key, value, headers) are already in the v2 encoding; only the deltas, which depend on the
/// batch, are missing. One buffer for all: no allocation per record.
#[derive(Debug, Default)]
pub struct RecordChunk {
    #[allow(dead_code)]
    bodies: BytesMut,
    #[allow(dead_code)]
    records: Vec<(Millis, u32)>,
}

impl RecordChunk {
    pub fn new() -> RecordChunk {
        RecordChunk::default()
    }

    /// Adds a record. `headers` are name and value pairs, in order; duplicates are kept.
    pub fn push(&mut self, timestamp: Millis, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        let _ = (timestamp, key, value, headers);
        todo!()
    }
    /// Records in the chunk.
    pub fn len(&self) -> usize {
        self.records.len()
    }
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
    /// Encoded bytes, for admission and batch limits.
    pub fn bytes(&self) -> usize {
        self.bodies.len()
    }
}
