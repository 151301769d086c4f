//! What the door tells of records that are only in the cold tier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_cluster::{AppendData, Log, LogOptions, RealFiles};
use forebay_log::record::RecordChunk;
use forebay_log::{Millis, Offset, TopicConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use kafka_protocol::protocol::Decodable;
use tokio_util::sync::CancellationToken;

use super::super::dispatch::Caller;
use super::super::limits::{COLD_FETCH_WAIT, COLD_GRACE};
use super::super::topics::topic_name;
use super::super::{Shared, fetch, list_offsets};
use super::shared;
use crate::config::{Config, Sources};
use crate::lake::Lake;
use crate::lake::tests::store::{Mood, Moods, MoodyStore};
use crate::metrics::Metrics;
use crate::reader::Reader;

#[tokio::test(flavor = "multi_thread")]
async fn the_record_with_the_largest_timestamp_is_found_where_only_the_cold_tier_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFiles::open(dir.path().join("data")).unwrap();
    let log = Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).unwrap();
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
    let shared = Arc::new(shared(log.clone(), Reader::new(Some(lake))));
    let session = super::anybody(&shared);
    let newest = async || {
        let partition = ListOffsetsPartition::default().with_timestamp(-3);
        let asked = ListOffsetsTopic::default().with_name(topic_name("readings")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![asked]);
        let answer = list_offsets::handle(&shared, &session, 7, request).await;
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

/// A topic of ten records that only the cold tier has, and one whose records are in the local log.
struct Tiers {
    shared: Arc<Shared>,
    moods: Moods,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn tiers() -> Tiers {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFiles::open(dir.path().join("data")).unwrap();
    let log = Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).unwrap();
    let url = format!("file:{}", dir.path().join("lake").display());
    let (store, moods) = MoodyStore::new(&url);
    let stop = CancellationToken::new();
    let lake = Lake::start_on(store, url, log.clone(), Arc::new(Metrics::new()), stop.clone()).await.unwrap();
    for (name, remote_storage_enable) in [("old", true), ("new", false)] {
        let config = TopicConfig {
            local_retention_ms: Some(0),
            lake_commit_interval_ms: 50,
            remote_storage_enable,
            ..TopicConfig::default()
        };
        let topic = log.create_topic(name, 1, config).await.unwrap();
        let mut chunk = RecordChunk::new();
        (0..10).for_each(|n| chunk.push(Millis(n), None, Some(b"{\"v\":1}"), &[]));
        topic.partitions[0].append(AppendData::Chunk(chunk)).await.unwrap();
    }
    lake.flush("old").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.topic("old").unwrap().partitions[0].watermarks().local_start == Offset::ZERO {
        assert!(Instant::now() < deadline, "the local copy stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Tiers { shared: Arc::new(shared(log, Reader::new(Some(lake)))), moods, stop, _dir: dir }
}

/// Fetches the first partitions of these topics from the start, as a consumer does that may wait half a second; for each
/// the error code and the bytes of records.
async fn fetch_from_start(shared: Arc<Shared>, topics: &[&str]) -> Vec<(i16, usize)> {
    fetch_at_least(1, shared, topics).await
}

async fn fetch_at_least(min_bytes: i32, shared: Arc<Shared>, topics: &[&str]) -> Vec<(i16, usize)> {
    let topics = topics.iter().map(|name| {
        let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
        FetchTopic::default().with_topic(topic_name(name)).with_partitions(vec![partition])
    });
    let request = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(min_bytes).with_max_bytes(50 << 20);
    let session = super::anybody(&shared);
    let answer =
        fetch::handle(shared, Caller::new(session, "test"), 11, 1, request.with_topics(topics.collect())).await;
    let mut body = Bytes::from(answer.pieces.concat()).slice(8..);
    let response = FetchResponse::decode(&mut body, 11).unwrap();
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|found| (found.error_code, found.records.as_ref().map_or(0, Bytes::len))).collect()
}

async fn soon<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), answer).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_that_does_not_answer_holds_up_nothing_but_what_only_it_has() {
    let Tiers { shared, moods, stop, _dir } = tiers().await;
    moods.set(Mood::Silent);
    let both = soon(fetch_from_start(shared.clone(), &["old", "new"])).await;
    assert!(matches!(both[..], [(0, 0), (0, 1..)]), "{both:?}");

    // More readers of old records than the door has memory for, if they took it from the others.
    let waiting: Vec<_> = (0..40).map(|_| tokio::spawn(fetch_from_start(shared.clone(), &["old"]))).collect();
    for _ in 0..10 {
        let new = soon(fetch_from_start(shared.clone(), &["new"])).await;
        assert!(matches!(new[..], [(0, 1..)]), "{new:?}");
    }
    assert!(waiting.iter().all(|fetch| !fetch.is_finished()), "they may wait for a while");
    for fetch in waiting {
        let old = soon(fetch).await.unwrap();
        assert_eq!(old, [(ResponseError::KafkaStorageError.code(), 0)], "to be tried again");
    }

    moods.set(Mood::Works);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let both = soon(fetch_from_start(shared.clone(), &["old", "new"])).await;
        if matches!(both[..], [(0, 1..), (0, 1..)]) {
            break;
        }
        assert!(Instant::now() < deadline, "{both:?}");
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_come_while_a_fetch_waits_for_the_cold_tier_are_answered() {
    let Tiers { shared, moods, stop, _dir } = tiers().await;
    moods.set(Mood::Silent);
    let topic = shared.door.log.create_topic("live", 1, TopicConfig::default()).await.unwrap();
    let fetching = tokio::spawn(fetch_from_start(shared.clone(), &["old", "live"]));
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1), None, Some(b"just now"), &[]);
    topic.partitions[0].append(AppendData::Chunk(chunk)).await.unwrap();
    let began = Instant::now();
    let both = soon(fetching).await.unwrap();
    assert!(matches!(both[..], [(0, 0), (0, 1..)]), "{both:?}");
    assert!(began.elapsed() < COLD_FETCH_WAIT, "it did not wait for the cold tier's last word");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_object_store_is_waited_for_when_there_is_nothing_else_to_answer() {
    let Tiers { shared, moods, stop, _dir } = tiers().await;
    moods.set(Mood::Silent);
    let fetches = [0, 1].map(|min_bytes| tokio::spawn(fetch_at_least(min_bytes, shared.clone(), &["old"])));
    // Longer than those wait who have something else.
    tokio::time::sleep(COLD_GRACE * 4).await;
    moods.set(Mood::Works);
    for fetch in fetches {
        let old = soon(fetch).await.unwrap();
        assert!(matches!(old[..], [(0, 1..)]), "{old:?}");
    }
    stop.cancel();
}
