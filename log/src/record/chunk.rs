//! Records on their way into a batch: encoded once, so that the batch builder only copies.

use super::varint;
use crate::limits::RECORD_PREFIX_BYTES;
use crate::units::Millis;

/// Bytes of a record in the first part of a chunk for another node: timestamp and body length.
const HEAD_BYTES: usize = 12;

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

    /// The chunk as bytes for another node: what [`RecordChunk::from_parts`] takes. The first part is small.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        let mut head = Vec::with_capacity(1 + self.records.len() * HEAD_BYTES);
        head.push(u8::from(self.keyless));
        for (timestamp, length) in &self.records {
            head.extend_from_slice(&timestamp.0.to_be_bytes());
            head.extend_from_slice(&u32::try_from(*length).unwrap_or(u32::MAX).to_be_bytes());
        }
        (head, self.bodies)
    }

    /// `None` when the parts do not belong together.
    #[must_use]
    pub fn from_parts(head: &[u8], bodies: Vec<u8>) -> Option<RecordChunk> {
        let (&keyless, rest) = head.split_first()?;
        let mut records = Vec::with_capacity(rest.len() / HEAD_BYTES);
        let mut total = 0usize;
        let (entries, left) = rest.as_chunks::<HEAD_BYTES>();
        for entry in entries {
            let timestamp = i64::from_be_bytes(*entry.first_chunk()?);
            let length = u32::from_be_bytes(*entry.last_chunk()?) as usize;
            total = total.checked_add(length)?;
            records.push((Millis(timestamp), length));
        }
        (keyless <= 1 && left.is_empty() && total == bodies.len()).then_some(RecordChunk {
            bodies,
            records,
            keyless: keyless == 1,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_goes_to_another_node_and_nothing_else_is_taken_for_one() {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(5), Some(b"k"), Some(b"v"), &[("h", b"1")]);
        chunk.push(Millis(-7), None, None, &[]);
        let expected: Vec<(Millis, Vec<u8>)> = chunk.bodies().map(|(at, body)| (at, body.to_vec())).collect();
        let (head, bodies) = chunk.into_parts();
        let again = RecordChunk::from_parts(&head, bodies.clone()).unwrap();
        assert_eq!(again.bodies().map(|(at, body)| (at, body.to_vec())).collect::<Vec<_>>(), expected);
        assert!(!again.is_keyed());
        for (head, bodies) in [(&head[..0], &bodies[..]), (&head[..5], &bodies), (&head, &bodies[1..]), (&[2], &[])] {
            assert!(RecordChunk::from_parts(head, bodies.to_vec()).is_none());
        }
    }
}
