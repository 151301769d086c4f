//! Damage on the disk: detected, told, never served, and nobody else's trouble.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_disk::sim::HookedFiles;
use forebay_disk::{AppendData, Log, Partition, RealFiles};
use forebay_log::record::{Batches, RecordChunk, RecordReader};
use forebay_log::{Millis, Offset, ReadError, TopicConfig};

use super::common::{files_of, flip, open, open_on};

const BATCHES: usize = 6;
/// Records of a batch.
const RECORDS: usize = 3;

/// Bytes that no codec makes smaller: a batch of these has an entry of its own in the index.
fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..2000).map(|_| next()).collect()
}

async fn filled(dir: &Path) -> Log {
    let log = open(dir);
    let topic = log.create_topic("t", 1, TopicConfig::default()).await.unwrap();
    for batch in 0..BATCHES {
        let mut chunk = RecordChunk::new();
        for record in 0..RECORDS {
            chunk.push(Millis(1_700_000_000_000), None, Some(&noise(batch * RECORDS + record)), &[]);
        }
        topic.partitions[0].append(AppendData::Chunk(chunk)).await.unwrap();
    }
    topic.partitions[0].roll().await.unwrap();
    log
}

/// Offsets that are served from `from` on, passing over damage; each must hold what was written there.
fn served(partition: &Partition, from: Offset, max_bytes: usize) -> Vec<i64> {
    let (mut offsets, mut next) = (Vec::new(), from);
    while next < partition.watermarks().high_watermark {
        match partition.read(next, max_bytes) {
            Err(ReadError::Corrupt { next: behind, .. }) => {
                assert!(behind > next, "reading gets on");
                next = behind;
            }
            Err(error) => panic!("{error}"),
            Ok(fetched) => {
                for batch in Batches::new(fetched.batches) {
                    let (header, batch) = batch.unwrap();
                    for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                        let at = usize::try_from(record.offset.0).unwrap();
                        assert!(record.value.unwrap() == noise(at), "offset {at} holds another record");
                        offsets.push(record.offset.0);
                    }
                    next = header.next_offset();
                }
            }
        }
    }
    offsets
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_bit_of_a_batch_flips_every_other_record_is_served_at_its_own_offset() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()).await);
    let path = files_of(dir.path(), "log").remove(0);
    let whole = std::fs::read(&path).unwrap();
    let size = whole.len() / BATCHES;
    for batch in [0, 2, BATCHES - 1] {
        for at in (0..70).chain([size / 2, size - 1]) {
            std::fs::write(&path, &whole).unwrap();
            flip(&path, batch * size + at);
            let log = open(dir.path());
            let partition = Arc::clone(&log.topic("t").unwrap().partitions[0]);
            let lost = batch * RECORDS..(batch + 1) * RECORDS;
            // The leader epoch is the one thing that neither checksum nor neighbours cover; no reader goes by it.
            let harmless = (12..16).contains(&at);
            let good: Vec<i64> =
                (0..BATCHES * RECORDS).filter(|offset| harmless || !lost.contains(offset)).map(|o| o as i64).collect();
            for max_bytes in [1, 1 << 20] {
                assert_eq!(served(&partition, Offset(0), max_bytes), good, "batch {batch}, byte {at}");
            }
            for &offset in &good {
                let batch_of = offset - offset % RECORDS as i64;
                let read = served(&partition, Offset(offset), 1);
                assert_eq!(read.first(), Some(&batch_of), "batch {batch}, byte {at}");
            }
            if !harmless {
                let asked = Offset(lost.start as i64);
                let Err(ReadError::Corrupt { position, next, .. }) = partition.read(asked, 1) else { panic!("served") };
                assert_eq!((position, next), ((batch * size) as u64, Offset(lost.end as i64)), "byte {at}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_mended_takes_no_memory_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.create_topic("t", 2, TopicConfig { max_message_bytes: 64 << 20, ..TopicConfig::default() }).await.unwrap();
    drop(log);
    // Every write fails there, and so does every repair.
    let files = HookedFiles::flaky(RealFiles::open(dir.path()).unwrap(), "log/t-0", 1000, 1);
    let log = open_on(Arc::new(files), true);
    let topic = log.topic("t").unwrap();
    let large = || {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(0), None, Some(&vec![7; 40 << 20]), &[]);
        AppendData::Chunk(chunk)
    };
    let _unanswered = topic.partitions[0].submit(large()).await.unwrap();
    let appended = tokio::time::timeout(Duration::from_secs(20), topic.partitions[1].append(large())).await;
    assert!(appended.expect("it does not wait for the broken one").is_ok());
}
