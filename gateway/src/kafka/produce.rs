//! Produce (0), v3-13 (advertised from 0): appends batches as they came; answers when they are durable.
//!
//! Both acks=1 and acks=all wait for the durable append; acks=0 has no answer, and an error closes the connection, as
//! the client cannot be told otherwise.

use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::{AppendData, Appended, Partition, Ticket, Topic};
use forebay_log::limits::BATCH_HEADER_BYTES;
use forebay_log::record::{BatchHeader, BatchProblem, Compression, Retained, recompress};
use forebay_log::topic::CompressionType;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::dispatch::Caller;
use super::errors::Refusal;
use super::guard::{Field, INT16, INT32, Kind, Struct, UUID};
use super::leadership::{ANY_EPOCH, check_leader};
use super::limits::MAX_PRODUCE_WAIT;
use super::quotas::{Limited, millis};
use super::session::Session;
use super::topics::{is_internal, partition};
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::Produce,
    name: "Produce",
    advertised_from: 0,
    from: 3,
    to: 13,
    flexible_from: 9,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(INT16),
            Field::new(INT32),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String).to(12),
                    Field::new(UUID).from(13),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(INT32), Field::new(Kind::Bytes)],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

/// First version in which zstd is allowed (KIP-110).
const ZSTD_FROM: i16 = 7;
/// Where the magic byte of a batch, and of the message formats before it, stands.
const MAGIC_AT: usize = 16;

/// A produce request whose appends were handed to the log, in order.
pub(crate) struct Pending {
    topics: Vec<(TopicName, Uuid, Vec<PendingPartition>)>,
    deadline: Instant,
    version: i16,
    /// How long the client has to wait with its next request, by its quota.
    throttle: Duration,
    /// acks=0: nothing is answered.
    pub(crate) silent: bool,
}

struct PendingPartition {
    index: i32,
    append: Result<(Ticket, Arc<Partition>), Refusal>,
}

/// What holds for every batch of a request.
struct Rules {
    version: i16,
    /// Every in-sync replica must have it.
    all: bool,
    /// `compression.type` of topics that do not set their own.
    default_codec: CompressionType,
    deadline: Instant,
}

/// `acks` of a request that waits for every in-sync replica.
const ALL: i16 = -1;

/// Hands every batch of the request to its partition, waiting under back-pressure. Requests of one connection pass
/// here one after the other, which keeps their order.
pub(crate) async fn submit(shared: &Shared, caller: &Caller, version: i16, request: ProduceRequest) -> Pending {
    let session = &caller.session;
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(MAX_PRODUCE_WAIT);
    let deadline = Instant::now() + wait;
    let refused = refuse_request(&request);
    let default_codec = shared.door.config.topic_defaults.config.compression_type;
    let rules = Rules { version, all: request.acks == ALL, default_codec, deadline };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut bytes = 0;
    for data in request.topic_data {
        let topic = find_topic(shared, session, version, &data);
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for part in data.partition_data {
            bytes += part.records.as_ref().map_or(0, Bytes::len);
            let append = match (&refused, &topic) {
                (Some(refusal), _) | (None, Err(refusal)) => Err(refusal.clone()),
                (None, Ok(topic)) => append(topic, part.index, part.records, &rules).await,
            };
            partitions.push(PendingPartition { index: part.index, append });
        }
        topics.push((data.name, data.topic_id, partitions));
    }
    let throttle = caller.take(shared, Limited::Produce, bytes);
    Pending { topics, deadline, version, throttle, silent: request.acks == 0 }
}

/// Why the whole request is refused, if it is.
fn refuse_request(request: &ProduceRequest) -> Option<Refusal> {
    if !matches!(request.acks, ALL..=1) {
        return Some(ResponseError::InvalidRequiredAcks.into());
    }
    let why = "transactions are not served";
    request.transactional_id.as_ref().map(|_| Refusal::new(ResponseError::TransactionalIdAuthorizationFailed, why))
}

fn find_topic(
    shared: &Shared,
    session: &Session,
    version: i16,
    data: &TopicProduceData,
) -> Result<Arc<Topic>, Refusal> {
    let log = &shared.door.log;
    let topic = if version >= 13 {
        let topic = shared.topic_ids.find(log, data.topic_id).ok_or(ResponseError::UnknownTopicId)?;
        session.topic(Operation::Write, &topic.name)?;
        topic
    } else {
        session.topic(Operation::Write, &data.name)?;
        log.topic(&data.name).ok_or(ResponseError::UnknownTopicOrPartition)?
    };
    if is_internal(&topic.name) {
        let why = format!("topic {} holds Forebay's own state; clients cannot write to it", topic.name);
        return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why));
    }
    Ok(topic)
}

