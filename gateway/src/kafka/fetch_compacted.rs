//! Reads a log that was compacted as clients expect it: without the batches that compaction has emptied.

use bytes::Bytes;
use forebay_cluster::{Fetched, Partition};
use forebay_log::record::{BatchHeader, Batches};
use forebay_log::{Offset, ReadError};

/// Reads from `from` on, without the batches that compaction has emptied: librdkafka takes an answer of nothing but those for a
/// record that is too large. Offsets may then begin above the one asked for, as with Kafka.
pub(super) fn read_records(partition: &Partition, mut from: Offset, most: usize) -> Result<Fetched, ReadError> {
    loop {
        let fetched = partition.read(from, most)?;
        if fetched.batches.is_empty() || !partition.may_have_empty_batches() {
            return Ok(fetched);
        }
        let (batches, next) = without_empty(&fetched.batches);
        if !batches.is_empty() || next <= from {
            return Ok(Fetched { batches, ..fetched });
        }
        from = next;
    }
}

/// The batches that have records, and the offset behind all. Only where there are others, bytes are copied.
fn without_empty(batches: &Bytes) -> (Bytes, Offset) {
    let all: Vec<(BatchHeader, Bytes)> = Batches::new(batches.clone()).map_while(Result::ok).collect();
    let next = all.last().map_or(Offset::ZERO, |(header, _)| header.next_offset());
    if all.iter().all(|(header, _)| header.record_count > 0) {
        return (batches.clone(), next);
    }
    let kept = all.iter().filter(|(header, _)| header.record_count > 0);
    let kept: Vec<&[u8]> = kept.map(|(_, batch)| batch.as_ref()).collect();
    (kept.concat().into(), next)
}
