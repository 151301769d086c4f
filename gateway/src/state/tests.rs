//! State survives what happens to a node, and is the same for all who write it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_cluster::{AppendData, LocalLog, Log, LogError, LogOptions, RealFiles};
use forebay_log::partition::Leadership;
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Millis, NodeId, Offset, TopicConfig};
use tempfile::TempDir;

use super::StateTopic;

const TOPIC: &str = "_mqtt_sessions";

/// Opens the log; the one before lets go of the directory when its last task has ended.
async fn open_log(dir: &TempDir) -> Log {
    let deadline = Instant::now() + Duration::from_secs(10);
    let files = loop {
        match RealFiles::open(dir.path()) {
            Err(LogError::Locked) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.unwrap_or_else(|error| panic!("{error}")),
        }
    };
    let options = LogOptions { shards: 1, fsync: false, alone: true };
    Log::open(files, options).unwrap_or_else(|error| panic!("{error}"))
}

async fn open(log: &Log) -> Arc<StateTopic> {
    StateTopic::open(log, TOPIC).await.unwrap_or_else(|error| panic!("{error}"))
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
}

async fn close(log: Log, state: Arc<StateTopic>) {
    drop(state);
    let _ = tokio::task::spawn_blocking(move || log.shutdown()).await;
}

fn log_start(log: &Log) -> i64 {
    log.topic(TOPIC).map_or(0, |topic| topic.partitions[0].watermarks().log_start.0)
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart_and_what_was_removed_is_not() {
    let dir = dir();
    let log = open_log(&dir).await;
    let state = open(&log).await;
    for (key, value) in [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("b", None)] {
        assert_eq!(state.put(key, value.map(Bytes::from)).await, Ok(()));
    }
    close(log, state).await;

    let log = open_log(&dir).await;
    let state = open(&log).await;
    assert_eq!(state.scan(b""), [(Bytes::from("a"), Bytes::from("3"))]);
    assert_eq!(state.get(b"b"), None);
    close(log, state).await;
}

#[tokio::test]
async fn puts_at_once_all_hold_and_later_ones_win() {
    let dir = dir();
    let log = open_log(&dir).await;
    let state = open(&log).await;
    let puts = (0..500u32).map(|i| {
        let state = state.clone();
        tokio::spawn(async move { state.put(format!("k{}", i % 50), Some(Bytes::from(i.to_string()))).await })
    });
    for put in puts.collect::<Vec<_>>() {
        assert!(matches!(put.await, Ok(Ok(()))));
    }
    let seen = state.scan(b"k");
    assert_eq!(seen.len(), 50);
    close(log, state).await;

    let log = open_log(&dir).await;
    let state = open(&log).await;
    assert_eq!(state.scan(b"k"), seen, "the log has the same order as memory");
    close(log, state).await;
}

#[tokio::test]
async fn two_writers_end_with_the_same_and_each_sees_what_it_put() {
    let dir = dir();
    let log = open_log(&dir).await;
    let views = [open(&log).await, open(&log).await];
    let puts = (0..600u32).map(|i| {
        let state = views[(i % 2) as usize].clone();
        tokio::spawn(async move {
            let (own, value) = (format!("own{i}"), Bytes::from(i.to_string()));
            let both =
                vec![(Bytes::from(format!("k{}", i % 7)), Some(value.clone())), (own.clone().into(), Some(value))];
            assert_eq!(state.put_all(both).await, Ok(()));
            assert!(state.get(own.as_bytes()).is_some(), "{own} is not applied when its put returns");
        })
    });
    for put in puts.collect::<Vec<_>>() {
        assert!(put.await.is_ok());
    }
    for view in &views {
        assert_eq!(view.sync().await, Ok(()));
    }
    let seen = views[0].scan(b"");
    assert_eq!(seen.len(), 607);
    assert_eq!(views[1].scan(b""), seen);
    let [one, two] = views;
    drop(two);
    close(log, one).await;

    let log = open_log(&dir).await;
    let state = open(&log).await;
    assert_eq!(state.scan(b""), seen, "the log has the same order as memory");
    close(log, state).await;
}

#[tokio::test]
async fn observers_are_told_of_every_change_once_in_the_order_of_the_log() {
    let dir = dir();
    let log = open_log(&dir).await;
    let (ours, other) = (open(&log).await, open(&log).await);
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    ours.observe(move |changes| telling.lock().unwrap().extend(changes.iter().map(|(_, value)| value.clone())));
    for i in 0..50 {
        let state = if i % 3 == 0 { &ours } else { &other };
        assert_eq!(state.put("k", Some(Bytes::from(i.to_string()))).await, Ok(()));
    }
    assert_eq!(ours.sync().await, Ok(()));
    let expected: Vec<_> = (0..50).map(|i: u32| Some(Bytes::from(i.to_string()))).chain([None]).collect();
    assert_eq!(*told.lock().unwrap(), expected);
    drop(other);
    close(log, ours).await;
}

#[tokio::test]
async fn a_topic_that_an_earlier_release_compacted_by_itself_is_left_to_the_cleaner() {
    let dir = dir();
    let log = open_log(&dir).await;
    let config = TopicConfig { self_compacting: true, ..TopicConfig::internal() };
    assert!(log.create_topic(TOPIC, 1, config).await.is_ok());
    let partition = log.topic(TOPIC).map(|topic| topic.partitions[0].clone()).unwrap();
    // A live set that was written again, with the log start moved up to it.
    for value in ["1", "2", "3"] {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(0), Some(b"a"), Some(value.as_bytes()), &[]);
        assert!(partition.append(AppendData::Chunk(chunk)).await.is_ok());
    }
    assert_eq!(partition.set_log_start(Offset(2)).await, Ok(()));
    drop(partition);
    let state = open(&log).await;
    assert_eq!(state.scan(b""), [(Bytes::from("a"), Bytes::from("3"))]);
    let config = log.topic(TOPIC).unwrap().config();
    assert!(config.compact && !config.self_compacting);
    close(log, state).await;
}

