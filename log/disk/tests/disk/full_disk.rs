//! A full disk: appends are refused with the right error, nothing is lost, metadata goes on, and so does the log when space
//! returns.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::common::{chunk, values};
use forebay_disk::sim::{Faults, SimFiles};
use forebay_disk::{AppendData, Files, Log};
use forebay_log::topic::CompressionType;
use forebay_log::{AppendError, Offset, TopicConfig};

const MIB: u64 = 1 << 20;

fn open(files: &SimFiles) -> Log {
    super::common::open_on(Arc::new(files.clone()), true)
}

fn uncompressed() -> TopicConfig {
    TopicConfig { compression_type: CompressionType::None, remote_storage_enable: false, ..TopicConfig::default() }
}

/// For records without keys.
fn internal() -> TopicConfig {
    TopicConfig { compact: false, ..TopicConfig::internal() }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_are_refused_metadata_and_internal_topics_go_on_and_all_resumes_by_itself() {
    let files = SimFiles::new(1);
    let log = open(&files);
    let topic = log.create_topic("t", 1, uncompressed()).await.unwrap();
    let state = log.create_topic("_alert_state", 1, internal()).await.unwrap();
    let partition = Arc::clone(&topic.partitions[0]);
    files.set_faults(Faults { capacity: Some(10 * MIB), ..Faults::default() });
    let big = "x".repeat(300_000);
    let mut kept = 0;
    let refused = loop {
        match partition.append(AppendData::Chunk(chunk(&[&big]))).await {
            Ok(appended) => {
                assert_eq!(appended.base_offset, Offset(kept));
                kept += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::DiskFull);
    assert!(kept > 1 && log.disk_full());
    assert_eq!(partition.append(AppendData::Chunk(chunk(&["small"]))).await, Err(AppendError::DiskFull));
    assert_eq!(values(&partition).len() as i64, kept, "what was acknowledged is read");

    log.create_topic("more", 1, uncompressed()).await.unwrap();
    log.alter_topic("t", TopicConfig { segment_bytes: MIB, ..uncompressed() }).await.unwrap();
    partition.set_log_start(Offset(1)).await.unwrap();
    state.partitions[0].append(AppendData::Chunk(chunk(&["state"]))).await.unwrap();

    files.set_faults(Faults { capacity: Some(30 * MIB), ..Faults::default() });
    until("space is noticed", || !log.disk_full()).await;
    let appended = partition.append(AppendData::Chunk(chunk(&["again"]))).await.unwrap();
    assert_eq!(appended.base_offset, Offset(kept), "no refused record took an offset");
    drop((log, topic, state, partition));

    files.crash();
    let log = open(&files);
    assert_eq!(
        values(&log.topic("t").unwrap().partitions[0]).len() as i64,
        kept,
        "all but the one below the log start"
    );
    assert_eq!(values(&log.topic("_alert_state").unwrap().partitions[0]), ["state"]);
    assert!(log.topic("more").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_that_fills_the_disk_does_not_get_the_reserve() {
    let files = SimFiles::new(3);
    let log = open(&files);
    let topic = log.create_topic("t", 1, uncompressed()).await.unwrap();
    let state =
        log.create_topic("_alert_state", 1, TopicConfig { compression_type: CompressionType::None, ..internal() });
    let state = state.await.unwrap();
    files.set_faults(Faults { capacity: Some(12 * MIB), ..Faults::default() });
    let big = "x".repeat(300_000);
    while topic.partitions[0].append(AppendData::Chunk(chunk(&[&big]))).await.is_ok() {}
    let other = files.open(Path::new("other"), true).unwrap();
    let mut taken = 0;
    while other.write_at(taken, &[std::io::IoSlice::new(&[1; 1000])]).is_ok() {
        taken += 1000;
    }
    // The program's own state may take most of the reserve, and even then what frees space can be written.
    let big = "x".repeat(1_000_000);
    let mut states = 0;
    while state.partitions[0].append(AppendData::Chunk(chunk(&[&big]))).await.is_ok() {
        states += 1;
    }
    assert!(states >= 4, "{states}");
    topic.partitions[0].set_log_start(Offset(1)).await.unwrap();
    log.create_topic("more", 1, uncompressed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_topic_on_a_full_disk_makes_room() {
    let files = SimFiles::new(2);
    let log = open(&files);
    let fat = log.create_topic("fat", 1, uncompressed()).await.unwrap();
    let thin = log.create_topic("thin", 1, uncompressed()).await.unwrap();
    files.set_faults(Faults { capacity: Some(16 * MIB), ..Faults::default() });
    let big = "x".repeat(300_000);
    while fat.partitions[0].append(AppendData::Chunk(chunk(&[&big]))).await.is_ok() {}
    assert!(log.disk_full());
    log.delete_topic("fat").await.unwrap();
    until("space is noticed", || !log.disk_full()).await;
    thin.partitions[0].append(AppendData::Chunk(chunk(&["fits"]))).await.unwrap();
}
