//! Records: appends, reads, and offsets by time.

use std::time::Duration;

use bytes::Bytes;
use forebay_log::{Millis, Offset};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchResponse, ProduceResponse};

use super::{Client, check, topic_name};

/// How long a broker may take to make an append durable.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Highest versions that name topics instead of giving their ids.
pub(crate) const PRODUCE: i16 = 12;
pub(crate) const FETCH: i16 = 12;
const LIST_OFFSETS: i16 = 7;

/// What an append waits for. (Without any answer, as Kafka's acks=0, nobody learns of a loss: not offered.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    Leader,
    All,
}

/// A place in a partition's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Beginning,
    End,
    /// The first record at or after this time.
    Time(Millis),
}

/// What a fetch got of one partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub partition: i32,
    /// Record batches; the first may begin below the offset asked for.
    pub batches: Bytes,
    pub high_watermark: Offset,
}

impl Client {
    /// Appends one batch; returns the offset of its first record.
    ///
    /// # Errors
    /// [`super::Refused`] when the broker refused; anything else leaves open whether the records were stored.
    pub async fn produce(
        &mut self,
        leader: i32,
        topic: &str,
        partition: i32,
        batch: Bytes,
        acks: Acks,
    ) -> anyhow::Result<Offset> {
        let request = produce_request(topic, partition, batch, if acks == Acks::All { -1 } else { 1 });
        let answer: ProduceResponse =
            self.broker(leader).await?.call(PRODUCE, APPEND_TIMEOUT, move |_| request).await?;
        let part = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
        let part = part.ok_or_else(|| anyhow::anyhow!("the broker's answer does not tell of {topic}-{partition}"))?;
        check(part.error_code, part.error_message.as_ref(), format!("{topic}-{partition} did not take the records"))?;
        Ok(Offset(part.base_offset))
    }

    /// Reads several partitions of one leader, each from an offset on, waiting up to `wait` for a first record.
    pub async fn fetch(
        &mut self,
        leader: i32,
        topic: &str,
        from: &[(i32, Offset)],
        max_bytes: usize,
        wait: Duration,
    ) -> anyhow::Result<Vec<Fetched>> {
        let request = fetch_request(topic, from, max_bytes, wait);
        let answer: FetchResponse = self.broker(leader).await?.call(FETCH, wait, move |_| request).await?;
        check(answer.error_code, None, format!("cannot read {topic}"))?;
        let mut fetched = Vec::new();
        for part in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            check(part.error_code, None, format!("cannot read {topic}-{}", part.partition_index))?;
            fetched.push(Fetched {
                partition: part.partition_index,
                batches: part.records.unwrap_or_default(),
                high_watermark: Offset(part.high_watermark),
            });
        }
        Ok(fetched)
    }

    /// The offset at a place in time; the end when every record is older.
    pub async fn offset(&mut self, leader: i32, topic: &str, partition: i32, at: At) -> anyhow::Result<Offset> {
        let timestamp = match at {
            At::Beginning => -2,
            At::End => -1,
            // Below 0 the protocol has borders, not times.
            At::Time(time) => time.0.max(0),
        };
        let part = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
        let asked = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![part]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let answer = self.broker(leader).await?.call(LIST_OFFSETS, Duration::ZERO, move |_| request).await?;
        let part = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let part = part.ok_or_else(|| anyhow::anyhow!("the broker's answer does not tell of {topic}-{partition}"))?;
        check(part.error_code, None, format!("cannot find the offset in {topic}-{partition}"))?;
        if part.offset < 0 && matches!(at, At::Time(_)) {
            return Box::pin(self.offset(leader, topic, partition, At::End)).await;
        }
        Ok(Offset(part.offset))
    }
}

/// Asks to append one batch. `acks`: Kafka's own code.
pub(crate) fn produce_request(topic: &str, partition: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let part = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let data = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![part]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(i32::try_from(APPEND_TIMEOUT.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(vec![data])
}

/// Asks for records of several partitions, each from an offset on.
pub(crate) fn fetch_request(topic: &str, from: &[(i32, Offset)], max_bytes: usize, wait: Duration) -> FetchRequest {
    let max_bytes = i32::try_from(max_bytes).unwrap_or(i32::MAX);
    let partitions = from.iter().map(|&(partition, offset)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset.0)
            .with_partition_max_bytes(max_bytes)
    });
    let asked = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions.collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}