#[tokio::test]
async fn state_that_cannot_be_opened_is_not_taken_for_empty() {
    let dir = dir();
    let log = open_log(&dir).await;
    let state = open(&log).await;
    assert_eq!(state.put("a", Some(Bytes::from("1"))).await, Ok(()));
    close(log, state).await;
    let file = dir.path().join("log").join(format!("{TOPIC}-0")).join("partition.state");
    assert!(std::fs::write(file, "damaged").is_ok());

    let log = open_log(&dir).await;
    let opened = StateTopic::open(&log, TOPIC).await;
    let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("_mqtt_sessions-0") && error.contains("cannot be opened"), "{error}");
    let _ = tokio::task::spawn_blocking(move || log.shutdown()).await;
}

#[tokio::test]
async fn changes_of_several_megabytes_are_made_together() {
    let dir = dir();
    let log = open_log(&dir).await;
    let state = open(&log).await;
    // Bytes that no codec makes smaller.
    let mut seed = 1u64;
    let mut noise = || -> Bytes {
        (0..700_000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect()
    };
    let changes: Vec<_> = ["a", "b", "c"].map(|key| (Bytes::from(key), Some(noise()))).into();
    assert_eq!(state.put_all(changes).await, Ok(()));
    let kept = state.scan(b"");
    close(log, state).await;
    let log = open_log(&dir).await;
    let state = open(&log).await;
    assert_eq!(state.scan(b"").len(), 3);
    assert!(state.scan(b"") == kept);
    close(log, state).await;
}

#[tokio::test]
async fn a_change_that_was_replicated_too_seldom_is_seen_by_whoever_is_told_so() {
    let dir = dir();
    let options = LogOptions { shards: 1, fsync: false, alone: true };
    let files = RealFiles::open(dir.path()).unwrap_or_else(|error| panic!("{error}"));
    let local = LocalLog::open(files, options).unwrap_or_else(|error| panic!("{error}"));
    let log = Log::alone(NodeId(1), local.clone());
    let config = TopicConfig { min_insync_replicas: 2, ..TopicConfig::internal() };
    assert!(log.create_topic(TOPIC, 1, config).await.is_ok());
    let replica = local.topic(TOPIC).and_then(|topic| topic.partition(0).cloned()).unwrap();
    let epoch = replica.leader_epoch().next();
    let lead = async |partition_epoch, in_sync| {
        let partition_epoch = forebay_log::PartitionEpoch(partition_epoch);
        let word = Leadership { epoch, partition_epoch, followers: vec![NodeId(2)], in_sync, max_lag_ms: 60_000 };
        assert!(replica.lead(word).await.is_ok());
    };
    let state = open(&log).await;
    for turn in 0..20 {
        lead(turn * 2 + 1, vec![NodeId(2)]).await;
        let end = replica.watermarks().log_end;
        let putting = state.clone();
        let value = Bytes::from(turn.to_string());
        let put = tokio::spawn(async move { putting.put("a", Some(value)).await });
        while replica.watermarks().log_end == end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Without the other replica it is committed.
        lead(turn * 2 + 2, Vec::new()).await;
        assert!(matches!(put.await, Ok(Err(AppendError::NotEnoughReplicasAfterAppend))));
        assert_eq!(state.get(b"a"), Some(Bytes::from(turn.to_string())));
    }
    drop(replica);
    close(log, state).await;
}

/// Flips a byte in the values of the batch whose value is `value`, as a failing disk does.
fn damage(dir: &TempDir, value: &str) {
    let file = dir.path().join("log").join(format!("{TOPIC}-0")).join("00000000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}"));
    let at = bytes.windows(value.len()).position(|window| window == value.as_bytes());
    bytes[at.unwrap_or_else(|| panic!("{value} is on the disk"))] ^= 1;
    assert!(std::fs::write(file, bytes).is_ok());
}

