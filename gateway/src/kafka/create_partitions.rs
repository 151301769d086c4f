//! CreatePartitions (37), v0-3: gives topics more partitions. Keys that the new count maps elsewhere go on there.

use std::collections::HashMap;

use forebay_log::NodeId;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka_protocol::messages::create_partitions_response::{CreatePartitionsResponse, CreatePartitionsTopicResult};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT32, Kind, Struct};
use super::session::Session;
use super::topics::{check_room, is_internal};
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::CreatePartitions,
    name: "CreatePartitions",
    advertised_from: 0,
    from: 0,
    to: 3,
    flexible_from: 2,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(INT32),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(Kind::Array(&INT32))],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
            Field::new(INT32),
            Field::new(BOOL),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut asked: HashMap<&TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *asked.entry(&topic.name).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let twice = asked.get(&topic.name).is_some_and(|times| *times > 1);
        let grown = if twice {
            Err(Refusal::new(ResponseError::InvalidRequest, "the request names this topic twice"))
        } else {
            grow(shared, session, topic, request.validate_only).await
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match grown {
            Ok(()) => result.with_error_message(None),
            Err(refusal) => {
                result.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(
    shared: &Shared,
    session: &Session,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let name = asked.name.as_str();
    session.topic(Operation::Alter, name)?;
    let log = &shared.door.log;
    let topic = log
        .topic(name)
        .ok_or_else(|| Refusal::new(ResponseError::UnknownTopicOrPartition, format!("topic {name} does not exist")))?;
    if is_internal(name) {
        let why = format!("topic {name} holds Forebay's own state");
        return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why));
    }
    let now = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    let count = u32::try_from(asked.count).unwrap_or(0);
    if !(now + 1..=MAX_PARTITIONS_PER_TOPIC).contains(&count) {
        let why = format!("topic {name} has {now} partitions; ask for more, {MAX_PARTITIONS_PER_TOPIC} at most");
        return Err(Refusal::new(ResponseError::InvalidPartitions, why));
    }
    check_room(log, count - now)?;
    let replicas = asked.assignments.as_ref().map(|assignments| {
        let of = assignments.iter().map(|one| one.broker_ids.iter().map(|broker| NodeId(broker.0)).collect());
        of.collect()
    });
    log.place_partitions(name, count, replicas, validate_only).await?;
    if !validate_only {
        tracing::info!(topic = name, partitions = count, "topic has got more partitions");
    }
    Ok(())
}
