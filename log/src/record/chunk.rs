//! Records on their way into a batch: encoded once, so that the batch builder only copies.

use super::varint;
use crate::limits::RECORD_PREFIX_BYTES;
use crate::units::Millis;

/// A run of records for one partition, appended all or none and given consecutive offsets.
///
/// The bodies (key, value, headers) are already in the v2 encoding; only the deltas, which depend on the
/// batch, are missing. One buffer for all: no allocation per record.
#[derive(Debug, Default)]
pub struct RecordChunk {
    bodies: Vec<u8>,
    /// Timestamp and body length of each record.
    records: Vec<(Millis, usize)>,
    /// Whether a record has no key.
    keyless: bool,
}

impl RecordChunk {
    pub fn new() -> RecordChunk {
        RecordChunk::default()
    }

    /// A chunk with room for `records` whose bodies take `bytes` together.
    pub fn with_capacity(records: usize, bytes: usize) -> RecordChunk {
        RecordChunk { bodies: Vec::with_capacity(bytes), records: Vec::with_capacity(records), keyless: false }
    }

    /// Adds a record. `headers` are name and value pairs, in order; duplicates are kept.
    pub fn push(&mut self, timestamp: Millis, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        let before = self.bodies.len();
        self.keyless |= key.is_none();
        put_body(&mut self.bodies, key, value, headers.iter().map(|(name, value)| (name.as_bytes(), Some(*value))));
        self.records.push((timestamp, self.bodies.len() - before));
    }

    /// Records in the chunk.
    pub fn len(&self) -> usize {
        self.records.len()
    }
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
    /// Whether every record has a key.
    pub fn is_keyed(&self) -> bool {
        !self.keyless
    }
    /// The most that the records take in a batch before compression, in bytes: for admission and batch limits.
    pub fn bytes(&self) -> usize {
        self.bodies.len() + self.records.len() * RECORD_PREFIX_BYTES
    }

    /// Timestamp and encoded body of each record, in order.
    pub(super) fn bodies(&self) -> impl Iterator<Item = (Millis, &[u8])> {
        let mut at = 0;
        self.records.iter().map(move |&(timestamp, length)| {
            let body = &self.bodies[at..at + length];
            at += length;
            (timestamp, body)
        })
    }
}

/// Encodes what follows the offset delta of a record: key, value and headers.
pub(super) fn put_body<'a>(
    buffer: &mut Vec<u8>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) {
    buffer.reserve(key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + 16);
    put_bytes(buffer, key);
    put_bytes(buffer, value);
    varint::put(buffer, i64::try_from(headers.len()).unwrap_or(i64::MAX));
    for (name, value) in headers {
        put_bytes(buffer, Some(name));
        put_bytes(buffer, value);
    }
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::put(buffer, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            buffer.extend_from_slice(bytes);
        }
        None => varint::put(buffer, -1),
    }
}