#[tokio::test]
async fn a_damaged_batch_costs_its_own_changes_only_and_is_told_until_its_user_goes_on() {
    let dir = dir();
    let log = open_log(&dir).await;
    let state = open(&log).await;
    let changes = [("a", Some("old-a")), ("b", Some("old-b")), ("a", Some("damaged")), ("b", None), ("c", Some("new"))];
    for (key, value) in changes {
        assert_eq!(state.put(key, value.map(Bytes::from)).await, Ok(()));
    }
    assert_eq!(state.damaged(), None);
    close(log, state).await;
    damage(&dir, "damaged");

    let expected = [(Bytes::from("a"), Bytes::from("old-a")), (Bytes::from("c"), Bytes::from("new"))];
    for _ in 0..2 {
        let log = open_log(&dir).await;
        let state = open(&log).await;
        assert_eq!(state.scan(b""), expected);
        let damaged = state.damaged().unwrap_or_default();
        assert!(
            damaged.starts_with("_mqtt_sessions: offsets 2 up to 3 (") && damaged.contains(".log at byte"),
            "{damaged}"
        );
        assert_eq!(state.put("c", Some(Bytes::from("new"))).await, Ok(()));
        assert_eq!(log_start(&log), 0, "what is damaged is not thrown away unasked");
        close(log, state).await;
    }
    let log = open_log(&dir).await;
    let state = open(&log).await;
    state.go_on_damaged();
    assert_eq!(state.put("d", Some(Bytes::from("later"))).await, Ok(()));
    assert!(log_start(&log) > 5, "log start {}", log_start(&log));
    close(log, state).await;

    let log = open_log(&dir).await;
    let state = open(&log).await;
    assert_eq!(state.damaged(), None);
    assert_eq!(state.scan(b"")[..2], expected);
    assert_eq!(state.get(b"d"), Some(Bytes::from("later")));
    close(log, state).await;
}
