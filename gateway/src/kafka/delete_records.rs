//! DeleteRecords (21), v0-2: moves the start of a partition's log up; what lies below goes, the lake's copy included.

use forebay_cluster::Partition;
use forebay_log::{Offset, ReadError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::delete_records_request::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT32, INT64, Kind, Struct};
use super::leadership::{ANY_EPOCH, check_leader};
use super::session::Session;
use super::topics::{is_internal, partition};
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DeleteRecords,
    name: "DeleteRecords",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 2,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(INT32), Field::new(INT64)],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
            Field::new(INT32),
        ],
        tags: &[],
    },
};

/// As the end of the log.
const HIGH_WATERMARK: i64 = -1;

pub(crate) async fn handle(shared: &Shared, session: &Session, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = shared.door.log.topic(&asked.name);
        let allowed = session.topic(Operation::Delete, &asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for part in asked.partitions {
            let found = topic.as_deref().and_then(|topic| partition(topic, part.partition_index));
            let moved = match found {
                _ if allowed.is_err() => Err(ResponseError::TopicAuthorizationFailed.into()),
                Some(_) if is_internal(&asked.name) => Err(ResponseError::TopicAuthorizationFailed.into()),
                // As Kafka: who asks for keys' last values must not lose them.
                Some(_) if topic.as_ref().is_some_and(|topic| !topic.config().delete) => {
                    Err(ResponseError::PolicyViolation.into())
                }
                Some(partition) => move_start(partition, part.offset).await,
                None => Err(ResponseError::UnknownTopicOrPartition.into()),
            };
            let result = DeleteRecordsPartitionResult::default().with_partition_index(part.partition_index);
            partitions.push(match moved {
                Ok(start) => result.with_low_watermark(start.0),
                Err(refusal) => result.with_low_watermark(-1).with_error_code(refusal.code),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn move_start(partition: &Partition, to: i64) -> Result<Offset, Refusal> {
    check_leader(partition, ANY_EPOCH)?;
    if let Some(why) = partition.unopened() {
        return Err(ReadError::Offline(why).into());
    }
    let end = partition.watermarks().high_watermark;
    let to = if to == HIGH_WATERMARK { end } else { Offset(to) };
    if !(Offset::ZERO..=end).contains(&to) {
        return Err(ResponseError::OffsetOutOfRange.into());
    }
    partition.set_log_start(to).await?;
    Ok(partition.watermarks().log_start)
}
