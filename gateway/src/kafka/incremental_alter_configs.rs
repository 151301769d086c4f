//! IncrementalAlterConfigs (44), v0-1: sets, resets, extends or shortens configs of topics (KIP-339).

use std::sync::Arc;

use forebay_cluster::Topic;
use forebay_log::TopicConfig;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::config::topic_config::{Change, change};

use super::Shared;
use super::api::Api;
use super::describe_configs::TOPIC;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT8, Kind, Struct};
use super::session::Session;
use super::topic_configs::{LIST, kind};
use super::topics::is_internal;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::IncrementalAlterConfigs,
    name: "IncrementalAlterConfigs",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 1,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(INT8),
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(Kind::String), Field::new(INT8), Field::new(Kind::String)],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
            Field::new(BOOL),
        ],
        tags: &[],
    },
};

/// Operations (Kafka's `AlterConfigOp.OpType`).
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Kafka's configs of brokers and topics that slow a reassignment down.
const THROTTLES: [&str; 5] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
];

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = alter(shared, session, &resource, request.validate_only).await;
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_message(None);
        responses.push(match outcome {
            Ok(()) => response,
            Err(refusal) => {
                response.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
            }
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    shared: &Shared,
    session: &Session,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    if only_takes_throttles_back(&resource.configs) {
        let name = &resource.resource_name;
        let allowed = match resource.resource_type {
            TOPIC => session.topic(Operation::AlterConfigs, name),
            _ => session.cluster(Operation::AlterConfigs),
        };
        return Ok(allowed?);
    }
    let topic = alterable(shared, session, resource.resource_type, &resource.resource_name)?;
    let now = topic.config();
    let mut lists = Vec::with_capacity(resource.configs.len());
    for change in &resource.configs {
        lists.push(edited_list(&now, change)?);
    }
    let mut changes = Vec::with_capacity(resource.configs.len());
    for (change, list) in resource.configs.iter().zip(&lists) {
        changes.push(match (change.config_operation, list, &change.value) {
            (DELETE, ..) => Change::Reset(&change.name),
            (_, Some(list), _) => Change::Set(&change.name, list),
            (SET, None, Some(value)) => Change::Set(&change.name, value),
            _ => {
                return Err(Refusal::new(
                    ResponseError::InvalidRequest,
                    format!("{}: no value given", change.name.as_str()),
                ));
            }
        });
    }
    save(shared, &topic, TopicConfig::clone(&now), &changes, validate_only).await
}

/// kafka-reassign-partitions does so at the end of each reassignment (KIP-73); here they are never set, so that there is nothing to do.
fn only_takes_throttles_back(configs: &[AlterableConfig]) -> bool {
    let throttle =
        |change: &AlterableConfig| change.config_operation == DELETE && THROTTLES.contains(&change.name.as_str());
    !configs.is_empty() && configs.iter().all(throttle)
}

/// The topic that a resource names, if its configs may be altered.
pub(super) fn alterable(
    shared: &Shared,
    session: &Session,
    resource_type: i8,
    name: &str,
) -> Result<Arc<Topic>, Refusal> {
    match resource_type {
        TOPIC => session.topic(Operation::AlterConfigs, name)?,
        _ => session.cluster(Operation::AlterConfigs)?,
    }
    if resource_type != TOPIC {
        let why = "only the configs of topics can be altered here; change the node's config file for others";
        return Err(Refusal::new(ResponseError::InvalidRequest, why));
    }
    if is_internal(name) {
        let why = format!("topic {name} holds Forebay's own state; its configs cannot be altered");
        return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why));
    }
    shared.door.log.topic(name).ok_or_else(|| ResponseError::UnknownTopicOrPartition.into())
}

/// Gives the topic the configs that the changes make of `config`.
pub(super) async fn save(
    shared: &Shared,
    topic: &Topic,
    mut config: TopicConfig,
    changes: &[Change<'_>],
    validate_only: bool,
) -> Result<(), Refusal> {
    change(&mut config, &shared.door.config.topic_defaults.config, changes)
        .map_err(|why| Refusal::new(ResponseError::InvalidConfig, why))?;
    if !validate_only {
        shared.door.log.alter_topic(&topic.name, config).await?;
        tracing::info!(topic = topic.name, "topic configs altered");
    }
    Ok(())
}

/// What a list becomes by the entries that are added to it or taken from it; `None` for the other operations.
fn edited_list(config: &TopicConfig, change: &AlterableConfig) -> Result<Option<String>, Refusal> {
    let name = change.name.as_str();
    let refuse = |why: String| Refusal::new(ResponseError::InvalidConfig, why);
    if matches!(change.config_operation, SET | DELETE) {
        return Ok(None);
    }
    if !matches!(change.config_operation, APPEND | SUBTRACT) {
        let why = format!("{name}: unknown operation {}", change.config_operation);
        return Err(Refusal::new(ResponseError::InvalidRequest, why));
    }
    let now = config.get(name).filter(|_| kind(name) == LIST).ok_or_else(|| refuse(format!("{name} is not a list")))?;
    let value = change.value.as_ref().ok_or_else(|| refuse(format!("{name}: no value given")))?;
    let given: Vec<&str> = value.split(',').map(str::trim).collect();
    let mut entries: Vec<&str> = now.split(',').filter(|entry| !given.contains(entry)).collect();
    if change.config_operation == APPEND {
        entries.extend(given);
    }
    Ok(Some(entries.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(name: &'static str, operation: i8, value: &'static str) -> Result<Option<String>, Refusal> {
        let change = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_config_operation(operation)
            .with_value(Some(StrBytes::from_static_str(value)));
        edited_list(&TopicConfig::default(), &change)
    }

    #[test]
    fn throttles_are_taken_back_by_themselves_alone() {
        let change = |name, operation| {
            AlterableConfig::default().with_name(StrBytes::from_static_str(name)).with_config_operation(operation)
        };
        let back = change("leader.replication.throttled.replicas", DELETE);
        assert!(only_takes_throttles_back(&[back.clone(), change("follower.replication.throttled.rate", DELETE)]));
        assert!(!only_takes_throttles_back(&[]) && !only_takes_throttles_back(&[back, change("retention.ms", DELETE)]));
        assert!(!only_takes_throttles_back(&[change("leader.replication.throttled.rate", SET)]));
    }

    #[test]
    fn only_lists_are_extended_and_shortened() {
        assert_eq!(edited("cleanup.policy", APPEND, "compact").unwrap().as_deref(), Some("delete,compact"));
        assert_eq!(edited("cleanup.policy", APPEND, "delete").unwrap().as_deref(), Some("delete"));
        assert_eq!(edited("cleanup.policy", SUBTRACT, "compact").unwrap().as_deref(), Some("delete"));
        assert_eq!(edited("retention.ms", SET, "1").unwrap(), None);
        assert!(edited("retention.ms", APPEND, "1").is_err() && edited("retention.ms", 9, "1").is_err());
    }
}
