//! What a restart makes of a torn tail, of flipped bytes and of lost index files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::common::{chunk, files_of, flip, open, open_on, values};
use bytes::Bytes;
use forebay_disk::sim::{HookedFiles, Step};
use forebay_disk::{AppendData, Files, Log, LogOptions, Partition, RealFiles};
use forebay_log::limits::CHECKPOINT_INTERVAL_MS;
use forebay_log::partition::LeaderMarks;
use forebay_log::{AppendError, Epoch, Offset, ReadError, TopicConfig};

async fn fill(log: &Log, count: usize, roll_each: bool) -> Arc<Partition> {
    let topic = log.create_topic("t", 1, TopicConfig::default()).await.unwrap();
    let partition = Arc::clone(&topic.partitions[0]);
    for n in 0..count {
        partition.append(AppendData::Chunk(chunk(&[&format!("{n}")]))).await.unwrap();
        if roll_each {
            partition.roll().await.unwrap();
        }
    }
    partition
}

fn partition(log: &Log) -> Arc<Partition> {
    Arc::clone(&log.topic("t").unwrap().partitions[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_at_the_last_whole_batch_and_appends_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 3, false).await;
    drop(log);
    let path = files_of(dir.path(), "log").remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let whole = bytes.len();
    let half = bytes[..whole / 3 - 7].to_vec();
    bytes.extend_from_slice(&half);
    std::fs::write(&path, bytes).unwrap();

    let log = open(dir.path());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64);
    let partition = partition(&log);
    assert_eq!(values(&partition), ["0", "1", "2"]);
    assert_eq!(partition.append(AppendData::Chunk(chunk(&["3"]))).await.unwrap().base_offset, Offset(3));
    assert_eq!(values(&partition), ["0", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_closed_segment_is_reported_where_it_is_and_hides_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 3, true).await;
    drop(log);
    let damaged = files_of(dir.path(), "log").remove(1);
    flip(&damaged, 65);

    let log = open(dir.path());
    let partition = partition(&log);
    assert_eq!(log.stats().corrupt_batches, 0, "closed segments are not scanned at a start");
    let read = partition.read(Offset(1), 1000);
    assert_eq!(log.stats().corrupt_batches, 1);
    let Err(ReadError::Corrupt { file, position, .. }) = read else { panic!("{read:?}") };
    assert!(dir.path().join(file).ends_with(damaged.file_name().unwrap()));
    assert_eq!(position, 0);
    assert!(partition.read(Offset(0), 1000).is_ok() && partition.read(Offset(2), 1000).is_ok());
    assert!(partition.append(AppendData::Chunk(chunk(&["on"]))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_active_segment_keeps_the_good_batches_behind_it() {
    for at in [3, 9, 16, 30, 65] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        fill(&log, 5, false).await;
        drop(log);
        let path = files_of(dir.path(), "log").remove(0);
        let len = std::fs::metadata(&path).unwrap().len();
        flip(&path, usize::try_from(len).unwrap() / 5 * 2 + at);

        let log = open(dir.path());
        let partition = partition(&log);
        let corrupt = partition.read(Offset(2), 1000);
        assert!(matches!(corrupt, Err(ReadError::Corrupt { .. })), "byte {at}: {corrupt:?}");
        for good in [0, 1, 3, 4] {
            let read = partition.read(Offset(good), 1);
            assert!(read.is_ok_and(|read| !read.batches.is_empty()), "byte {at}, offset {good}");
        }
        let appended = partition.append(AppendData::Chunk(chunk(&["5"]))).await.unwrap();
        assert_eq!(appended.base_offset, Offset(5), "byte {at}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len, "nothing is cut off");
        drop((log, partition));
        let log = open(dir.path());
        assert!(self::partition(&log).read(Offset(5), 1000).is_ok(), "byte {at}, after another start");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_vanished_from_the_end_are_missed_and_their_offsets_not_reused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 3, false).await;
    drop(log);
    let path = files_of(dir.path(), "log").remove(0);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();

    let log = open(dir.path());
    let partition = partition(&log);
    assert!(partition.read(Offset(0), 1000).is_ok());
    assert!(matches!(partition.read(Offset(1), 1000), Err(ReadError::Corrupt { .. })));
    assert_eq!(partition.append(AppendData::Chunk(chunk(&["3"]))).await.unwrap().base_offset, Offset(3));
    assert!(partition.read(Offset(3), 1000).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_damaged_indexes_are_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = fill(&log, 1, false).await;
    let big = "x".repeat(3000);
    for _ in 0..20 {
        partition.append(AppendData::Chunk(chunk(&[&big]))).await.unwrap();
    }
    partition.roll().await.unwrap();
    let read = values(&partition);
    drop((log, partition));
    let index = files_of(dir.path(), "index").remove(0);
    let original = std::fs::read(&index).unwrap();
    for damage in [None, Some(vec![0xff; 16]), Some(vec![1; 7])] {
        match damage {
            None => std::fs::remove_file(&index).unwrap(),
            Some(bytes) => std::fs::write(&index, bytes).unwrap(),
        }
        std::fs::remove_file(index.with_extension("timeindex")).unwrap();
        let log = open(dir.path());
        assert_eq!(values(&self::partition(&log)), read);
        drop(log);
        assert_eq!(std::fs::read(&index).unwrap(), original, "rebuilt as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_partition_is_no_matter_for_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic("t", 2, TopicConfig::default()).await.unwrap();
    topic.partitions[0].append(AppendData::Chunk(chunk(&["a", "b"]))).await.unwrap();
    drop(topic);
    drop(log);
    std::fs::write(dir.path().join("log/t-0/partition.state"), "nonsense").unwrap();
    let log = open(dir.path());
    let topic = log.topic("t").unwrap();
    let damaged = &topic.partitions[0];
    assert!(damaged.offline().is_some() && damaged.unopened().is_some());
    assert_eq!(damaged.watermarks().log_start, Offset(0), "nothing is said to be deleted");
    for offset in 0..3 {
        assert!(matches!(damaged.read(Offset(offset), 4096), Err(ReadError::Offline(_))), "neither deleted nor empty");
    }
    assert!(topic.partitions[0].append(AppendData::Chunk(chunk(&["x"]))).await.is_err());
    let copied = damaged.copy(Epoch(1), Offset(0), Bytes::new(), LeaderMarks::default()).await.unwrap().await;
    for refused in [damaged.follow(Epoch(1)).await, damaged.roll().await, damaged.followers().await.map(drop), copied] {
        assert!(matches!(refused, Err(AppendError::Offline(_))), "not that the log shuts down: {refused:?}");
    }
    assert!(topic.partitions[1].append(AppendData::Chunk(chunk(&["x"]))).await.is_ok());
}

#[test]
fn lost_metadata_is_an_error_and_not_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::create_dir(dir.path().join("log/t-0")).unwrap();
    for damage in [|path: &Path| std::fs::remove_file(path), |path: &Path| std::fs::write(path, "forebay-metadata 1\n")]
    {
        damage(&dir.path().join("metadata")).unwrap();
        let files: Arc<dyn Files> = RealFiles::open(dir.path()).unwrap();
        assert!(Log::open(files, LogOptions { shards: 1, fsync: true, alone: true }).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_takes_long_leaves_the_recovery_points_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    drop(fill(&log, 3, false).await);
    drop(log);
    let points = dir.path().join("log/recovery-point-offset-checkpoint");
    let changed = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&changed);
    // Segments open only after longer than the recovery points are left alone.
    let slow = HookedFiles::new(RealFiles::open(dir.path()).unwrap(), move |step, path| {
        if step == Step::Open && path.extension().is_some_and(|extension| extension == "log") {
            let before = std::fs::read(&points)?;
            let deadline = Instant::now() + Duration::from_millis(CHECKPOINT_INTERVAL_MS + 1500);
            while Instant::now() < deadline && !watched.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(50));
                watched.fetch_or(std::fs::read(&points)? != before, Ordering::AcqRel);
            }
        }
        Ok(())
    });
    let log = open_on(Arc::new(slow), true);
    assert_eq!(values(&partition(&log)), ["0", "1", "2"]);
    assert!(!changed.load(Ordering::Acquire), "a crash now would have lost them");
}
