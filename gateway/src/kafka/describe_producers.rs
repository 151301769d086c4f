//! DescribeProducers (61), v0: the idempotent producers that a partition remembers (KIP-664).

use forebay_cluster::Partition;
use forebay_log::ReadError;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::DescribeProducersRequest;
use kafka_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{ApiKey, ProducerId};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT32, Kind, Struct};
use super::leadership::{ANY_EPOCH, check_leader};
use super::session::Session;
use super::topics::{once, partition};
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeProducers,
    name: "DescribeProducers",
    advertised_from: 0,
    from: 0,
    to: 0,
    flexible_from: 0,
    request: &Struct {
        fields: &[Field::new(Kind::Array(&Kind::Struct(&Struct {
            fields: &[Field::new(Kind::String), Field::new(Kind::Array(&INT32))],
            tags: &[],
        })))],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    mut request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    once(&mut request.topics, |topic| topic.name.clone());
    let mut topics = Vec::with_capacity(request.topics.len());
    for mut asked in request.topics {
        once(&mut asked.partition_indexes, |index| *index);
        let topic = shared.door.log.topic(&asked.name);
        let allowed = session.topic(Operation::Read, &asked.name);
        let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
        for index in asked.partition_indexes {
            let active =
                match allowed.is_ok().then_some(topic.as_deref()).flatten().and_then(|topic| partition(topic, index)) {
                    _ if allowed.is_err() => Err(ResponseError::TopicAuthorizationFailed.into()),
                    Some(partition) => producers(partition).await,
                    None => Err(ResponseError::UnknownTopicOrPartition.into()),
                };
            let response = PartitionResponse::default().with_partition_index(index).with_error_message(None);
            partitions.push(match active {
                Ok(active) => response.with_active_producers(active),
                Err(refusal) => response
                    .with_error_code(refusal.code)
                    .with_error_message(refusal.message.map(StrBytes::from_string)),
            });
        }
        topics.push(TopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn producers(partition: &Partition) -> Result<Vec<ProducerState>, Refusal> {
    check_leader(partition, ANY_EPOCH)?;
    if let Some(why) = partition.unopened() {
        return Err(ReadError::Offline(why).into());
    }
    let active = partition.producers().await?.into_iter().map(|producer| {
        ProducerState::default()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(producer.last_sequence)
            .with_last_timestamp(producer.last_timestamp.0)
            // There are no transactions.
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(-1)
    });
    Ok(active.collect())
}
