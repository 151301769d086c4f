//! The 61 bytes in front of every record batch: parsed, checked and patched in place.

use bytes::Bytes;

use super::Compression;
use crate::units::{Epoch, Millis, Offset};

/// What is wrong with bytes that should be a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchProblem {
    /// Fewer bytes than the header or the length field asks for: a torn tail, or more to come.
    #[error("incomplete batch")]
    Incomplete,
    #[error("batch length {0} is out of range")]
    Length(i32),
    #[error("magic {0} is not supported (2 is)")]
    Magic(i8),
    #[error("checksum mismatch")]
    Checksum,
    #[error("{0}")]
    Malformed(&'static str),
}

/// The header of a v2 record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Whole size in bytes, the 12 bytes of base offset and length included.
    pub size: usize,
    pub leader_epoch: Epoch,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: Millis,
    pub max_timestamp: Millis,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`; checks magic and length, not the checksum.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchProblem> {
        let _ = bytes;
        todo!()
    }

    /// Checks the CRC-32C of the whole batch in `batch` (exactly `self.size` bytes).
    pub fn check_crc(&self, batch: &[u8]) -> Result<(), BatchProblem> {
        let _ = batch;
        todo!()
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }
    pub fn compression(&self) -> Result<Compression, BatchProblem> {
        todo!()
    }
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }
    /// Writes base offset and leader epoch into a stored batch; the checksum does not cover them.
    pub fn patch(batch: &mut [u8], base_offset: Offset, epoch: Epoch) {
        let _ = (batch, base_offset, epoch);
        todo!()
    }
}

/// Walks the batches in a buffer: each item is a header and its whole batch, sharing the buffer.
/// Stops at the first problem (yielded once). The checksum is not checked here.
pub struct Batches {
    #[allow(dead_code)]
    rest: Bytes,
}

impl Batches {
    pub fn new(buffer: Bytes) -> Batches {
        Batches { rest: buffer }
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchProblem>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
