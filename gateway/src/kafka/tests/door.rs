//! The door over a real log: what a client sees on its connection, good requests and bad ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use forebay_cluster::{Log, LogOptions, RealFiles};
use forebay_log::record::{BatchBuilder, Batches, Compression, RecordReader};
use forebay_log::{Epoch, Millis, Offset};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::super::limits::{MAX_REQUEST_BYTES, REQUEST_MEMORY};
use super::super::serve;
use super::super::topics::topic_name;
use crate::client::kafka::{Acks, At, Client, Refused};
use crate::reader::Reader;

/// A door on a fresh log.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

pub(super) async fn open() -> Door {
    let dir = tempfile::tempdir().unwrap();
    let log =
        Log::open(RealFiles::open(dir.path()).unwrap(), LogOptions { shards: 1, fsync: true, alone: true }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serving(dir, log, listener)
}

/// The same in a cluster of one node, which has settings.
pub(super) async fn open_clustered() -> Door {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = RealFiles::open(dir.path()).unwrap();
    let log = super::clustered(files, true, listener.local_addr().unwrap()).await;
    serving(dir, log, listener)
}

fn serving(dir: tempfile::TempDir, log: Log, listener: TcpListener) -> Door {
    let address = listener.local_addr().unwrap();
    let door = super::door(log, Reader::new(None), address);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(door, listener, shutdown.clone()));
    Door { address, shutdown, serving, _dir: dir }
}

impl Door {
    pub(super) async fn client(&self) -> Client {
        Client::connect(&self.address.to_string()).await.unwrap()
    }
    pub(super) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

pub(super) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (n, value) in values.iter().enumerate() {
        builder.push(n as i32, Millis(1000 * n as i64), None, Some(value.as_bytes()), &[]);
    }
    builder.build(Offset::ZERO, Epoch(-1)).unwrap()
}

