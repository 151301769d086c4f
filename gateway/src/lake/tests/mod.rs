//! The lake on a real log and a real local object store: flush, verify, cold reads, failures, restart.

mod between;
mod damage;
mod deletion;
mod outage;
pub(crate) mod store;
mod zombie;

use std::path::Path as FsPath;
use std::time::{Duration, Instant};

use forebay_cluster::{AppendData, LogOptions, RealFiles};
use forebay_log::TopicConfig;
use forebay_log::record::{Batches, RecordChunk, RecordReader};

use forebay_tiering::offload::{Change, ManifestStore};

use super::*;
use crate::config::Sources;
use crate::reader::Reader;
use store::{Moods, MoodyStore};

struct TestNode {
    log: Log,
    lake: Arc<Lake>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

async fn open_log(folder: &FsPath) -> Log {
    // The tasks of a node before this one let go of the directory when they next run.
    let deadline = Instant::now() + Duration::from_secs(10);
    let files = loop {
        match RealFiles::open(folder.join("data")) {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.expect("a data directory"),
        }
    };
    let log =
        tokio::task::spawn_blocking(move || Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }));
    log.await.expect("no panic").expect("a log")
}

async fn start(folder: &FsPath, url: &str) -> TestNode {
    let log = open_log(folder).await;
    let mut config = Config::load(&Sources::default()).expect("the defaults");
    config.object_store.url = url.to_owned();
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::new());
    let lake = Lake::start(log.clone(), Arc::new(config), metrics.clone(), stop.clone()).await.expect("a lake");
    TestNode { log, lake, metrics, stop }
}

/// A node on a store whose mood the test sets.
async fn start_moody(folder: &FsPath) -> (TestNode, Moods) {
    let (log, url) = (open_log(folder).await, url(folder));
    let (store, moods) = MoodyStore::new(&url);
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let lake = Lake::start_on(store, url, log.clone(), metrics.clone(), stop.clone()).await.expect("a lake");
    (TestNode { log, lake, metrics, stop }, moods)
}

/// Polls until `done`, at most 20 s.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never came to {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl TestNode {
    async fn stop(self) {
        self.stop.cancel();
        drop(self.lake);
        let log = self.log;
        tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");
    }

    /// Makes the topic `readings` with these records.
    async fn readings(&self, numbers: std::ops::Range<i64>) -> Arc<Topic> {
        let topic = self.log.create_topic("readings", 1, config()).await.expect("created");
        self.append("readings", 0, numbers).await;
        topic
    }

    async fn append(&self, topic: &str, partition: usize, numbers: std::ops::Range<i64>) {
        let topic = self.log.topic(topic).expect("a topic");
        let mut chunk = RecordChunk::new();
        for n in numbers {
            let value = payload(n);
            chunk.push(Millis(1_700_000_000_000 + n), Some(b"m1"), Some(&value), &[("mqtt.qos", b"1")]);
        }
        topic.partitions[partition].append(AppendData::Chunk(chunk)).await.expect("appended");
    }

    fn status(&self) -> TopicStatus {
        self.lake.status().into_iter().find(|status| status.topic == "readings").expect("offloaded")
    }
}

