//! Reads the records of one batch, borrowing from its (decompressed) bytes.

use bytes::Bytes;

use super::{BatchHeader, BatchProblem};
use crate::units::{Millis, Offset};

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
    #[allow(dead_code)]
    header: BatchHeader,
    #[allow(dead_code)]
    rest: Bytes,
}

impl RecordReader {
    /// Decompresses (bounded) and prepares to iterate. `batch` is the whole batch.
    pub fn new(header: &BatchHeader, batch: &Bytes) -> Result<RecordReader, BatchProblem> {
        let _ = (header, batch);
        todo!()
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record, BatchProblem>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
