//! A stored batch with fewer records: what compaction leaves of it. Offsets, timestamps and producer stay what they were.

use bytes::Bytes;

use super::chunk::put_body;
use super::{BatchHeader, BatchProblem, Compression, RecordReader, varint};
use crate::limits::{BATCH_HEADER_BYTES, MAX_BATCH_BYTES};
use crate::units::Millis;

/// A batch that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    Batch(Bytes),
    /// With other neighbours its records do not compress as they did, and are more than a batch may hold.
    TooLarge,
}

/// The batch with those of its records for which `keep` says so, in order. A `horizon` is written into it: the time at which
/// its tombstones may go (KIP-534).
///
/// # Errors
/// A batch that cannot be decoded.
pub fn retain(
    header: &BatchHeader,
    batch: &Bytes,
    keep: &[bool],
    horizon: Option<Millis>,
) -> Result<Retained, BatchProblem> {
    rewrite(header, batch, |n| keep.get(n) == Some(&true), horizon, header.compression()?)
}

/// The batch with all of its records, compressed by another codec.
///
/// # Errors
/// A batch that cannot be decoded.
pub fn recompress(header: &BatchHeader, batch: &Bytes, codec: Compression) -> Result<Retained, BatchProblem> {
    rewrite(header, batch, |_| true, None, codec)
}

fn rewrite(
    header: &BatchHeader,
    batch: &Bytes,
    keep: impl Fn(usize) -> bool,
    horizon: Option<Millis>,
    codec: Compression,
) -> Result<Retained, BatchProblem> {
    let mut header = *header;
    let mut raw = vec![0; BATCH_HEADER_BYTES];
    let mut body = Vec::new();
    // The horizon takes the place of the base timestamp, and the records' timestamps count from it.
    let base = horizon.unwrap_or(header.base_timestamp);
    let (mut count, mut max_timestamp) = (0, Millis(i64::MIN));
    let mut records = RecordReader::new(&header, batch)?;
    let mut n = 0;
    while let Some(record) = records.next_ref() {
        let record = record?;
        n += 1;
        if !keep(n - 1) {
            continue;
        }
        body.clear();
        put_body(&mut body, record.key, record.value, record.headers.collect::<Vec<_>>().into_iter());
        let timestamp = record.timestamp.0.wrapping_sub(base.0);
        let offset = record.offset.0 - header.base_offset.0;
        let length = 1 + varint::size(timestamp) + varint::size(offset) + body.len();
        varint::put(&mut raw, i64::try_from(length).unwrap_or(i64::MAX));
        raw.push(0);
        varint::put(&mut raw, timestamp);
        varint::put(&mut raw, offset);
        raw.extend_from_slice(&body);
        count += 1;
        max_timestamp = max_timestamp.max(record.timestamp);
    }
    let packed = codec.compress_behind(BATCH_HEADER_BYTES, &raw[BATCH_HEADER_BYTES..]);
    let (codec, mut bytes) = match packed {
        Some(packed) if packed.len() < raw.len() => (codec, packed),
        _ => (Compression::None, raw),
    };
    if bytes.len() > MAX_BATCH_BYTES {
        return Ok(Retained::TooLarge);
    }
    header.set_compression(codec);
    header.base_timestamp = base;
    if horizon.is_some() {
        header.mark_delete_horizon();
    }
    if !header.is_log_append_time() {
        header.max_timestamp = max_timestamp;
    }
    header.record_count = count;
    header.write(&mut bytes);
    Ok(Retained::Batch(bytes.into()))
}

/// A batch without records that stands for the offsets of `header`.
#[must_use]
pub fn empty_batch(header: &BatchHeader) -> Bytes {
    const NO_TIMESTAMP: Millis = Millis(-1);
    let mut empty = *header;
    empty.clear_attributes();
    (empty.base_timestamp, empty.max_timestamp, empty.record_count) = (NO_TIMESTAMP, NO_TIMESTAMP, 0);
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    empty.write(&mut bytes);
    bytes.into()
}