fn payload(n: i64) -> Vec<u8> {
    if n % 10 == 3 { format!("garbage {n}").into_bytes() } else { format!(r#"{{"n":{n},"kwh":0.25}}"#).into_bytes() }
}

fn config() -> TopicConfig {
    TopicConfig { local_retention_ms: Some(0), lake_commit_interval_ms: 50, ..TopicConfig::default() }
}

fn url(folder: &FsPath) -> String {
    format!("file:{}", folder.join("lake").display())
}

/// Every record from the log start on, hot and cold alike: offset and payload.
async fn read_all(node: &TestNode, partition: usize) -> Vec<(i64, Vec<u8>)> {
    let topic = node.log.topic("readings").expect("a topic");
    let reader = Reader::new(Some(node.lake.clone()));
    let partition = &topic.partitions[partition];
    let (mut found, mut next) = (Vec::new(), partition.watermarks().log_start);
    while next < partition.watermarks().high_watermark {
        let fetched = reader.read(partition, next, 4096).await.expect("readable");
        take_records(fetched.batches, &mut next, &mut found);
    }
    found
}

/// Adds the records of whole batches at or after `next`, and moves it behind them.
fn take_records(batches: Bytes, next: &mut Offset, found: &mut Vec<(i64, Vec<u8>)>) {
    for batch in Batches::new(batches) {
        let (header, batch) = batch.expect("whole");
        for record in RecordReader::new(&header, &batch).expect("readable") {
            let record = record.expect("readable");
            if record.offset >= *next {
                found.push((record.offset.0, record.value.expect("a payload").to_vec()));
            }
        }
        *next = header.next_offset().max(*next);
    }
}

fn expected(count: i64) -> Vec<(i64, Vec<u8>)> {
    (0..count).map(|n| (n, payload(n))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_flushed_is_in_the_table_verified_and_read_back_cold_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    node.log.create_topic("readings", 2, config()).await.expect("created");
    node.append("readings", 0, 0..500).await;
    node.append("readings", 1, 0..30).await;
    node.lake.flush("readings").await.expect("flushed");
    node.append("readings", 0, 500..700).await;
    node.lake.flush("readings").await.expect("flushed");
    let status = node.status();
    assert_eq!((status.rows, status.files, status.lag_records, status.error), (730, 3, 0, None));
    assert_eq!(status.table_version, Some(1));
    let report = node.lake.verify("readings").await.expect("verified");
    assert_eq!((report.files, report.rows, report.problems), (3, 730, Vec::<String>::new()));
    assert_eq!(read_all(&node, 0).await, expected(700));

    // Local retention of 0 ms lets tiered segments go: the cold tier has to answer.
    let topic = node.log.topic("readings").expect("a topic");
    let deadline = Instant::now() + Duration::from_secs(20);
    while topic.partitions[0].watermarks().local_start == Offset::ZERO && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cold = node.lake.read("readings", 0, Offset(123), 1).await.expect("cold");
    let (header, _) = Batches::new(cold).next().expect("a batch").expect("whole");
    assert!(header.base_offset <= Offset(123) && header.next_offset() > Offset(123));
    let at = node.lake.offset_for_time("readings", 0, Millis(1_700_000_000_600)).await.expect("readable");
    assert_eq!(at, Some((Offset(600), Millis(1_700_000_000_600))));
    assert_eq!(read_all(&node, 0).await, expected(700));
    drop(topic);
    node.stop().await;

    let node = start(folder.path(), &url(folder.path())).await;
    assert_eq!(read_all(&node, 0).await, expected(700));
    node.append("readings", 1, 30..31).await;
    node.lake.flush("readings").await.expect("flushed");
    let report = node.lake.verify("readings").await.expect("verified");
    assert_eq!((report.files, report.rows, report.problems), (4, 731, Vec::<String>::new()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_written_is_shown_and_used_once_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    // A file stands where the store's folder should be.
    std::fs::write(folder.path().join("lake"), "in the way").expect("written");
    let node = start(folder.path(), &url(folder.path())).await;
    node.readings(0..50).await;
    let error = node.lake.flush("readings").await.expect_err("no store").to_string();
    assert!(error.contains("readings"), "{error}");
    assert!(node.status().error.is_some());
    std::fs::remove_file(folder.path().join("lake")).expect("removed");
    node.lake.flush("readings").await.expect("flushed");
    assert_eq!((node.status().rows, node.status().error), (50, None));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_object_is_found_by_verify() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    let entry = node.lake.shared.manifest.all(node.log.topic("readings").expect("a topic").id).remove(0);
    std::fs::remove_file(folder.path().join("lake").join(&entry.path)).expect("removed");
    let report = node.lake.verify("readings").await.expect("verified");
    assert!(report.problems.iter().any(|problem| problem.contains(&entry.path)), "{:?}", report.problems);
    node.stop().await;
}
