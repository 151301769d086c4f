//! The log of a node on the real file system: appends, reads, restarts, topics.

use super::common::{chunk, open, values};
use forebay_disk::{AppendData, LogError};
use forebay_log::record::{BatchHeader, RecordChunk};
use forebay_log::topic::CompressionType;
use forebay_log::{Millis, Offset, ReadError, TopicConfig};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_read_back_in_order_and_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic("readings", 2, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[1];
    let first = partition.append(AppendData::Chunk(chunk(&["a", "b"]))).await.unwrap();
    let second = partition.append(AppendData::Chunk(chunk(&["c"]))).await.unwrap();
    assert_eq!((first.base_offset, first.last_offset, second.base_offset), (Offset(0), Offset(1), Offset(2)));
    assert_eq!(values(partition), ["a", "b", "c"]);
    log.shutdown();
    let refused = partition.append(AppendData::Chunk(chunk(&["late"]))).await;
    assert_eq!(refused, Err(forebay_log::AppendError::Closed));
    drop((log, topic));

    let log = open(dir.path());
    let topic = log.topic("readings").unwrap();
    let partition = &topic.partitions[1];
    assert_eq!(values(partition), ["a", "b", "c"]);
    assert_eq!(partition.append(AppendData::Chunk(chunk(&["d"]))).await.unwrap().base_offset, Offset(3));
    assert_eq!(values(partition), ["a", "b", "c", "d"]);
    assert_eq!(partition.leader_epoch().0, 1, "each start begins a leader epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_keep_their_identity_and_configs_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (cluster, changed) = (log.cluster_id(), log.topics_changed());
    let topic = log.create_topic("a.b", 3, TopicConfig::default()).await.unwrap();
    log.create_topic("gone", 1, TopicConfig::default()).await.unwrap();
    let config = TopicConfig { retention_ms: None, ..TopicConfig::default() };
    log.alter_topic("a.b", config.clone()).await.unwrap();
    log.delete_topic("gone").await.unwrap();
    assert!(changed.has_changed().unwrap());
    assert!(matches!(log.create_topic("a.b", 1, config.clone()).await, Err(LogError::TopicExists(_))));
    assert!(matches!(log.create_topic("a/b", 1, config.clone()).await, Err(LogError::InvalidTopic(_))));
    assert!(matches!(log.delete_topic("gone").await, Err(LogError::UnknownTopic(_))));
    let id = topic.id;
    drop((log, topic));

    let log = open(dir.path());
    assert_eq!(log.cluster_id(), cluster);
    let topic = log.topic("a.b").unwrap();
    assert_eq!((topic.id, topic.partitions.len(), &*topic.config()), (id, 3, &config));
    assert!(log.topic("gone").is_none());
    assert!(!dir.path().join("log/gone-0").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_roll_close_and_leave_by_tiering_and_log_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let config = TopicConfig { local_retention_ms: Some(0), ..TopicConfig::default() };
    let topic = log.create_topic("t", 1, config).await.unwrap();
    let partition = &topic.partitions[0];
    for value in ["a", "b", "c"] {
        partition.append(AppendData::Chunk(chunk(&[value]))).await.unwrap();
        partition.roll().await.unwrap();
    }
    let closed = partition.closed_segments();
    assert_eq!(closed.iter().map(|s| (s.base_offset.0, s.end_offset.0)).collect::<Vec<_>>(), [(0, 1), (1, 2), (2, 3)]);
    partition.set_tiered(Offset(2)).await.unwrap();
    let mut watch = partition.watch();
    watch.wait_for(|marks| marks.local_start == Offset(2)).await.unwrap();
    assert_eq!(partition.watermarks().log_start, Offset(0), "the cold tier still has them");
    let tiered = partition.read(Offset(0), 1000);
    assert!(matches!(tiered, Err(ReadError::Tiered { .. })), "{tiered:?}");
    partition.set_log_start(Offset(1)).await.unwrap();
    assert!(matches!(partition.read(Offset(0), 1000), Err(ReadError::OutOfRange { .. })));
    assert_eq!(values(partition), ["c"]);
    drop((log, topic));

    let log = open(dir.path());
    let partition = log.topic("t").unwrap().partitions[0].clone();
    let marks = partition.watermarks();
    assert_eq!((marks.log_start, marks.local_start, marks.log_end), (Offset(1), Offset(2), Offset(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic("t", 1, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[0];
    for time in [1000, 3000, 2000, 5000] {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(time), None, Some(b"x"), &[]);
        partition.append(AppendData::Chunk(chunk)).await.unwrap();
        if time == 3000 {
            partition.roll().await.unwrap();
        }
    }
    let found = |at| partition.offset_for_time(Millis(at)).unwrap().map(|(offset, time)| (offset.0, time.0));
    assert_eq!(found(0), Some((0, 1000)));
    assert_eq!(found(1500), Some((1, 3000)));
    assert_eq!(found(3001), Some((3, 5000)));
    assert_eq!(found(5001), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn index_files_hold_what_kafkas_tools_expect() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let config = TopicConfig { compression_type: CompressionType::None, ..TopicConfig::default() };
    let topic = log.create_topic("t", 1, config).await.unwrap();
    let partition = &topic.partitions[0];
    partition.append(AppendData::Chunk(chunk(&["not at offset 0"]))).await.unwrap();
    partition.roll().await.unwrap();
    for n in 0..30 {
        let mut chunk = RecordChunk::new();
        for _ in 0..3 {
            chunk.push(Millis(1000 + n), None, Some(&[b'x'; 500]), &[]);
        }
        partition.append(AppendData::Chunk(chunk)).await.unwrap();
    }
    partition.roll().await.unwrap();
    let path = dir.path().join("log/t-0/00000000000000000001.log");
    let (bytes, base) = (std::fs::read(&path).unwrap(), 1);
    let index = std::fs::read(path.with_extension("index")).unwrap();
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let entries: Vec<(u32, u32)> = index.chunks(8).map(|e| (word(&e[..4]), word(&e[4..]))).collect();
    assert!(entries.len() > 5, "an entry for each 4 KiB, and no room kept behind them");
    for (offset, position) in entries {
        let header = BatchHeader::parse(&bytes[position as usize..]).unwrap();
        assert_eq!(header.last_offset(), Offset(base + i64::from(offset)));
    }
    let times = std::fs::read(path.with_extension("timeindex")).unwrap();
    assert_eq!(times.len() % 12, 0);
    let last = &times[times.len() - 12..];
    assert_eq!(i64::from_be_bytes(last[..8].try_into().unwrap()), 1029, "ends with the greatest timestamp");
    assert_eq!(word(&last[8..]), 89);
    let epochs = std::fs::read_to_string(dir.path().join("log/t-0/leader-epoch-checkpoint")).unwrap();
    assert_eq!(epochs, "0\n1\n0 0\n");
    let identity = std::fs::read_to_string(dir.path().join("log/t-0/partition.metadata")).unwrap();
    assert!(identity.starts_with("version: 0\ntopic_id: "), "{identity}");
}
