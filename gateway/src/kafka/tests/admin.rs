//! Looking after topics, partitions and producers through the door, byte by byte as a client does.

use std::time::Duration;

use forebay_log::record::{BatchBuilder, BatchHeader, Batches, Compression};
use forebay_log::{Epoch, Millis, Offset};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::topics::topic_name;
use super::door::{answer, frame, open, produce};

/// Sends a request and takes its answer.
pub(super) async fn ask<R>(stream: &mut TcpStream, request: &R, version: i16) -> R::Response
where
    R: Request + Encodable,
    R::Response: Decodable + HeaderVersion,
{
    stream.write_all(&frame(request, version, 1)).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(30), answer::<R::Response>(stream, version)).await;
    answered.unwrap().unwrap().1
}

/// A batch of one record, from a producer if that has an id.
pub(super) fn keyed(key: Option<&str>, value: Option<&str>, producer: i64) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Millis(1000), key.map(str::as_bytes), value.map(str::as_bytes), &[]);
    let mut batch = builder.build(Offset::ZERO, Epoch(-1)).unwrap().to_vec();
    if producer >= 0 {
        batch[43..51].copy_from_slice(&producer.to_be_bytes());
        batch[51..53].copy_from_slice(&2i16.to_be_bytes());
        batch[53..57].copy_from_slice(&0i32.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_gets_more_partitions_and_never_fewer() {
    let door = open().await;
    let mut client = door.client().await;
    client.create_topic("t", Some(2), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    let grow = |count| {
        let topic = CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(count);
        CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None)]).with_timeout_ms(1000)
    };
    assert_eq!(ask(&mut stream, &grow(3).with_validate_only(true), 3).await.results[0].error_code, 0);
    assert_eq!(client.topic("t", false).await.unwrap().partitions.len(), 2, "only asked whether it could be");
    assert_eq!(ask(&mut stream, &grow(3), 3).await.results[0].error_code, 0);
    let produced = ask(&mut stream, &produce("t", 2, -1, keyed(None, Some("v"), -1)), 9).await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    for fewer in [3, 1, 0, -4, 1_000_000] {
        let code = ask(&mut stream, &grow(fewer), 3).await.results[0].error_code;
        assert_eq!(code, ResponseError::InvalidPartitions.code(), "{fewer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_up_to_an_offset() {
    let door = open().await;
    door.client().await.create_topic("t", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    for _ in 0..5 {
        ask(&mut stream, &produce("t", 0, -1, keyed(None, Some("v"), -1)), 9).await;
    }
    let delete = |partition, offset| {
        let part = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![part]);
        DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
    };
    for (partition, offset, start, code) in [
        (0, 2, 2, 0),
        (0, 1, 2, 0),
        (0, 6, -1, ResponseError::OffsetOutOfRange.code()),
        (0, -2, -1, ResponseError::OffsetOutOfRange.code()),
        (7, 1, -1, ResponseError::UnknownTopicOrPartition.code()),
        (0, -1, 5, 0),
    ] {
        let answered = ask(&mut stream, &delete(partition, offset), 2).await;
        let result = &answered.topics[0].partitions[0];
        assert_eq!((result.low_watermark, result.error_code), (start, code), "{partition} {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_leader_epoch_ended_is_told() {
    let door = open().await;
    door.client().await.create_topic("t", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    ask(&mut stream, &produce("t", 0, -1, keyed(None, Some("v"), -1)), 9).await;
    for (current, epoch, code, end) in [
        (-1, 0, 0, (0, 1)),
        (0, 0, 0, (0, 1)),
        (0, 9, 0, (-1, -1)),
        (5, 0, ResponseError::UnknownLeaderEpoch.code(), (-1, -1)),
    ] {
        let part = OffsetForLeaderPartition::default().with_current_leader_epoch(current).with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![part]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answered = ask(&mut stream, &request, 4).await;
        let found = &answered.topics[0].partitions[0];
        assert_eq!((found.error_code, (found.leader_epoch, found.end_offset)), (code, end), "{current} {epoch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alter_configs_leaves_only_what_it_names() {
    let door = open().await;
    let mut client = door.client().await;
    let configs = [("retention.ms".to_owned(), "7000".to_owned())];
    client.create_topic("t", Some(1), None, &configs).await.unwrap();
    let mut stream = door.raw().await;
    let alter = |name: &'static str, value: &'static str| {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str("t"))
            .with_configs(vec![config]);
        AlterConfigsRequest::default().with_resources(vec![resource])
    };
    let refused = ask(&mut stream, &alter("flush.everything", "1"), 2).await.responses.remove(0);
    assert_eq!(refused.error_code, ResponseError::InvalidConfig.code());
    assert_eq!(ask(&mut stream, &alter("segment.ms", "9000"), 2).await.responses[0].error_code, 0);
    let own: Vec<_> = client.topic_configs("t").await.unwrap().into_iter().filter(|config| config.own).collect();
    let own: Vec<_> = own.iter().map(|config| (config.name.as_str(), config.value.as_str())).collect();
    assert_eq!(own, [("segment.ms", "9000")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_described_page_by_page() {
    let door = open().await;
    let mut client = door.client().await;
    client.create_topic("a", Some(3), None, &[]).await.unwrap();
    client.create_topic("b", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    let mut pages: Vec<Vec<(String, usize)>> = Vec::new();
    let mut cursor = None;
    loop {
        let next = cursor.map(|(name, index): (TopicName, i32)| {
            describe_topic_partitions_request::Cursor::default().with_topic_name(name).with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(2).with_cursor(next);
        let page = ask(&mut stream, &request, 0).await;
        pages.push(page.topics.iter().map(|t| (t.name.clone().unwrap().to_string(), t.partitions.len())).collect());
        cursor = match page.next_cursor {
            Some(next) => Some((next.topic_name, next.partition_index)),
            None => break,
        };
    }
    let owned = |name: &str, count| (name.to_owned(), count);
    assert_eq!(pages, [vec![owned("a", 2)], vec![owned("a", 1), owned("b", 1)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_and_the_disk_are_described() {
    let door = open().await;
    door.client().await.create_topic("t", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    ask(&mut stream, &produce("t", 0, -1, keyed(None, Some("v"), 77)), 9).await;
    let topic = TopicRequest::default().with_name(topic_name("t")).with_partition_indexes(vec![0, 3]);
    let answered = ask(&mut stream, &DescribeProducersRequest::default().with_topics(vec![topic]), 0).await;
    let [there, missing] = &answered.topics[0].partitions[..] else { panic!("two partitions were asked for") };
    let producer = &there.active_producers[0];
    let seen = (producer.producer_id.0, producer.producer_epoch, producer.last_sequence, producer.last_timestamp);
    assert_eq!(seen, (77, 2, 0, 1000));
    assert_eq!(missing.error_code, ResponseError::UnknownTopicOrPartition.code());
    let dirs = ask(&mut stream, &DescribeLogDirsRequest::default().with_topics(None), 4).await;
    let topic = dirs.results[0].topics.iter().find(|topic| topic.name == topic_name("t")).unwrap();
    assert_eq!(topic.partitions[0].partition_size, keyed(None, Some("v"), 77).len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_session_tells_only_news() {
    let door = open().await;
    door.client().await.create_topic("t", Some(3), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    let fetch = |id, epoch, partitions: &[i32]| {
        let asked =
            partitions.iter().map(|&p| FetchPartition::default().with_partition(p).with_partition_max_bytes(999));
        let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(asked.collect());
        let topics = if partitions.is_empty() { Vec::new() } else { vec![topic] };
        let request = FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(topics);
        request.with_max_bytes(1 << 20).with_min_bytes(1).with_max_wait_ms(50)
    };
    let first = ask(&mut stream, &fetch(0, 0, &[0, 1, 2]), 12).await;
    assert_eq!((first.session_id != 0, first.responses[0].partitions.len()), (true, 3));
    let quiet = ask(&mut stream, &fetch(first.session_id, 1, &[]), 12).await;
    assert_eq!((quiet.session_id, quiet.responses.len()), (first.session_id, 0));
    let mut other = door.raw().await;
    ask(&mut other, &produce("t", 1, -1, keyed(None, Some("v"), -1)), 9).await;
    // The session is the node's: it goes on over another connection.
    let news = ask(&mut other, &fetch(first.session_id, 2, &[]), 12).await;
    let told: Vec<i32> = news.responses[0].partitions.iter().map(|part| part.partition_index).collect();
    assert_eq!(told, [1]);
    let stale = ask(&mut stream, &fetch(first.session_id, 2, &[]), 12).await;
    assert_eq!(stale.error_code, ResponseError::InvalidFetchSessionEpoch.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn append_time_and_in_sync_replicas_are_what_the_topic_says() {
    let door = open().await;
    let configs = [("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())];
    door.client().await.create_topic("now", Some(1), None, &configs).await.unwrap();
    let configs = [("min.insync.replicas".to_owned(), "2".to_owned())];
    door.client().await.create_topic("safe", Some(1), None, &configs).await.unwrap();
    let mut stream = door.raw().await;
    let produced = ask(&mut stream, &produce("now", 0, 1, keyed(None, Some("v"), -1)), 9).await;
    let time = produced.responses[0].partition_responses[0].log_append_time_ms;
    assert!(time > 1_700_000_000_000, "{time}");
    let mut client = door.client().await;
    let leader = client.topic("now", false).await.unwrap().partitions[0].leader;
    let fetched = client.fetch(leader, "now", &[(0, Offset(0))], 1 << 20, Duration::ZERO).await.unwrap();
    let (header, _) = Batches::new(fetched[0].batches.clone()).next().unwrap().unwrap();
    assert_eq!((header.is_log_append_time(), header.max_timestamp), (true, Millis(time)));
    for (acks, code) in [(-1, ResponseError::NotEnoughReplicas.code()), (1, 0)] {
        let produced = ask(&mut stream, &produce("safe", 0, acks, keyed(None, Some("v"), -1)), 9).await;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, code, "acks={acks}");
    }
    assert!(BatchHeader::parse(&keyed(None, None, 3)).is_ok_and(|header| header.producer_id == 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_own_codec_holds_for_producers_batches_too() {
    let door = open().await;
    let mut client = door.client().await;
    let value = "again and ".repeat(200);
    for (name, codec, stored) in [
        ("squeezed", Some("gzip"), Compression::Gzip),
        ("plain", None, Compression::None),
        ("kept", Some("producer"), Compression::None),
    ] {
        let configs: Vec<_> =
            codec.map(|codec| ("compression.type".to_owned(), codec.to_owned())).into_iter().collect();
        client.create_topic(name, Some(1), None, &configs).await.unwrap();
        let mut stream = door.raw().await;
        for _ in 0..2 {
            let produced = ask(&mut stream, &produce(name, 0, -1, keyed(Some("k"), Some(&value), 9)), 9).await;
            let part = &produced.responses[0].partition_responses[0];
            assert_eq!((part.error_code, part.base_offset), (0, 0), "{name}: a repeat is known again");
        }
        let leader = client.topic(name, false).await.unwrap().partitions[0].leader;
        let fetched = client.fetch(leader, name, &[(0, Offset(0))], 1 << 20, Duration::ZERO).await.unwrap();
        let (header, batch) = Batches::new(fetched[0].batches.clone()).next().unwrap().unwrap();
        header.check_crc(&batch).unwrap();
        assert_eq!((header.compression().unwrap(), header.producer_id), (stored, 9), "{name}");
        let record = forebay_log::record::RecordReader::new(&header, &batch).unwrap().next().unwrap().unwrap();
        assert_eq!((record.value.as_deref(), record.timestamp), (Some(value.as_bytes()), Millis(1000)), "{name}");
    }
}