async fn append(
    topic: &Topic,
    index: i32,
    records: Option<Bytes>,
    rules: &Rules,
) -> Result<(Ticket, Arc<Partition>), Refusal> {
    let partition = partition(topic, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    // The client shall go to the leader itself.
    check_leader(partition, ANY_EPOCH)?;
    let records = records.unwrap_or_default();
    check_batch(&records, rules.version)?;
    let records = recompressed(topic, rules.default_codec, records)?;
    let data = AppendData::Batches(records);
    let submit =
        async { if rules.all { partition.submit(data).await } else { partition.submit_to_leader(data).await } };
    let submitted = tokio::time::timeout_at(rules.deadline, submit).await;
    let ticket = submitted.map_err(|_| timed_out("the log took no more writes in time"))??;
    Ok((ticket, Arc::clone(partition)))
}

/// What Kafka checks before it looks into the log: exactly one batch, of the current format, in an allowed codec.
fn check_batch(records: &Bytes, version: i16) -> Result<(), Refusal> {
    if records.get(MAGIC_AT).is_some_and(|magic| *magic < 2) {
        let why = "message formats before v2 (Kafka 0.11) are not supported";
        return Err(Refusal::new(ResponseError::UnsupportedForMessageFormat, why));
    }
    if records.len() < BATCH_HEADER_BYTES {
        return Err(Refusal::new(ResponseError::InvalidRecord, "a produce request must hold one record batch"));
    }
    let header = BatchHeader::parse(records).map_err(batch_refusal)?;
    if header.size != records.len() {
        return Err(Refusal::new(ResponseError::InvalidRecord, "a produce request must hold exactly one record batch"));
    }
    if version < ZSTD_FROM && header.compression().map_err(batch_refusal)? == Compression::Zstd {
        let why = "zstd needs version 7 of the Produce API";
        return Err(Refusal::new(ResponseError::UnsupportedCompressionType, why));
    }
    if header.is_transactional() || header.is_control() {
        return Err(Refusal::new(ResponseError::InvalidRecord, "transactions are not served"));
    }
    Ok(())
}

/// The batch in the codec that its topic asks for. The node's default is for records that are gathered here: what a producer
/// has compressed, or not, stays as it is, unless the topic itself says otherwise.
fn recompressed(topic: &Topic, default: CompressionType, records: Bytes) -> Result<Bytes, Refusal> {
    let wanted = topic.config().compression_type;
    let Some(codec) = wanted.codec().filter(|_| wanted != default) else { return Ok(records) };
    let header = BatchHeader::parse(&records).map_err(batch_refusal)?;
    if header.compression().map_err(batch_refusal)? == codec {
        return Ok(records);
    }
    header.check_crc(&records).map_err(batch_refusal)?;
    match recompress(&header, &records, codec).map_err(batch_refusal)? {
        Retained::Batch(batch) => Ok(batch),
        // Larger than any batch may be: it stays as it came.
        Retained::TooLarge => Ok(records),
    }
}

fn batch_refusal(problem: BatchProblem) -> Refusal {
    Refusal::new(ResponseError::CorruptMessage, problem.to_string())
}

fn timed_out(why: &str) -> Refusal {
    Refusal::new(ResponseError::RequestTimedOut, why)
}

impl Pending {
    /// Waits until every append of the request is durable or refused.
    pub(crate) async fn finish(self) -> ProduceResponse {
        let Pending { topics, deadline, version, throttle, .. } = self;
        let mut responses = Vec::with_capacity(topics.len());
        for (name, id, partitions) in topics {
            let mut answers = Vec::with_capacity(partitions.len());
            for part in partitions {
                answers.push(answer(part.index, version, part.append, deadline).await);
            }
            let topic = TopicProduceResponse::default().with_partition_responses(answers);
            responses.push(if version >= 13 { topic.with_topic_id(id) } else { topic.with_name(name) });
        }
        ProduceResponse::default().with_responses(responses).with_throttle_time_ms(millis(throttle))
    }
}

/// Whether any append of a finished request was refused.
pub(crate) fn any_refused(response: &ProduceResponse) -> bool {
    response.responses.iter().flat_map(|topic| &topic.partition_responses).any(|part| part.error_code != 0)
}

async fn answer(
    index: i32,
    version: i16,
    append: Result<(Ticket, Arc<Partition>), Refusal>,
    deadline: Instant,
) -> PartitionProduceResponse {
    let outcome = match append {
        Ok((ticket, partition)) => wait(ticket, deadline).await.map(|appended| (appended, partition)),
        Err(refusal) => Err(refusal),
    };
    let response = PartitionProduceResponse::default().with_index(index).with_log_append_time_ms(-1);
    match outcome {
        Ok((appended, partition)) => {
            let time = appended.append_time.map_or(-1, |time| time.0);
            let response = response.with_base_offset(appended.base_offset.0).with_log_append_time_ms(time);
            response.with_log_start_offset(partition.watermarks().log_start.0)
        }
        Err(refusal) => {
            let response = response.with_error_code(refusal.code).with_base_offset(-1).with_log_start_offset(-1);
            if version >= 8 {
                response.with_error_message(refusal.message.map(StrBytes::from_string))
            } else {
                response
            }
        }
    }
}

async fn wait(ticket: Ticket, deadline: Instant) -> Result<Appended, Refusal> {
    match tokio::time::timeout_at(deadline, ticket).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(timed_out("the append was not durable in time; it may still become so")),
    }
}
