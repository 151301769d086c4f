//! Reads the records of one batch, borrowing from its (decompressed) bytes.

use bytes::Bytes;

use super::{BatchHeader, BatchProblem, varint};
use crate::limits::{BATCH_HEADER_BYTES, MAX_DECOMPRESSED_BYTES, MAX_HEADERS};
use crate::units::{Millis, Offset};

/// The smallest record: length, attributes, two deltas, key and value lengths, header count, one byte each.
const MIN_RECORD_BYTES: usize = 7;

/// One record; byte fields share the batch's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: Millis,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// One header of a record; names may repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    pub name: Bytes,
    pub value: Option<Bytes>,
}

impl Record {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|h| h.name == name.as_bytes()).and_then(|h| h.value.as_ref())
    }
}

/// Iterates over the records of a batch; a malformed record ends the iteration with an error.
pub struct RecordReader {
    header: BatchHeader,
    rest: Bytes,
    left: usize,
    last_delta: i64,
}

impl RecordReader {
    /// Decompresses (bounded) and prepares to iterate. `batch` is the whole batch; its checksum is the caller's matter.
    ///
    /// # Errors
    /// Data that does not decompress, and a record count that cannot be true.
    pub fn new(header: &BatchHeader, batch: &Bytes) -> Result<RecordReader, BatchProblem> {
        if batch.len() < header.size || header.size < BATCH_HEADER_BYTES {
            return Err(BatchProblem::Incomplete);
        }
        let packed = batch.slice(BATCH_HEADER_BYTES..header.size);
        let rest = header.compression()?.decompress(&packed, MAX_DECOMPRESSED_BYTES)?;
        let left = usize::try_from(header.record_count).map_err(|_| NEGATIVE)?;
        if left > rest.len() / MIN_RECORD_BYTES {
            return Err(BatchProblem::Malformed("more records claimed than fit"));
        }
        Ok(RecordReader { header: *header, rest, left, last_delta: -1 })
    }

    fn read(&mut self) -> Result<Record, BatchProblem> {
        let length = self.length()?.ok_or(NEGATIVE)?;
        if length > self.rest.len() {
            return Err(CUT_OFF);
        }
        let after = self.rest.split_off(length);
        let record = self.body()?;
        if !self.rest.is_empty() {
            return Err(BatchProblem::Malformed("record is longer than its fields"));
        }
        self.rest = after;
        Ok(record)
    }

    fn body(&mut self) -> Result<Record, BatchProblem> {
        if self.rest.is_empty() {
            return Err(CUT_OFF);
        }
        let _attributes = self.rest.split_to(1);
        let timestamp_delta = self.integer()?;
        let offset_delta = self.integer()?;
        if offset_delta <= self.last_delta || offset_delta > i64::from(self.header.last_offset_delta) {
            return Err(BatchProblem::Malformed("offset delta is out of order"));
        }
        self.last_delta = offset_delta;
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            Millis(self.header.base_timestamp.0.wrapping_add(timestamp_delta))
        };
        let key = self.bytes()?;
        let value = self.bytes()?;
        let count = self.length()?.ok_or(NEGATIVE)?;
        if count > MAX_HEADERS || count > self.rest.len() / 2 {
            return Err(BatchProblem::Malformed("too many headers"));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.bytes()?.ok_or(NEGATIVE)?;
            headers.push(RecordHeader { name, value: self.bytes()? });
        }
        Ok(Record { offset: self.header.base_offset.plus(offset_delta), timestamp, key, value, headers })
    }

    fn integer(&mut self) -> Result<i64, BatchProblem> {
        let (value, taken) = varint::get(&self.rest).ok_or(CUT_OFF)?;
        let _ = self.rest.split_to(taken);
        Ok(value)
    }

    /// A length or count; -1 is `None`.
    fn length(&mut self) -> Result<Option<usize>, BatchProblem> {
        match self.integer()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| NEGATIVE),
        }
    }

    fn bytes(&mut self) -> Result<Option<Bytes>, BatchProblem> {
        match self.length()? {
            None => Ok(None),
            Some(length) if length > self.rest.len() => Err(CUT_OFF),
            Some(length) => Ok(Some(self.rest.split_to(length))),
        }
    }
}

const CUT_OFF: BatchProblem = BatchProblem::Malformed("record is cut off");
const NEGATIVE: BatchProblem = BatchProblem::Malformed("negative length");

impl Iterator for RecordReader {
    type Item = Result<Record, BatchProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest.clear();
            return Some(Err(BatchProblem::Malformed("bytes after the last record")));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
            self.rest.clear();
        }
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left + 1))
    }
}
