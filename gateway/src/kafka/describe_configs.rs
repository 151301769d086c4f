//! DescribeConfigs (32), v1-4: the configs of topics and of this node.

use forebay_log::TopicConfig;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::brokers::Brokers;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT8, Kind, Struct};
use super::limits::{IDLE, MAX_FETCH_BYTES, MAX_REQUEST_BYTES};
use super::session::Session;
use super::topic_configs::{BOOLEAN, INT, LONG, STRING, list};
use super::topics::once;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeConfigs,
    name: "DescribeConfigs",
    advertised_from: 1,
    from: 1,
    to: 4,
    flexible_from: 4,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(INT8), Field::new(Kind::String), Field::new(Kind::Array(&Kind::String))],
                tags: &[],
            }))),
            Field::new(BOOL),
            Field::new(BOOL).from(3),
        ],
        tags: &[],
    },
};

/// Resource types (Kafka's `ConfigResource.Type`).
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
/// Config sources: set on the topic, given in the node's config file, the default.
pub(crate) const SOURCE_TOPIC: i8 = 1;
const SOURCE_BROKER: i8 = 4;
pub(crate) const SOURCE_DEFAULT: i8 = 5;

pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    mut request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    once(&mut request.resources, |resource| (resource.resource_type, resource.resource_name.clone()));
    let documented = request.include_documentation;
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(shared, session, resource, documented) {
            Ok(configs) => result.with_configs(configs).with_error_message(None),
            Err(refusal) => {
                result.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    shared: &Shared,
    session: &Session,
    resource: &DescribeConfigsResource,
    documented: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    match resource.resource_type {
        TOPIC => session.topic(Operation::DescribeConfigs, &resource.resource_name)?,
        _ => session.cluster(Operation::DescribeConfigs)?,
    }
    let mut configs = match resource.resource_type {
        TOPIC => {
            let topic = shared.door.log.topic(&resource.resource_name).ok_or_else(|| {
                let why = format!("topic {} does not exist", resource.resource_name.as_str());
                Refusal::new(ResponseError::UnknownTopicOrPartition, why)
            })?;
            topic_configs(&topic.config(), &shared.door.config.topic_defaults.config, documented)
        }
        // An empty name asks for the defaults of all brokers: there are none that a client could have set.
        BROKER if resource.resource_name.is_empty() => Vec::new(),
        BROKER if resource.resource_name.as_str() == shared.node_id().to_string() => broker_configs(shared),
        BROKER => {
            let why = format!("this is node {}, not {}", shared.node_id(), resource.resource_name.as_str());
            return Err(Refusal::new(ResponseError::InvalidRequest, why));
        }
        _ => return Err(Refusal::new(ResponseError::InvalidRequest, "only topics and brokers have configs here")),
    };
    if let Some(wanted) = &resource.configuration_keys {
        configs.retain(|config| wanted.contains(&config.name));
    }
    Ok(configs)
}

fn topic_configs(config: &TopicConfig, defaults: &TopicConfig, documented: bool) -> Vec<DescribeConfigsResourceResult> {
    let entries = list(config).into_iter().map(|shown| {
        let default = defaults.get(shown.name).is_some_and(|default| default == shown.value);
        entry(shown.name, shown.value, shown.kind, if default { SOURCE_DEFAULT } else { SOURCE_TOPIC })
            .with_documentation(documented.then(|| StrBytes::from_static_str(shown.doc)))
    });
    entries.collect()
}

fn broker_configs(shared: &Shared) -> Vec<DescribeConfigsResourceResult> {
    let door = &shared.door;
    let defaults = &door.config.topic_defaults;
    let here = Brokers::of(&door.log).find(door.log.node_id());
    let security = door.config.kafka.security_protocol.name();
    let advertised = here.map(|here| format!("{security}://{}:{}", here.host, here.port));
    let topic_default = |name: &str| defaults.config.get(name).unwrap_or_default();
    let facts = [
        ("advertised.listeners", advertised.unwrap_or_default(), STRING),
        ("auto.create.topics.enable", door.config.kafka.auto_create_topics_enable.to_string(), BOOLEAN),
        ("broker.id", shared.node_id().to_string(), INT),
        ("node.id", shared.node_id().to_string(), INT),
        ("compression.type", topic_default("compression.type"), STRING),
        ("connections.max.idle.ms", IDLE.as_millis().to_string(), LONG),
        ("default.replication.factor", "1".to_owned(), INT),
        ("delete.topic.enable", "true".to_owned(), BOOLEAN),
        ("fetch.max.bytes", MAX_FETCH_BYTES.to_string(), INT),
        ("log.dirs", door.config.node.data_dir.display().to_string(), STRING),
        ("log.message.timestamp.type", topic_default("message.timestamp.type"), STRING),
        ("log.retention.bytes", topic_default("retention.bytes"), LONG),
        ("log.retention.ms", topic_default("retention.ms"), LONG),
        ("log.segment.bytes", topic_default("segment.bytes"), INT),
        ("max.connections", door.max_connections.to_string(), INT),
        ("message.max.bytes", topic_default("max.message.bytes"), INT),
        ("min.insync.replicas", topic_default("min.insync.replicas"), INT),
        ("num.partitions", defaults.num_partitions.to_string(), INT),
        ("socket.request.max.bytes", MAX_REQUEST_BYTES.to_string(), INT),
    ];
    let entries = facts.into_iter().map(|(name, value, kind)| {
        entry(name, value, kind, SOURCE_BROKER).with_read_only(true).with_documentation(None)
    });
    entries.collect()
}

fn entry(name: &'static str, value: String, kind: i8, source: i8) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_string(value)))
        .with_config_type(kind)
        .with_config_source(source)
}
