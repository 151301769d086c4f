//! CreateTopics (19), v2-7: makes topics with their partitions, replicas and configs.

use std::collections::HashMap;

use forebay_log::cluster::controller::Assignment;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::{NodeId, TopicConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::config::topic_config::{Change, change};

use super::Shared;
use super::api::Api;
use super::describe_configs::{SOURCE_DEFAULT, SOURCE_TOPIC};
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT16, INT32, Kind, Struct};
use super::session::Session;
use super::topic_configs::list;
use super::topics::{check_new_name, check_room};
use crate::security::acl::{CLUSTER_NAME, Operation, ResourceType};

pub(crate) static API: Api = Api {
    key: ApiKey::CreateTopics,
    name: "CreateTopics",
    advertised_from: 2,
    from: 2,
    to: 7,
    flexible_from: 5,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(INT32),
                    Field::new(INT16),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(INT32), Field::new(Kind::Array(&INT32))],
                        tags: &[],
                    }))),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(Kind::String), Field::new(Kind::String)],
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
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let creates_any = session.allows(Operation::Create, ResourceType::Cluster, CLUSTER_NAME);
    let mut results = Vec::with_capacity(request.topics.len());
    let mut asked: HashMap<&TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *asked.entry(&topic.name).or_default() += 1;
    }
    for topic in &request.topics {
        let allowed = if creates_any { Ok(()) } else { session.topic(Operation::Create, &topic.name) };
        // Kafka refuses a name that one request asks for twice.
        let twice = asked.get(&topic.name).is_some_and(|times| *times > 1);
        let made = match allowed {
            Err(denied) => Err(denied.into()),
            Ok(()) if twice => Err(Refusal::new(ResponseError::InvalidRequest, "the request names this topic twice")),
            Ok(()) => create(shared, topic, request.validate_only).await,
        };
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        results.push(match made {
            // What it is like is for those to see who may describe its configs (KIP-525).
            Ok(made) if !session.allows(Operation::DescribeConfigs, ResourceType::Topic, &topic.name) => {
                let result = result.with_num_partitions(-1).with_replication_factor(-1).with_configs(Some(Vec::new()));
                let hidden = ResponseError::TopicAuthorizationFailed.code();
                let result = if version >= 5 { result.with_topic_config_error_code(hidden) } else { result };
                if version >= 7 { result.with_topic_id(made.id) } else { result }
            }
            Ok(made) => describe(shared, version, made, result),
            Err(refusal) => result
                .with_error_code(refusal.code)
                .with_error_message(refusal.message.map(StrBytes::from_string))
                .with_num_partitions(-1)
                .with_replication_factor(-1),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

struct Made {
    id: Uuid,
    replicas: Vec<Vec<NodeId>>,
    config: TopicConfig,
}

async fn create(shared: &Shared, topic: &CreatableTopic, validate_only: bool) -> Result<Made, Refusal> {
    let log = &shared.door.log;
    check_new_name(&topic.name)?;
    let (replicas, partitions) = assignment(shared, topic)?;
    let defaults = &shared.door.config.topic_defaults.config;
    let mut config = defaults.clone();
    let given = topic.configs.iter().filter_map(|entry| Some(Change::Set(&entry.name, entry.value.as_deref()?)));
    change(&mut config, defaults, &given.collect::<Vec<_>>())
        .map_err(|why| Refusal::new(ResponseError::InvalidConfig, why))?;
    if log.topic(&topic.name).is_some() {
        let why = format!("Topic '{}' already exists.", topic.name.as_str());
        return Err(Refusal::new(ResponseError::TopicAlreadyExists, why));
    }
    check_room(log, partitions)?;
    let replicas = log.place_topic(&topic.name, replicas, &config, validate_only).await?;
    let id = log.topic(&topic.name).map_or(Uuid::nil(), |topic| topic.id);
    Ok(Made { id, replicas, config })
}

/// Where the replicas go, and how many partitions there are: from the counts, the manual assignment or the defaults.
fn assignment(shared: &Shared, topic: &CreatableTopic) -> Result<(Assignment, u32), Refusal> {
    let (assignment, count) = if topic.assignments.is_empty() {
        let replication_factor = match topic.replication_factor {
            -1 => shared.door.log.default_replication_factor(),
            n => u16::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
                Refusal::new(ResponseError::InvalidReplicationFactor, "a topic has at least one replica")
            })?,
        };
        let partitions = match topic.num_partitions {
            -1 => shared.door.config.topic_defaults.num_partitions,
            n => u32::try_from(n).unwrap_or(0),
        };
        (Assignment::Placed { partitions, replication_factor }, partitions)
    } else {
        let mut assigned: Vec<_> = topic.assignments.iter().collect();
        assigned.sort_unstable_by_key(|one| one.partition_index);
        let consecutive = assigned.iter().enumerate().all(|(i, one)| i32::try_from(i) == Ok(one.partition_index));
        if !consecutive {
            let why = "the assignment must name each partition from 0 on once";
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
        }
        let count = u32::try_from(assigned.len()).unwrap_or(u32::MAX);
        let replicas = assigned.iter().map(|one| one.broker_ids.iter().map(|broker| NodeId(broker.0)).collect());
        (Assignment::Explicit { replicas: replicas.collect() }, count)
    };
    if !(1..=MAX_PARTITIONS_PER_TOPIC).contains(&count) {
        let why = format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions");
        return Err(Refusal::new(ResponseError::InvalidPartitions, why));
    }
    Ok((assignment, count))
}

fn describe(shared: &Shared, version: i16, made: Made, result: CreatableTopicResult) -> CreatableTopicResult {
    let defaults = &shared.door.config.topic_defaults.config;
    let configs = list(&made.config).into_iter().map(|shown| {
        let default = defaults.get(shown.name).is_some_and(|default| default == shown.value);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(shown.name))
            .with_value(Some(StrBytes::from_string(shown.value)))
            .with_config_source(if default { SOURCE_DEFAULT } else { SOURCE_TOPIC })
    });
    let result = result
        .with_num_partitions(i32::try_from(made.replicas.len()).unwrap_or(i32::MAX))
        .with_replication_factor(
            made.replicas.first().map_or(-1, |first| i16::try_from(first.len()).unwrap_or(i16::MAX)),
        )
        .with_configs(Some(if version >= 5 { configs.collect() } else { Vec::new() }));
    if version >= 7 { result.with_topic_id(made.id) } else { result }
}
