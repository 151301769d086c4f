//! What the door tells of records that are only in the cold tier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_disk::{AppendData, Log, LogOptions, RealFiles};
use forebay_log::record::RecordChunk;
use forebay_log::{Millis, Offset, TopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use tokio_util::sync::CancellationToken;

use super::super::list_offsets;
use super::super::topics::topic_name;
use super::shared;
use crate::config::{Config, Sources};
use crate::lake::Lake;
use crate::metrics::Metrics;
use crate::reader::Reader;

#[tokio::test(flavor = "multi_thread")]
async fn the_record_with_the_largest_timestamp_is_found_where_only_the_cold_tier_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFiles::open(dir.path().join("data")).unwrap();
    let log = Log::open(files, LogOptions { shards: 1, fsync: false }).unwrap();
    let mut config = Config::load(&Sources::default()).unwrap();
    config.object_store.url = format!("file:{}", dir.path().join("lake").display());
    let stop = CancellationToken::new();
    let lake = Lake::start(log.clone(), Arc::new(config), Arc::new(Metrics::new()), stop.clone()).await.unwrap();
    let config = TopicConfig { local_retention_ms: Some(0), lake_commit_interval_ms: 50, ..TopicConfig::default() };
    let topic = log.create_topic("readings", 1, config).await.unwrap();
    let append = async |timestamps: &[i64]| {
        let mut chunk = RecordChunk::new();
        for timestamp in timestamps {
            chunk.push(Millis(*timestamp), None, Some(b"{\"v\":1}"), &[]);
        }
        topic.partitions[0].append(AppendData::Chunk(chunk)).await.unwrap();
    };
    let late = 1_700_000_000_000;
    append(&[late - 9, late, late - 7]).await;
    lake.flush("readings").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while topic.partitions[0].watermarks().local_start == Offset::ZERO {
        assert!(Instant::now() < deadline, "the local copy stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shared = shared(log.clone(), Reader::new(Some(lake)));
    let newest = async || {
        let partition = ListOffsetsPartition::default().with_timestamp(-3);
        let asked = ListOffsetsTopic::default().with_name(topic_name("readings")).with_partitions(vec![partition]);
        let answer = list_offsets::handle(&shared, 7, ListOffsetsRequest::default().with_topics(vec![asked])).await;
        let found = &answer.topics[0].partitions[0];
        (found.error_code, found.offset, found.timestamp)
    };
    assert_eq!(newest().await, (0, 1, late));
    append(&[late - 5]).await;
    assert_eq!(newest().await, (0, 1, late));
    append(&[late + 1]).await;
    assert_eq!(newest().await, (0, 4, late + 1));
    stop.cancel();
}
