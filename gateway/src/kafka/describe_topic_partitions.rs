//! DescribeTopicPartitions (75), v0: topics with their partitions, a page at a time (KIP-966).

use std::collections::BTreeSet;

use forebay_cluster::Topic;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

use super::Shared;
use super::api::Api;
use super::brokers::Brokers;
use super::guard::{Field, INT32, Kind, Struct};
use super::limits::MAX_DESCRIBED_PARTITIONS;
use super::session::Session;
use super::topics::topic_name;
use crate::security::acl::{Operation, ResourceType};

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeTopicPartitions,
    name: "DescribeTopicPartitions",
    advertised_from: 0,
    from: 0,
    to: 0,
    flexible_from: 0,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct { fields: &[Field::new(Kind::String)], tags: &[] }))),
            Field::new(INT32),
            Field::new(Kind::Nullable(&Struct { fields: &[Field::new(Kind::String), Field::new(INT32)], tags: &[] })),
        ],
        tags: &[],
    },
};

/// Topics come in the order of their names, so that a cursor says where the next page begins.
pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let topics = shared.door.log.topics();
    let mut names: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
    if names.is_empty() {
        let may_see = |name: &&str| session.allows(Operation::Describe, ResourceType::Topic, name);
        names = topics.keys().map(String::as_str).filter(may_see).collect();
    }
    let begin = request
        .cursor
        .as_ref()
        .map_or(("", 0), |cursor| (cursor.topic_name.as_str(), usize::try_from(cursor.partition_index).unwrap_or(0)));
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, MAX_DESCRIBED_PARTITIONS);
    let (mut described, mut left) = (Vec::new(), limit);
    for name in names.range(begin.0..).copied() {
        let from = if name == begin.0 { begin.1 } else { 0 };
        if left == 0 {
            return respond(described, Some((name, from)));
        }
        let answer = DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(name)));
        if let Err(denied) = session.topic(Operation::Describe, name) {
            described.push(answer.with_error_code(denied.code()));
            continue;
        }
        let Some(topic) = topics.get(name) else {
            described.push(answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()));
            continue;
        };
        let until = topic.partitions.len().min(from + left);
        let partitions = describe(shared, topic, from, until);
        left -= partitions.len();
        described.push(
            answer
                .with_topic_authorized_operations(session.authorized_operations(ResourceType::Topic, name))
                .with_topic_id(topic.id)
                .with_is_internal(topic.is_internal())
                .with_partitions(partitions),
        );
        if until < topic.partitions.len() {
            return respond(described, Some((name, until)));
        }
    }
    respond(described, None)
}

fn describe(
    shared: &Shared,
    topic: &Topic,
    from: usize,
    until: usize,
) -> Vec<DescribeTopicPartitionsResponsePartition> {
    let brokers = Brokers::of(&shared.door.log);
    let page = topic.partitions.get(from..until).unwrap_or_default();
    let partitions = page.iter().map(|partition| {
        let lies = brokers.whereabouts(partition);
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(lies.error)
            .with_partition_index(i32::try_from(partition.index()).unwrap_or(i32::MAX))
            .with_leader_id(lies.leader)
            .with_leader_epoch(partition.leader_epoch().0)
            .with_replica_nodes(lies.replicas)
            .with_isr_nodes(lies.isr)
            .with_offline_replicas(lies.offline)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    partitions.collect()
}

fn respond(
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<(&str, usize)>,
) -> DescribeTopicPartitionsResponse {
    let cursor = next.map(|(name, partition)| {
        Cursor::default()
            .with_topic_name(topic_name(name))
            .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(cursor)
}
