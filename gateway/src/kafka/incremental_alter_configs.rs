//! IncrementalAlterConfigs (44), v0-1: sets, resets, extends or shortens configs of topics (KIP-339).

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

use super::Shared;
use super::api::Api;
use super::describe_configs::TOPIC;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT8, Kind, Struct};
use super::session::Session;
use super::topic_configs::{LIST, get, reset, set};
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
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => session.topic(Operation::AlterConfigs, name)?,
        _ => session.cluster(Operation::AlterConfigs)?,
    }
    if resource.resource_type != TOPIC {
        let why = "only the configs of topics can be altered here; change the node's config file for others";
        return Err(Refusal::new(ResponseError::InvalidRequest, why));
    }
    if is_internal(name) {
        let why = format!("topic {name} holds Forebay's own state; its configs cannot be altered");
        return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why));
    }
    let topic = shared.door.log.topic(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let mut config = TopicConfig::clone(&topic.config());
    for change in &resource.configs {
        apply(&mut config, &shared.door.config.topic_defaults.config, change)
            .map_err(|why| Refusal::new(ResponseError::InvalidConfig, why))?;
    }
    if !validate_only {
        shared.door.log.alter_topic(name, config).await?;
        tracing::info!(topic = name, "topic configs altered");
    }
    Ok(())
}

fn apply(config: &mut TopicConfig, defaults: &TopicConfig, change: &AlterableConfig) -> Result<(), String> {
    let name = change.name.as_str();
    let value = || change.value.as_ref().ok_or_else(|| format!("{name}: no value given"));
    match change.config_operation {
        SET => set(config, name, value()?),
        DELETE => reset(config, defaults, name),
        operation @ (APPEND | SUBTRACT) => {
            let list = get(config, name).filter(|shown| shown.kind == LIST);
            let now = list.ok_or_else(|| format!("{name} is not a list"))?.value;
            let given: Vec<&str> = value()?.split(',').map(str::trim).collect();
            let mut entries: Vec<&str> = now.split(',').filter(|entry| !given.contains(entry)).collect();
            if operation == APPEND {
                entries.extend(given);
            }
            set(config, name, &entries.join(","))
        }
        other => Err(format!("{name}: unknown operation {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &'static str, operation: i8, value: &'static str) -> AlterableConfig {
        AlterableConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_config_operation(operation)
            .with_value(Some(StrBytes::from_static_str(value)))
    }

    #[test]
    fn a_config_is_set_and_goes_back_to_its_default() {
        let defaults = TopicConfig::default();
        let mut config = defaults.clone();
        apply(&mut config, &defaults, &change("retention.ms", SET, "1000")).unwrap();
        assert_eq!(config.retention_ms, Some(1000));
        apply(&mut config, &defaults, &change("retention.ms", DELETE, "")).unwrap();
        assert_eq!(config, defaults);
    }

    #[test]
    fn only_lists_are_extended_and_shortened() {
        let defaults = TopicConfig::default();
        let mut config = defaults.clone();
        apply(&mut config, &defaults, &change("cleanup.policy", APPEND, "delete")).unwrap();
        apply(&mut config, &defaults, &change("cleanup.policy", SUBTRACT, "compact")).unwrap();
        assert_eq!(config, defaults);
        assert!(apply(&mut config, &defaults, &change("retention.ms", APPEND, "1")).is_err());
    }
}
