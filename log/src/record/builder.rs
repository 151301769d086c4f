//! Builds one v2 batch from gathered chunks or from single records, compressed once.

use bytes::Bytes;

use super::chunk::put_body;
use super::{BatchHeader, Compression, RecordChunk, varint};
use crate::limits::BATCH_HEADER_BYTES;
use crate::units::{Epoch, Millis, Offset};

/// Gathers records for one batch.
pub struct BatchBuilder {
    compression: Compression,
    /// Room for the header, then the encoded records: an uncompressed batch is finished in place.
    raw: Vec<u8>,
    /// Reused for the body of a single record, whose length stands before it.
    body: Vec<u8>,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: Millis,
    max_timestamp: Millis,
    /// All records have this timestamp, whatever they came with.
    append_time: Option<Millis>,
}

impl BatchBuilder {
    pub fn new(compression: Compression) -> BatchBuilder {
        BatchBuilder {
            compression,
            raw: vec![0; BATCH_HEADER_BYTES],
            body: Vec::new(),
            count: 0,
            last_offset_delta: -1,
            base_timestamp: Millis::default(),
            max_timestamp: Millis(i64::MIN),
            append_time: None,
        }
    }

    /// Adds all records of a chunk; returns the index of its first record in the batch.
    pub fn push_chunk(&mut self, chunk: &RecordChunk) -> usize {
        let first = self.len();
        self.raw.reserve(chunk.bytes());
        for (timestamp, body) in chunk.bodies() {
            self.put_record(self.last_offset_delta + 1, timestamp, body);
        }
        first
    }

    /// Adds one record at an explicit distance from the base offset (cold reads keep gaps). Deltas must rise.
    pub fn push(
        &mut self,
        offset_delta: i32,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        debug_assert!(offset_delta > self.last_offset_delta, "offset deltas rise");
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        put_body(&mut body, key, value, headers.iter().copied());
        self.put_record(offset_delta, timestamp, &body);
        self.body = body;
    }

    fn put_record(&mut self, offset_delta: i32, timestamp: Millis, body: &[u8]) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        // Wrapping, as the reader adds wrapping: any two timestamps survive.
        let timestamp_delta = timestamp.0.wrapping_sub(self.base_timestamp.0);
        let length = 1 + varint::size(timestamp_delta) + varint::size(i64::from(offset_delta)) + body.len();
        varint::put(&mut self.raw, i64::try_from(length).unwrap_or(i64::MAX));
        self.raw.push(0);
        varint::put(&mut self.raw, timestamp_delta);
        varint::put(&mut self.raw, i64::from(offset_delta));
        self.raw.extend_from_slice(body);
        self.count += 1;
        self.last_offset_delta = offset_delta;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Gives all records the time of their append (`message.timestamp.type=LogAppendTime`).
    pub fn stamp(&mut self, time: Millis) {
        self.append_time = Some(time);
    }

    /// Records gathered so far.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or_default()
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Raw bytes gathered so far.
    pub fn bytes(&self) -> usize {
        self.raw.len() - BATCH_HEADER_BYTES
    }

    /// The finished batch with the offset and epoch written in; `None` when nothing was gathered.
    pub fn build(self, base_offset: Offset, epoch: Epoch) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        let packed = self.compression.compress_behind(BATCH_HEADER_BYTES, &self.raw[BATCH_HEADER_BYTES..]);
        // A codec that fails or does not help is left out: the attributes say so.
        let (compression, mut batch) = match packed {
            Some(packed) if packed.len() < self.raw.len() => (self.compression, packed),
            _ => (Compression::None, self.raw),
        };
        let mut header = BatchHeader {
            base_offset,
            size: batch.len(),
            leader_epoch: epoch,
            crc: 0,
            attributes: compression.id(),
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: self.count,
        };
        if let Some(time) = self.append_time {
            header.mark_append_time(time);
        }
        header.write(&mut batch);
        Some(Bytes::from(batch))
    }
}
