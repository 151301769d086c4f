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

/// One record, borrowed from the batch's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    pub offset: Offset,
    pub timestamp: Millis,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// The headers of a record, read as they are asked for: name and value, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    /// Whole headers, walked once already.
    fields: Fields<'a>,
    left: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.fields.bytes().ok()??, self.fields.bytes().ok()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Reads the fields of a record from front to back.
#[derive(Debug, Clone, Copy, Default)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BatchProblem> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(taken)
    }

    fn integer(&mut self) -> Result<i64, BatchProblem> {
        let (value, taken) = varint::get(self.rest).ok_or(CUT_OFF)?;
        self.rest = &self.rest[taken..];
        Ok(value)
    }

    /// A length or count; -1 is `None`.
    fn length(&mut self) -> Result<Option<usize>, BatchProblem> {
        match self.integer()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| NEGATIVE),
        }
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>, BatchProblem> {
        self.length()?.map(|length| self.take(length)).transpose()
    }

    /// Walks all headers; nothing may follow them.
    fn headers(&mut self) -> Result<Headers<'a>, BatchProblem> {
        let count = self.length()?.ok_or(NEGATIVE)?;
        if count > MAX_HEADERS || count > self.rest.len() / 2 {
            return Err(BatchProblem::Malformed("too many headers"));
        }
        let headers = Headers { fields: *self, left: count };
        for _ in 0..count {
            self.bytes()?.ok_or(NEGATIVE)?;
            self.bytes()?;
        }
        Ok(headers)
    }
}

/// Iterates over the records of a batch; a malformed record ends the iteration with an error.
pub struct RecordReader {
    header: BatchHeader,
    raw: Bytes,
    place: Place,
}

/// How far a reader is.
struct Place {
    at: usize,
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
        let raw = header.compression()?.decompress(&packed, MAX_DECOMPRESSED_BYTES)?;
        let left = usize::try_from(header.record_count).map_err(|_| NEGATIVE)?;
        if left > raw.len() / MIN_RECORD_BYTES {
            return Err(BatchProblem::Malformed("more records claimed than fit"));
        }
        Ok(RecordReader { header: *header, raw, place: Place { at: 0, left, last_delta: -1 } })
    }

    /// The next record, not copied; as the iterator's otherwise.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, BatchProblem>> {
        self.place.next(&self.header, &self.raw)
    }
}

impl Place {
    fn next<'a>(&mut self, header: &BatchHeader, raw: &'a [u8]) -> Option<Result<RecordRef<'a>, BatchProblem>> {
        if self.left == 0 {
            if self.at == raw.len() {
                return None;
            }
            self.at = raw.len();
            return Some(Err(BatchProblem::Malformed("bytes after the last record")));
        }
        self.left -= 1;
        let record = self.read(header, raw);
        if record.is_err() {
            (self.left, self.at) = (0, raw.len());
        }
        Some(record)
    }

    fn read<'a>(&mut self, header: &BatchHeader, raw: &'a [u8]) -> Result<RecordRef<'a>, BatchProblem> {
        let mut rest = Fields { rest: &raw[self.at..] };
        let length = rest.length()?.ok_or(NEGATIVE)?;
        let mut fields = Fields { rest: rest.take(length)? };
        self.at = raw.len() - rest.rest.len();
        let _attributes = fields.take(1)?;
        let timestamp_delta = fields.integer()?;
        let offset_delta = fields.integer()?;
        if offset_delta <= self.last_delta || offset_delta > i64::from(header.last_offset_delta) {
            return Err(BatchProblem::Malformed("offset delta is out of order"));
        }
        self.last_delta = offset_delta;
        let timestamp = if header.is_log_append_time() {
            header.max_timestamp
        } else {
            Millis(header.base_timestamp.0.wrapping_add(timestamp_delta))
        };
        let (key, value) = (fields.bytes()?, fields.bytes()?);
        let headers = fields.headers()?;
        if !fields.rest.is_empty() {
            return Err(BatchProblem::Malformed("record is longer than its fields"));
        }
        Ok(RecordRef { offset: header.base_offset.plus(offset_delta), timestamp, key, value, headers })
    }
}

const CUT_OFF: BatchProblem = BatchProblem::Malformed("record is cut off");
const NEGATIVE: BatchProblem = BatchProblem::Malformed("negative length");

impl Iterator for RecordReader {
    type Item = Result<Record, BatchProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        let raw = &self.raw;
        let owned = |bytes: &[u8]| raw.slice_ref(bytes);
        let record = self.place.next(&self.header, raw)?;
        Some(record.map(|RecordRef { offset, timestamp, key, value, headers }| Record {
            offset,
            timestamp,
            key: key.map(owned),
            value: value.map(owned),
            headers: headers.map(|(name, value)| RecordHeader { name: owned(name), value: value.map(owned) }).collect(),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.place.left + 1))
    }
}
