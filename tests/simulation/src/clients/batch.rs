//! Record batches as clients build them.

use bytes::Bytes;
use forebay_log::record::{BatchBuilder, Batches, Compression, RecordReader};
use forebay_log::{Epoch, Millis, Offset};

/// Where the fields of an idempotent producer stand in a batch.
const PRODUCER_AT: usize = 43;
const CRC_AT: usize = 17;

/// A batch of records with one key and these values; of an idempotent producer with its id, epoch and first sequence number.
#[must_use]
pub fn build(key: &str, values: &[String], producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (delta, value) in (0i32..).zip(values) {
        builder.push(delta, Millis(1_767_225_600_000), Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    sign(builder, producer)
}

/// A batch of these records, with the id, epoch and first sequence number of an idempotent producer.
#[must_use]
pub fn build_records(records: &[(Bytes, Bytes)], producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (delta, (key, value)) in (0i32..).zip(records) {
        builder.push(delta, Millis(1_767_225_600_000), Some(key), Some(value), &[]);
    }
    sign(builder, producer)
}

fn sign(builder: BatchBuilder, producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut batch = builder.build(Offset(0), Epoch(0)).unwrap_or_default().to_vec();
    if let Some((id, epoch, sequence)) = producer {
        batch[PRODUCER_AT..PRODUCER_AT + 8].copy_from_slice(&id.to_be_bytes());
        batch[PRODUCER_AT + 8..PRODUCER_AT + 10].copy_from_slice(&epoch.to_be_bytes());
        batch[PRODUCER_AT + 10..PRODUCER_AT + 14].copy_from_slice(&sequence.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_AT + 4..]);
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    }
    batch.into()
}

/// The records of stored batches: offset, leader epoch, and key and value as `key=value`.
///
/// # Errors
/// What cannot be read.
pub fn values(batches: &Bytes) -> Result<Vec<(Offset, Epoch, Bytes)>, String> {
    let mut found = Vec::new();
    for batch in Batches::new(batches.clone()) {
        let (header, batch) = batch.map_err(|problem| problem.to_string())?;
        let mut reader = RecordReader::new(&header, &batch).map_err(|problem| problem.to_string())?;
        while let Some(record) = reader.next_ref() {
            let record = record.map_err(|problem| problem.to_string())?;
            let mut text = record.key.unwrap_or_default().to_vec();
            text.push(b'=');
            text.extend_from_slice(record.value.unwrap_or_default());
            found.push((record.offset, header.leader_epoch, text.into()));
        }
    }
    Ok(found)
}
