//! Idempotent producers over restarts: a batch that was stored is known again when it is repeated.

use bytes::Bytes;
use forebay_disk::AppendData;
use forebay_log::record::{BatchBuilder, Compression};
use forebay_log::{AppendError, Epoch, Millis, Offset, TopicConfig};

use super::common::{open, values};

/// A batch of one record, sent by producer 77 as its `sequence`th.
fn batch(sequence: i32) -> AppendData {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Millis(1_700_000_000_000), None, Some(sequence.to_string().as_bytes()), &[]);
    let mut batch = builder.build(Offset::ZERO, Epoch(-1)).unwrap().to_vec();
    batch[43..51].copy_from_slice(&77i64.to_be_bytes());
    batch[51..53].copy_from_slice(&0i16.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    AppendData::Batches(Bytes::from(batch))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_repeated_after_a_restart_is_answered_with_its_first_offset() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    for sequence in 0..4 {
        topic.partitions[0].append(batch(sequence)).await.unwrap();
    }
    // What the producer wrote last is spread over a closed segment and the active one.
    topic.partitions[0].roll().await.unwrap();
    topic.partitions[0].append(batch(4)).await.unwrap();
    drop((log, topic));

    let log = open(dir.path());
    let topic = log.topic("readings").unwrap();
    let partition = &topic.partitions[0];
    for sequence in [0, 3, 4] {
        let repeated = partition.append(batch(sequence)).await.unwrap();
        assert_eq!(repeated.base_offset, Offset(i64::from(sequence)));
    }
    assert_eq!(partition.append(batch(6)).await, Err(AppendError::AwaitsEarlier));
    assert_eq!(partition.append(batch(5)).await.unwrap().base_offset, Offset(5));
    assert_eq!(values(partition), ["0", "1", "2", "3", "4", "5"]);
}
