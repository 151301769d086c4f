//! Metadata (3), v0-13: the nodes, the topics and their partitions; makes unknown topics when the client allows it.

use std::sync::Arc;

use forebay_cluster::Topic;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::brokers::Brokers;
use super::errors::Refusal;
use super::guard::{BOOL, Field, Kind, Struct, UUID};
use super::session::Session;
use super::topics::{find_or_create, once, topic_name};
use crate::security::acl::{CLUSTER_NAME, Operation, ResourceType};

pub(crate) static API: Api = Api {
    key: ApiKey::Metadata,
    name: "Metadata",
    advertised_from: 0,
    from: 0,
    to: 13,
    flexible_from: 9,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(UUID).from(10), Field::new(Kind::String)],
                tags: &[],
            }))),
            Field::new(BOOL).from(4),
            Field::new(BOOL).from(8).to(10),
            Field::new(BOOL).from(8),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let door = &shared.door;
    let (of_cluster, of_topics) =
        (request.include_cluster_authorized_operations, request.include_topic_authorized_operations);
    let mut topics = match request.topics {
        None => all_topics(shared, session),
        // Before v1 an empty list asked for all.
        Some(asked) if asked.is_empty() && version == 0 => all_topics(shared, session),
        Some(mut asked) => {
            once(&mut asked, |topic| (topic.name.clone(), topic.topic_id));
            let mut topics = Vec::with_capacity(asked.len());
            for topic in asked {
                topics.push(one_topic(shared, session, topic, request.allow_auto_topic_creation).await);
            }
            topics
        }
    };
    for topic in topics.iter_mut().filter(|topic| of_topics && topic.error_code == 0) {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        topic.topic_authorized_operations = session.authorized_operations(ResourceType::Topic, name);
    }
    let up = Brokers::of(&door.log);
    let brokers = up.all().map(|broker| {
        let shown = MetadataResponseBroker::default().with_node_id(broker.id);
        let shown = shown.with_host(broker.host).with_port(broker.port);
        if version >= 1 { shown.with_rack(broker.rack) } else { shown }
    });
    let response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(door.log.cluster_id())))
        .with_controller_id(up.controller)
        .with_topics(topics);
    if of_cluster { response.with_cluster_authorized_operations(session.operations_on_cluster()) } else { response }
}

/// Those that the session may know of.
fn all_topics(shared: &Shared, session: &Session) -> Vec<MetadataResponseTopic> {
    let topics = shared.door.log.topics();
    let known = topics.values().filter(|topic| session.allows(Operation::Describe, ResourceType::Topic, &topic.name));
    known.map(|topic| describe(shared, topic)).collect()
}

async fn find(
    shared: &Shared,
    session: &Session,
    asked: &MetadataRequestTopic,
    create: bool,
) -> Result<Arc<Topic>, Refusal> {
    let log = &shared.door.log;
    let Some(name) = &asked.name else {
        let topic = shared.topic_ids.find(log, asked.topic_id).ok_or(ResponseError::UnknownTopicId)?;
        session.topic(Operation::Describe, &topic.name)?;
        return Ok(topic);
    };
    session.topic(Operation::Describe, name)?;
    if create && log.topic(name).is_none() && !session.allows(Operation::Create, ResourceType::Cluster, CLUSTER_NAME) {
        session.topic(Operation::Create, name)?;
    }
    find_or_create(&shared.door, name, create && shared.door.config.kafka.auto_create_topics_enable).await
}

async fn one_topic(
    shared: &Shared,
    session: &Session,
    asked: MetadataRequestTopic,
    create: bool,
) -> MetadataResponseTopic {
    match find(shared, session, &asked, create).await {
        Ok(topic) => describe(shared, &topic),
        Err(refusal) => {
            // Up to v11 the name is not nullable, and no topic is asked for by id alone before v12.
            let name = asked.name.or_else(|| Some(topic_name("")));
            MetadataResponseTopic::default().with_error_code(refusal.code).with_name(name).with_topic_id(asked.topic_id)
        }
    }
}

fn describe(shared: &Shared, topic: &Arc<Topic>) -> MetadataResponseTopic {
    let brokers = Brokers::of(&shared.door.log);
    let partitions = topic.partitions.iter().map(|partition| {
        let lies = brokers.whereabouts(partition);
        MetadataResponsePartition::default()
            .with_error_code(lies.error)
            .with_partition_index(i32::try_from(partition.index()).unwrap_or(i32::MAX))
            .with_leader_id(lies.leader)
            .with_leader_epoch(partition.leader_epoch().0)
            .with_replica_nodes(lies.replicas)
            .with_isr_nodes(lies.isr)
            .with_offline_replicas(lies.offline)
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}
