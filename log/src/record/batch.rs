//! The 61 bytes in front of every record batch: parsed, checked and patched in place.

use bytes::Bytes;

use super::Compression;
use crate::limits::{BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, MAX_BATCH_BYTES};
use crate::units::{Epoch, Millis, Offset};

/// Where the fields stand in the header.
mod at {
    pub(super) const BASE_OFFSET: usize = 0;
    pub(super) const LENGTH: usize = 8;
    pub(super) const LEADER_EPOCH: usize = 12;
    pub(super) const MAGIC: usize = 16;
    pub(super) const CRC: usize = 17;
    pub(super) const ATTRIBUTES: usize = 21;
    pub(super) const LAST_OFFSET_DELTA: usize = 23;
    pub(super) const BASE_TIMESTAMP: usize = 27;
    pub(super) const MAX_TIMESTAMP: usize = 35;
    pub(super) const PRODUCER_ID: usize = 43;
    pub(super) const PRODUCER_EPOCH: usize = 51;
    pub(super) const BASE_SEQUENCE: usize = 53;
    pub(super) const RECORD_COUNT: usize = 57;
}

/// Bits 0 to 2 of the attributes: the codec.
const CODEC_BITS: i16 = 0x07;
/// Bit 3: timestamps are the broker's (`message.timestamp.type=LogAppendTime`).
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
/// Bit 6: the base timestamp is when tombstones in the batch may go (KIP-534).
const DELETE_HORIZON_BIT: i16 = 0x40;

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
    /// Parses the header at the start of `bytes`; checks magic, length and that the offsets are countable, not the
    /// checksum, nor that the rest of the batch is there.
    ///
    /// # Errors
    /// [`BatchProblem::Incomplete`] below 61 bytes, otherwise what is out of range.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchProblem> {
        let magic = i8::from_be_bytes(field(bytes, at::MAGIC)?);
        if magic != 2 {
            return Err(BatchProblem::Magic(magic));
        }
        let length = i32::from_be_bytes(field(bytes, at::LENGTH)?);
        let size = match usize::try_from(length) {
            Ok(rest) if (BATCH_HEADER_BYTES..=MAX_BATCH_BYTES).contains(&(rest + BATCH_PREFIX_BYTES)) => {
                rest + BATCH_PREFIX_BYTES
            }
            _ => return Err(BatchProblem::Length(length)),
        };
        let header = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field(bytes, at::BASE_OFFSET)?)),
            size,
            leader_epoch: Epoch(i32::from_be_bytes(field(bytes, at::LEADER_EPOCH)?)),
            crc: u32::from_be_bytes(field(bytes, at::CRC)?),
            attributes: i16::from_be_bytes(field(bytes, at::ATTRIBUTES)?),
            last_offset_delta: i32::from_be_bytes(field(bytes, at::LAST_OFFSET_DELTA)?),
            base_timestamp: Millis(i64::from_be_bytes(field(bytes, at::BASE_TIMESTAMP)?)),
            max_timestamp: Millis(i64::from_be_bytes(field(bytes, at::MAX_TIMESTAMP)?)),
            producer_id: i64::from_be_bytes(field(bytes, at::PRODUCER_ID)?),
            producer_epoch: i16::from_be_bytes(field(bytes, at::PRODUCER_EPOCH)?),
            base_sequence: i32::from_be_bytes(field(bytes, at::BASE_SEQUENCE)?),
            record_count: i32::from_be_bytes(field(bytes, at::RECORD_COUNT)?),
        };
        if header.record_count < 0 || header.last_offset_delta < 0 {
            return Err(BatchProblem::Malformed("negative record count or last offset delta"));
        }
        if header.base_offset.0.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
            return Err(BatchProblem::Malformed("offsets overflow"));
        }
        Ok(header)
    }

    /// Checks the CRC-32C of the whole batch in `batch` (exactly `self.size` bytes).
    ///
    /// # Errors
    /// [`BatchProblem::Incomplete`] when `batch` has another size, [`BatchProblem::Checksum`].
    pub fn check_crc(&self, batch: &[u8]) -> Result<(), BatchProblem> {
        if batch.len() != self.size || batch.len() < BATCH_HEADER_BYTES {
            return Err(BatchProblem::Incomplete);
        }
        if crc32c::crc32c(&batch[at::ATTRIBUTES..]) == self.crc { Ok(()) } else { Err(BatchProblem::Checksum) }
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }
    /// # Errors
    /// An unassigned codec number.
    pub fn compression(&self) -> Result<Compression, BatchProblem> {
        Compression::from_id(self.attributes & CODEC_BITS)
    }
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }
    /// Whether all records have the time of their append, `max_timestamp`.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// When tombstones in the batch may go, once compaction has settled that (KIP-534).
    pub fn delete_horizon(&self) -> Option<Millis> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// All records have the time of their append from now on.
    pub(super) fn mark_append_time(&mut self, time: Millis) {
        self.attributes |= LOG_APPEND_TIME_BIT;
        self.max_timestamp = time;
    }

    /// A producer's batch with the time of its append: its header as it is now, and its bytes, of which only the header is new.
    pub(crate) fn stamped(mut self, batch: &Bytes, time: Millis) -> (BatchHeader, [Bytes; 2]) {
        self.mark_append_time(time);
        let mut front = batch[..BATCH_HEADER_BYTES].to_vec();
        put(&mut front, at::ATTRIBUTES, &self.attributes.to_be_bytes());
        put(&mut front, at::MAX_TIMESTAMP, &time.0.to_be_bytes());
        let records = batch.slice(BATCH_HEADER_BYTES..);
        self.crc = crc32c::crc32c_append(crc32c::crc32c(&front[at::ATTRIBUTES..]), &records);
        put(&mut front, at::CRC, &self.crc.to_be_bytes());
        BatchHeader::patch(&mut front, self.base_offset, self.leader_epoch);
        (self, [front.into(), records])
    }

    pub(super) fn mark_delete_horizon(&mut self) {
        self.attributes |= DELETE_HORIZON_BIT;
    }
    pub(super) fn set_compression(&mut self, codec: Compression) {
        self.attributes = (self.attributes & !CODEC_BITS) | codec.id();
    }
    /// Of a batch without records: neither a codec nor a horizon nor whose clock.
    pub(super) fn clear_attributes(&mut self) {
        self.attributes &= TRANSACTIONAL_BIT | CONTROL_BIT;
    }

    /// Writes base offset and leader epoch into a stored batch; the checksum does not cover them. Does nothing to
    /// fewer bytes than a header has.
    pub fn patch(batch: &mut [u8], base_offset: Offset, epoch: Epoch) {
        if batch.len() >= BATCH_HEADER_BYTES {
            put(batch, at::BASE_OFFSET, &base_offset.0.to_be_bytes());
            put(batch, at::LEADER_EPOCH, &epoch.0.to_be_bytes());
        }
    }

    /// Writes all fields but size and checksum, which come from the bytes themselves: `batch` is whole, its first 61
    /// bytes are overwritten.
    pub(crate) fn write(&self, batch: &mut [u8]) {
        let length = i32::try_from(batch.len() - BATCH_PREFIX_BYTES).unwrap_or(i32::MAX);
        put(batch, at::LENGTH, &length.to_be_bytes());
        put(batch, at::MAGIC, &[2]);
        put(batch, at::ATTRIBUTES, &self.attributes.to_be_bytes());
        put(batch, at::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(batch, at::BASE_TIMESTAMP, &self.base_timestamp.0.to_be_bytes());
        put(batch, at::MAX_TIMESTAMP, &self.max_timestamp.0.to_be_bytes());
        put(batch, at::PRODUCER_ID, &self.producer_id.to_be_bytes());
        put(batch, at::PRODUCER_EPOCH, &self.producer_epoch.to_be_bytes());
        put(batch, at::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(batch, at::RECORD_COUNT, &self.record_count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[at::ATTRIBUTES..]);
        put(batch, at::CRC, &crc.to_be_bytes());
        BatchHeader::patch(batch, self.base_offset, self.leader_epoch);
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BatchProblem> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(BatchProblem::Incomplete)
}

fn put(batch: &mut [u8], at: usize, value: &[u8]) {
    batch[at..at + value.len()].copy_from_slice(value);
}

/// Walks the batches in a buffer: each item is a header and its whole batch, sharing the buffer.
/// Stops at the first problem (yielded once). The checksum is not checked here.
pub struct Batches {
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
        if self.rest.is_empty() {
            return None;
        }
        let header = BatchHeader::parse(&self.rest)
            .and_then(|header| if self.rest.len() < header.size { Err(BatchProblem::Incomplete) } else { Ok(header) });
        Some(match header {
            Ok(header) => Ok((header, self.rest.split_to(header.size))),
            Err(problem) => {
                self.rest.clear();
                Err(problem)
            }
        })
    }
}
