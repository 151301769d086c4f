//! Flipped bytes in the local log and in the manifest: what is lost, what goes on, and what is said of it.

use forebay_log::ReadError;

use super::*;
use crate::state::StateTopic;

/// Batches of 20 records each, as separate appends make them.
const BATCH: i64 = 20;

/// Flips a byte in each of these places of a topic's only partition, in its first segment: `(part, of)` of its length.
fn flip(folder: &FsPath, topic: &str, places: &[(usize, usize)]) {
    let path = folder.join("data/log").join(format!("{topic}-0")).join("00000000000000000000.log");
    let mut bytes = std::fs::read(&path).expect("a segment");
    for (part, of) in places {
        let at = bytes.len() * part / of;
        bytes[at] ^= 0x55;
    }
    std::fs::write(&path, bytes).expect("written");
}

/// Two segments of ten batches each that are not offloaded yet; the second is still written to.
async fn two_segments(node: &TestNode) -> Arc<Topic> {
    let off = TopicConfig { remote_storage_enable: false, ..config() };
    let topic = node.log.create_topic("readings", 1, off).await.expect("created");
    for batch in 0..20 {
        if batch == 10 {
            topic.partitions[0].roll().await.expect("rolled");
        }
        node.append("readings", 0, batch * BATCH..(batch + 1) * BATCH).await;
    }
    topic
}

