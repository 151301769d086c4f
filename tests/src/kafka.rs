//! A plain blocking Kafka client on the `kafka-protocol` crate: reads whole partitions and produces with acks=all.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// One connection to a broker.
pub struct Client {
    socket: TcpStream,
    correlation: i32,
}

/// What a fetch of one partition answered.
pub struct Fetched {
    pub error: i16,
    pub high_watermark: i64,
    pub log_start: i64,
    pub records: Vec<Record>,
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client> {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { socket, correlation: 0 })
    }

    fn call<Q: Encodable, A: Decodable>(&mut self, api: ApiKey, version: i16, request: &Q) -> Result<A> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("forebay-tests")));
        let mut frame = BytesMut::from(&[0u8; 4][..]);
        // All versions used here are below the flexible ones: request header 1, response header 0.
        header.encode(&mut frame, 1)?;
        request.encode(&mut frame, version)?;
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.socket.write_all(&frame)?;
        let mut size = [0u8; 4];
        self.socket.read_exact(&mut size)?;
        let mut body = vec![0u8; u32::from_be_bytes(size) as usize];
        self.socket.read_exact(&mut body)?;
        let mut body = Bytes::from(body);
        ensure!(body.len() >= 4, "short answer");
        let correlation = i32::from_be_bytes(body.split_to(4)[..].try_into()?);
        ensure!(correlation == self.correlation, "answer {correlation} to request {}", self.correlation);
        A::decode(&mut body, version)
    }

    /// Partition counts by topic.
    pub fn topics(&mut self) -> Result<BTreeMap<String, usize>> {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.call(ApiKey::Metadata, 5, &request)?;
        Ok(answer
            .topics
            .iter()
            .filter_map(|topic| topic.name.as_ref().map(|name| (name.to_string(), topic.partitions.len())))
            .collect())
    }

    /// ListOffsets: -1 latest, -2 earliest, or a timestamp in milliseconds.
    pub fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64> {
        let wanted = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![wanted])]);
        let answer: ListOffsetsResponse = self.call(ApiKey::ListOffsets, 2, &request)?;
        let found = answer.topics.first().and_then(|topic| topic.partitions.first()).context("empty answer")?;
        ensure!(found.error_code == 0, "ListOffsets: error {}", found.error_code);
        Ok(found.offset)
    }

    /// One fetch; records before `offset` in its first batch are dropped, as every client does.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> Result<Fetched> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(4 << 20);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(name(topic)).with_partitions(vec![wanted])]);
        let mut answer: FetchResponse = self.call(ApiKey::Fetch, 11, &request)?;
        ensure!(answer.error_code == 0, "Fetch: error {}", answer.error_code);
        let found = answer.responses.first_mut().and_then(|topic| topic.partitions.first_mut()).context("no answer")?;
        let mut records = Vec::new();
        if let Some(mut stored) = found.records.take() {
            for batch in RecordBatchDecoder::decode_all(&mut stored)? {
                records.extend(batch.records.into_iter().filter(|record| record.offset >= offset));
            }
        }
        Ok(Fetched {
            error: found.error_code,
            high_watermark: found.high_watermark,
            log_start: found.log_start_offset,
            records,
        })
    }

    /// Every record of a partition from offset 0 to the high watermark, hot and cold; offsets must be contiguous.
    pub fn read_all(&mut self, topic: &str, partition: i32) -> Result<Vec<Record>> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let next = all.len() as i64;
            let fetched = self.fetch(topic, partition, next, 0)?;
            ensure!(fetched.error == 0, "fetch of {topic}-{partition} at {next}: error {}", fetched.error);
            for record in fetched.records {
                let expected = all.len() as i64;
                ensure!(record.offset == expected, "{topic}-{partition}: offset {} at {expected}", record.offset);
                all.push(record);
            }
            if all.len() as i64 >= fetched.high_watermark {
                return Ok(all);
            }
            ensure!(all.len() as i64 > next, "{topic}-{partition}: nothing at {next} below the high watermark");
        }
    }

    /// Produces one batch and returns the error code and base offset of the answer.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: &[(Bytes, Bytes)],
        compression: Compression,
    ) -> Result<(i16, i64)> {
        let batch: Vec<Record> = records.iter().enumerate().map(|(i, (key, value))| record(i, key, value)).collect();
        let mut encoded = BytesMut::new();
        RecordBatchEncoder::encode(&mut encoded, batch.iter(), &RecordEncodeOptions { version: 2, compression })?;
        self.produce_raw(topic, partition, encoded.freeze())
    }

    /// Produces bytes that may not be a batch at all.
    pub fn produce_raw(&mut self, topic: &str, partition: i32, records: Bytes) -> Result<(i16, i64)> {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data])]);
        let answer: ProduceResponse = self.call(ApiKey::Produce, 7, &request)?;
        let found =
            answer.responses.first().and_then(|topic| topic.partition_responses.first()).context("empty answer")?;
        Ok((found.error_code, found.base_offset))
    }
}

fn record(index: usize, key: &Bytes, value: &Bytes) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: index as i64,
        // Rising with the offset, or the encoder makes a batch of each record.
        sequence: NO_SEQUENCE + index as i32,
        timestamp: 1_360_000_000_000 + index as i64,
        key: Some(key.clone()),
        value: Some(value.clone()),
        headers: Default::default(),
    }
}
