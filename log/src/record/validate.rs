//! What a producer's batch must be before it may be stored as it came.

use bytes::Bytes;

use super::{BatchHeader, BatchProblem, RecordReader};
use crate::limits::MAX_TIMESTAMP_MS;

/// Why a record cannot be in a topic that is compacted.
pub const NO_KEY: &str = "a record without key in a topic that is compacted";

/// Checks what the header tells: magic, size (`batch` is exactly one batch), checksum, a known codec, and that its
/// records take consecutive offsets. Cheap: one pass for the checksum.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(batch: &[u8]) -> Result<BatchHeader, BatchProblem> {
    let header = BatchHeader::parse(batch)?;
    header.check_crc(batch)?;
    header.compression()?;
    if header.record_count < 1 {
        return Err(BatchProblem::Malformed("batch without records"));
    }
    if header.last_offset_delta != header.record_count - 1 {
        return Err(BatchProblem::Malformed("last offset delta is not record count - 1"));
    }
    if header.is_control() {
        return Err(BatchProblem::Malformed("clients may not write control batches"));
    }
    Ok(header)
}

/// Decompresses the batch and walks its records: all that the header promises is inside, and nothing else. A batch that
/// fails this would be unreadable at its offset for ever. `keyed`: each must have a key, as in a topic that is compacted.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate_records(header: &BatchHeader, batch: &Bytes, keyed: bool) -> Result<(), BatchProblem> {
    for (delta, record) in (0..).zip(RecordReader::new(header, batch)?) {
        let record = record?;
        if record.offset != header.base_offset.plus(delta) {
            return Err(BatchProblem::Malformed("offset deltas are not consecutive"));
        }
        if keyed && record.key.is_none() {
            return Err(BatchProblem::Malformed(NO_KEY));
        }
        if record.timestamp.0.unsigned_abs() > MAX_TIMESTAMP_MS.unsigned_abs() {
            return Err(BatchProblem::Malformed("timestamp out of range"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, Compression};
    use crate::units::{Epoch, Millis, Offset};

    #[test]
    fn timestamps_that_the_lake_cannot_hold_are_refused() {
        let check = |timestamp: i64| {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(0, Millis(timestamp), None, Some(b"x"), &[]);
            let batch = builder.build(Offset(0), Epoch(0)).unwrap();
            validate_records(&validate(&batch).unwrap(), &batch, false)
        };
        for good in [-1, 0, MAX_TIMESTAMP_MS, -MAX_TIMESTAMP_MS] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [MAX_TIMESTAMP_MS + 1, i64::MAX, i64::MIN] {
            assert_eq!(check(bad), Err(BatchProblem::Malformed("timestamp out of range")), "{bad}");
        }
    }
}