/// Every record that a consumer gets who goes on behind damage, hot and cold alike.
async fn read_on(node: &TestNode) -> Vec<(i64, Vec<u8>)> {
    let topic = node.log.topic("readings").expect("a topic");
    let reader = Reader::new(Some(node.lake.clone()));
    let partition = &topic.partitions[0];
    let (mut found, mut next) = (Vec::new(), partition.watermarks().log_start);
    while next < partition.watermarks().high_watermark {
        let fetched = match reader.read(partition, next, 4096).await {
            Ok(fetched) => fetched,
            Err(ReadError::Corrupt { next: behind, .. }) => {
                assert!(behind > next);
                next = behind;
                continue;
            }
            Err(error) => panic!("at {next}: {error}"),
        };
        take_records(fetched.batches, &mut next, &mut found);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_costs_its_records_and_holds_nothing_else_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    let topic = two_segments(&node).await;
    flip(folder.path(), "readings", &[(1, 2)]);
    let whole = read_on(&node).await;
    assert!((200..400).contains(&whole.len()), "{}", whole.len());
    assert!(whole.iter().all(|(offset, value)| *value == payload(*offset)));

    node.log.alter_topic("readings", config()).await.expect("altered");
    node.lake.flush("readings").await.expect("flushed");
    let lost = 400 - whole.len() as u64;
    let status = node.status();
    assert_eq!((status.rows, status.lost_records, status.lag_records), (whole.len() as u64, lost, 0));
    let report = node.lake.verify("readings").await.expect("verified");
    assert_eq!((report.rows, report.problems), (whole.len() as u64, Vec::<String>::new()));
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert!(report.lost[0].contains("00000000000000000000.log") && report.lost[0].contains(&lost.to_string()));

    // The local copy goes all the same, and the cold tier serves what was whole.
    eventually("the end of the local copy", || topic.partitions[0].watermarks().local_start.0 >= 200).await;
    assert_eq!(read_on(&node).await, whole);
    let gap = (0..200).find(|offset| whole.iter().all(|(there, _)| there != offset)).expect("a lost record");
    let behind = whole.iter().find(|(offset, _)| *offset > gap).expect("a record behind").0;
    let reader = Reader::new(Some(node.lake.clone()));
    let fetched = reader.read(&topic.partitions[0], Offset(gap), 1).await.expect("what is behind the gap");
    let (header, batch) = Batches::new(fetched.batches).next().expect("a batch").expect("whole");
    let offsets =
        RecordReader::new(&header, &batch).expect("readable").map(|record| record.expect("readable").offset.0);
    assert_eq!(offsets.filter(|offset| *offset >= gap).min(), Some(behind));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_of_which_nothing_is_left_holds_nothing_up_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    let topic = two_segments(&node).await;
    flip(folder.path(), "readings", &(0..100).map(|part| (part, 100)).collect::<Vec<_>>());
    let whole: Vec<_> = expected(400).split_off(200);
    assert_eq!(read_on(&node).await, whole);
    node.log.alter_topic("readings", config()).await.expect("altered");
    eventually("the end of the local copy", || topic.partitions[0].watermarks().local_start.0 == 200).await;
    // Behind the gap, at the end of the lake, the local log goes on.
    assert_eq!(read_on(&node).await, whole);
    node.lake.flush("readings").await.expect("flushed");
    let report = node.lake.verify("readings").await.expect("verified");
    assert_eq!((report.files, report.rows, report.problems), (2, 200, Vec::<String>::new()));
    assert_eq!(read_on(&node).await, whole);
    assert_eq!((node.status().rows, node.status().lost_records), (200, 200));
    node.stop().await;
}

/// A node whose lake holds 50 records, stopped.
async fn offloaded(folder: &FsPath) {
    let node = start(folder, &url(folder)).await;
    node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    node.stop().await;
}

async fn the_lake_is_off_and_says(node: &TestNode, why: &str) {
    // Meters publish as ever.
    node.append("readings", 0, 50..60).await;
    let error = node.lake.off().expect("off").to_owned();
    assert!(error.contains("_lake_manifest") && error.contains(why), "{error}");
    let status = node.status();
    assert_eq!((status.error.as_deref(), status.rows), (Some(error.as_str()), 0));
    for answer in [
        node.lake.flush("readings").await.expect_err("off").to_string(),
        node.lake.verify("readings").await.expect_err("off").to_string(),
        node.lake.read("readings", 0, Offset(0), 1).await.expect_err("off").to_string(),
        node.lake.offset_for_time("readings", 0, Millis(0)).await.expect_err("off").to_string(),
    ] {
        assert!(answer.contains(&error), "{answer}");
    }
    let partition = &node.log.topic("readings").expect("a topic").partitions[0];
    partition.roll().await.expect("rolled");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(partition.watermarks().local_start.0.max(50), 50, "nothing new is let go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_damaged_manifest_starts_with_its_lake_off() {
    let folder = tempfile::tempdir().expect("a folder");
    offloaded(folder.path()).await;
    let path = folder.path().join("data/log/_lake_manifest-0/00000000000000000000.log");
    let good = std::fs::read(&path).expect("a segment");
    flip(folder.path(), MANIFEST_TOPIC, &[(1, 2)]);
    let node = start(folder.path(), &url(folder.path())).await;
    the_lake_is_off_and_says(&node, "00000000000000000000.log").await;
    // A topic deleted meanwhile keeps its table, for want of a manifest that says what is its own.
    node.log.delete_topic("readings").await.expect("deleted");
    node.stop().await;
    assert!(folder.path().join("lake/readings/_delta_log/00000000000000000000.json").exists());

    // Put in order again, the lake goes on where it was.
    std::fs::write(&path, good).expect("written");
    let node = start(folder.path(), &url(folder.path())).await;
    assert_eq!(node.lake.off(), None);
    eventually("the end of the table", || {
        !folder.path().join("lake/readings/_delta_log/00000000000000000000.json").exists()
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_entry_of_a_later_version_switches_the_lake_off() {
    let folder = tempfile::tempdir().expect("a folder");
    offloaded(folder.path()).await;
    let log = open_log(folder.path()).await;
    let state = StateTopic::open(&log, MANIFEST_TOPIC).await.expect("opened");
    let (key, value) = state.scan(b"range/").remove(0);
    let later = [&value[..4], &[99], &value[5..]].concat();
    state.put(key, Some(later.into())).await.expect("put");
    drop(state);
    tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");
    let node = start(folder.path(), &url(folder.path())).await;
    the_lake_is_off_and_says(&node, "version 99").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_lake_is_off_nothing_leaves_the_local_disk_that_only_it_could_give_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    let stays = TopicConfig { local_retention_ms: None, ..config() };
    let topic = node.log.create_topic("readings", 1, stays).await.expect("created");
    node.append("readings", 0, 0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    assert_eq!(topic.partitions[0].watermarks().local_start, Offset::ZERO);
    drop(topic);
    node.stop().await;

    let path = folder.path().join("data/log/_lake_manifest-0/00000000000000000000.log");
    let good = std::fs::read(&path).expect("a segment");
    flip(folder.path(), MANIFEST_TOPIC, &[(1, 2)]);
    let node = start(folder.path(), &url(folder.path())).await;
    node.lake.off().expect("off");
    node.log.alter_topic("readings", config()).await.expect("altered");
    // Long enough for retention to have looked: a topic beside it, without a lake, has let its records go.
    let brief = TopicConfig { remote_storage_enable: false, retention_ms: Some(1), ..config() };
    let beside = node.log.create_topic("beside", 1, brief).await.expect("created");
    for _ in 0..2 {
        let start = beside.partitions[0].watermarks().log_start;
        node.append("beside", 0, 0..10).await;
        beside.partitions[0].roll().await.expect("rolled");
        eventually("retention", || beside.partitions[0].watermarks().log_start > start).await;
    }
    assert_eq!(read_on(&node).await, expected(50));
    drop(beside);
    node.stop().await;

    std::fs::write(&path, good).expect("written");
    let node = start(folder.path(), &url(folder.path())).await;
    let topic = node.log.topic("readings").expect("a topic");
    eventually("the end of the local copy", || topic.partitions[0].watermarks().local_start.0 == 50).await;
    assert_eq!(read_on(&node).await, expected(50));
    drop(topic);
    node.stop().await;
}
