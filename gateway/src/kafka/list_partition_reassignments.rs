//! ListPartitionReassignments (46), v0: which partitions are moving, and where to (KIP-455).

use std::collections::{BTreeMap, BTreeSet};

use forebay_log::NodeId;
use forebay_log::cluster::PartitionState;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use kafka_protocol::messages::list_partition_reassignments_response::{
    ListPartitionReassignmentsResponse, OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{ApiKey, BrokerId};

use super::Shared;
use super::api::Api;
use super::controller::image;
use super::guard::{Field, INT32, Kind, Struct, TOPIC_PARTITIONS};
use super::session::Session;
use super::topics::topic_name;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::ListPartitionReassignments,
    name: "ListPartitionReassignments",
    advertised_from: 0,
    from: 0,
    to: 0,
    flexible_from: 0,
    request: &Struct {
        fields: &[Field::new(INT32), Field::new(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS)))],
        tags: &[],
    },
};

pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
    if let Err(denied) = session.cluster(Operation::Describe) {
        return response.with_error_code(denied.code());
    }
    let asked: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        let named = topics.iter().flat_map(|topic| topic.partition_indexes.iter().map(|at| (topic.name.as_str(), *at)));
        named.collect()
    });
    let image = image(&shared.door.log);
    let mut moving: BTreeMap<&str, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
    for (topic, index, state) in image.reassignments() {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        if asked.as_ref().is_none_or(|asked| asked.contains(&(topic.name.as_str(), index))) {
            moving.entry(&topic.name).or_default().push(describe(index, state));
        }
    }
    let topics = moving.into_iter().map(|(name, partitions)| {
        OngoingTopicReassignment::default().with_name(topic_name(name)).with_partitions(partitions)
    });
    response.with_topics(topics.collect())
}

fn describe(index: i32, state: &PartitionState) -> OngoingPartitionReassignment {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|id| BrokerId(id.0)).collect();
    OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(ids(&state.replicas))
        .with_adding_replicas(ids(&state.adding))
        .with_removing_replicas(ids(&state.removing))
}
