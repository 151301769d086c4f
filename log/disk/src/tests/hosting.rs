//! Partitions that come to a node, go, and come back.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use forebay_log::partition::{AppendData, Leadership};
use forebay_log::record::RecordChunk;
use forebay_log::{Epoch, Millis, Offset, PartitionEpoch, TopicConfig};
use uuid::Uuid;

use crate::sim::{SimFiles, Steps};
use crate::{Log, LogOptions};

const NOW: Millis = Millis(1_767_225_600_000);
const ID: Uuid = Uuid::from_u128(9);

fn open(files: &SimFiles) -> (Log, Steps) {
    let options = LogOptions { shards: 1, fsync: true, alone: false };
    Log::open_stepped(1, Arc::new(files.clone()), options, NOW).unwrap()
}

/// Steps the log until it has answered.
fn wait<T>(steps: &mut Steps, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        steps.step(NOW);
    }
    panic!("no answer")
}

#[test]
fn a_partition_that_comes_back_after_it_was_moved_away_begins_empty_also_after_a_crash() {
    let files = SimFiles::new(1);
    let (log, mut steps) = open(&files);
    let topic = log.host("t", ID, &TopicConfig::default(), &[0, 1]).unwrap();
    let partition = Arc::clone(topic.partition(0).unwrap());
    let (epoch, partition_epoch) = (Epoch(0), PartitionEpoch(0));
    let word = Leadership { epoch, partition_epoch, followers: Vec::new(), in_sync: Vec::new(), max_lag_ms: 10_000 };
    wait(&mut steps, partition.lead(word)).unwrap();
    let mut chunk = RecordChunk::new();
    chunk.push(NOW, None, Some(b"a reading"), &[]);
    let ticket = wait(&mut steps, partition.submit(AppendData::Chunk(chunk))).unwrap();
    wait(&mut steps, ticket).unwrap();
    // The recovery point is behind that record now.
    steps.keep();

    log.unhost("t", ID, &[0]).unwrap();
    log.host("t", ID, &TopicConfig::default(), &[0, 1]).unwrap();
    drop((log, steps));
    files.crash();

    let (log, mut steps) = open(&files);
    steps.step(NOW);
    let marks = log.topic("t").unwrap().partition(0).unwrap().watermarks();
    assert_eq!((marks.log_end, marks.high_watermark), (Offset::ZERO, Offset::ZERO), "it has nothing yet");
}