pub(super) fn values(batches: Bytes) -> Vec<String> {
    let mut values = Vec::new();
    for batch in Batches::new(batches) {
        let (header, batch) = batch.unwrap();
        for record in RecordReader::new(&header, &batch).unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

pub(super) fn frame<R: Request>(request: &R, version: i16, correlation: i32) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation);
    header.encode(&mut frame, R::header_version(version)).unwrap();
    request.encode(&mut frame, version).unwrap();
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// The next answer's correlation id and body, `None` when the door closed the connection.
pub(super) async fn answer<M: Decodable + HeaderVersion>(stream: &mut TcpStream, version: i16) -> Option<(i32, M)> {
    let length = stream.read_i32().await.ok()?;
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await.ok()?;
    let mut body = Bytes::from(body);
    let header = ResponseHeader::decode(&mut body, M::header_version(version)).unwrap();
    Some((header.correlation_id, M::decode(&mut body, version).unwrap()))
}

pub(super) fn produce(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let part = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![part]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

fn error_code(response: &ProduceResponse) -> i16 {
    response.responses[0].partition_responses[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_1970_is_before_every_record() {
    let door = open().await;
    let mut client = door.client().await;
    let topic = client.topic("readings", true).await.unwrap();
    client.produce(topic.partitions[0].leader, "readings", 0, batch(&["a", "b"]), Acks::All).await.unwrap();
    for before in [-1, -2, -3, -30_000 * 86_400_000] {
        let found = client.offset(topic.partitions[0].leader, "readings", 0, At::Time(Millis(before))).await.unwrap();
        assert_eq!(found, Offset(0), "{before}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_appended_found_by_time_and_read_back() {
    let door = open().await;
    let mut client = door.client().await;
    let topic = client.topic("readings", true).await.unwrap();
    let leader = topic.partitions[1].leader;
    for acks in [Acks::All, Acks::Leader] {
        client.produce(leader, "readings", 1, batch(&["a", "b"]), acks).await.unwrap();
    }
    assert_eq!(client.offset(leader, "readings", 1, At::End).await.unwrap(), Offset(4));
    assert_eq!(client.offset(leader, "readings", 1, At::Time(Millis(500))).await.unwrap(), Offset(1));
    assert_eq!(client.offset(leader, "readings", 1, At::Time(Millis(9000))).await.unwrap(), Offset(4));
    let fetched = client.fetch(leader, "readings", &[(1, Offset(0))], 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!(fetched[0].high_watermark, Offset(4));
    assert_eq!(values(fetched[0].batches.clone()), ["a", "b", "a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_answered_by_the_next_record_and_not_by_its_deadline() {
    let door = open().await;
    let mut writer = door.client().await;
    let leader = writer.topic("readings", true).await.unwrap().partitions[0].leader;
    let mut reader = door.client().await;
    reader.topic("readings", false).await.unwrap();
    let began = Instant::now();
    let from = [(0, Offset(0)), (1, Offset(0))];
    let reading = reader.fetch(leader, "readings", &from, 1 << 20, Duration::from_secs(20));
    let (fetched, written) = tokio::join!(reading, writer.produce(leader, "readings", 1, batch(&["late"]), Acks::All));
    written.unwrap();
    let records: Vec<String> = fetched.unwrap().into_iter().flat_map(|part| values(part.batches)).collect();
    assert_eq!(records, ["late"]);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_that_announce_much_and_send_little_keep_nobody_waiting() {
    let door = open().await;
    let mut slow = Vec::new();
    for sent in [2, 60_000] {
        for _ in 0..=REQUEST_MEMORY / MAX_REQUEST_BYTES {
            let mut stream = door.raw().await;
            let announced = i32::try_from(MAX_REQUEST_BYTES).unwrap().to_be_bytes();
            stream.write_all(&[&announced[..], &vec![0; sent]].concat()).await.unwrap();
            slow.push(stream);
        }
    }
    let working = async {
        // Long enough for the door to have taken what the others sent.
        for _ in 0..20 {
            let mut client = door.client().await;
            let leader = client.topic("readings", true).await.unwrap().partitions[0].leader;
            client.produce(leader, "readings", 0, batch(&["x"]), Acks::All).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), working).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_their_order_and_acks_0_is_not_answered() {
    let door = open().await;
    door.client().await.topic("readings", true).await.unwrap();
    let mut stream = door.raw().await;
    let mut sent = BytesMut::new();
    for n in 0..40 {
        let acks = if n % 4 == 3 { 0 } else { -1 };
        sent.extend_from_slice(&frame(&produce("readings", 0, acks, batch(&["x"])), 9, n));
    }
    stream.write_all(&sent).await.unwrap();
    for n in (0..40).filter(|n| n % 4 != 3) {
        let (correlation, response) = answer::<ProduceResponse>(&mut stream, 9).await.unwrap();
        assert_eq!(correlation, n);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, i64::from(n));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_cannot_be_stored_are_refused_with_the_reason() {
    let door = open().await;
    door.client().await.topic("readings", true).await.unwrap();
    let mut stream = door.raw().await;
    let mut corrupt = batch(&["x"]).to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let mut old = batch(&["x"]).to_vec();
    old[16] = 1;
    let two = [batch(&["x"]), batch(&["y"])].concat();
    let large = batch(&[&"x".repeat(2 << 20)]);
    for (topic, partition, acks, records, error) in [
        ("readings", 0, -1, corrupt.into(), ResponseError::CorruptMessage),
        ("readings", 0, -1, old.into(), ResponseError::UnsupportedForMessageFormat),
        ("readings", 0, -1, two.into(), ResponseError::InvalidRecord),
        ("readings", 0, -1, Bytes::new(), ResponseError::InvalidRecord),
        ("readings", 0, -1, large, ResponseError::MessageTooLarge),
        ("readings", 99, -1, batch(&["x"]), ResponseError::UnknownTopicOrPartition),
        ("missing", 0, -1, batch(&["x"]), ResponseError::UnknownTopicOrPartition),
        ("readings", 0, 2, batch(&["x"]), ResponseError::InvalidRequiredAcks),
    ] {
        stream.write_all(&frame(&produce(topic, partition, acks, records), 9, 1)).await.unwrap();
        let (_, response) = answer::<ProduceResponse>(&mut stream, 9).await.unwrap();
        assert_eq!(error_code(&response), error.code(), "{error:?}");
    }
    stream.write_all(&frame(&produce("readings", 0, -1, batch(&["good"])), 9, 1)).await.unwrap();
    let (_, response) = answer::<ProduceResponse>(&mut stream, 9).await.unwrap();
    assert_eq!((error_code(&response), response.responses[0].partition_responses[0].base_offset), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_with_acks_0_closes_the_connection() {
    let door = open().await;
    let mut stream = door.raw().await;
    stream.write_all(&frame(&produce("missing", 0, 0, batch(&["x"])), 9, 1)).await.unwrap();
    assert!(answer::<ProduceResponse>(&mut stream, 9).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_the_node_itself_cannot_be_written_made_or_deleted() {
    let door = open().await;
    let mut client = door.client().await;
    for refused in [
        client.create_topic("_alerts", None, None, &[]).await.unwrap_err(),
        client.delete_topic("_mqtt_sessions").await.unwrap_err(),
    ] {
        assert!(refused.downcast_ref::<Refused>().is_some_and(|refused| !refused.is_retriable()), "{refused}");
    }
    assert!(client.topic("__consumer_offsets", true).await.is_err());
    assert!(client.topics().await.unwrap().is_empty());
    // Other names that begin so are users': a schema registry's, say.
    client.create_topic("_schemas", None, None, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_asked_for_many_times_is_described_once() {
    let door = open().await;
    let mut stream = door.raw().await;
    let asked = vec![MetadataRequestTopic::default().with_name(Some(topic_name("readings"))); 1000];
    stream.write_all(&frame(&MetadataRequest::default().with_topics(Some(asked)), 12, 1)).await.unwrap();
    let (_, response) = answer::<MetadataResponse>(&mut stream, 12).await.unwrap();
    assert_eq!(response.topics.len(), 1);
    assert_eq!(response.topics[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_served_request_closes_that_connection_and_no_other() {
    let door = open().await;
    let mut healthy = door.client().await;
    let unserved = [0, 0, 0, 8, 0x03, 0xe7, 0, 0, 0, 0, 0, 1];
    let old_version = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1];
    let huge_array = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff];
    for bad in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64], &[0; 16], &unserved, &old_version, &huge_array]
    {
        let mut stream = door.raw().await;
        stream.write_all(bad).await.unwrap();
        assert!(answer::<MetadataResponse>(&mut stream, 1).await.is_none(), "{bad:?}");
        healthy.topics().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_of_api_versions_is_answered_in_v0() {
    let door = open().await;
    let mut stream = door.raw().await;
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff]).await.unwrap();
    let (correlation, response) = answer::<ApiVersionsResponse>(&mut stream, 0).await.unwrap();
    assert_eq!((correlation, response.error_code), (5, 35));
    assert!(response.api_keys.iter().any(|api| api.api_key == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_waiting_fetches_and_closes_idle_connections() {
    let door = open().await;
    let mut client = door.client().await;
    let leader = client.topic("readings", true).await.unwrap().partitions[0].leader;
    client.fetch(leader, "readings", &[(0, Offset(0))], 1 << 20, Duration::ZERO).await.unwrap();
    let began = Instant::now();
    let fetching = client.fetch(leader, "readings", &[(0, Offset(0))], 1 << 20, Duration::from_secs(30));
    let (fetched, ()) = tokio::join!(fetching, async { door.shutdown.cancel() });
    // Answered without records if the request had been read, else the connection is closed; either way at once.
    assert!(fetched.is_err() || fetched.is_ok_and(|parts| parts[0].batches.is_empty()));
    tokio::time::timeout(Duration::from_secs(10), door.serving).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
}
