//! DescribeQuorum (55), v0-2: the controller quorum, and how far each of its nodes is (KIP-595, KIP-836).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use forebay_cluster::quorum::Status;
use forebay_log::cluster::{Image, Node as Member};
use forebay_log::{Millis, NodeId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use kafka_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{ApiKey, BrokerId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::controller::{cluster, image};
use super::errors::Refusal;
use super::guard::{Field, INT32, Kind, Struct};
use super::session::Session;
use super::topics::{once, topic_name};
use crate::security::acl::Operation;

/// Kafka's name for the log of the quorum, which is no topic that can be read.
const METADATA: &str = "__cluster_metadata";
/// The listener over which the quorum's nodes talk.
const LISTENER: &str = "cluster";

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeQuorum,
    name: "DescribeQuorum",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 0,
    request: &Struct {
        fields: &[Field::new(Kind::Array(&Kind::Struct(&Struct {
            fields: &[
                Field::new(Kind::String),
                Field::new(Kind::Array(&Kind::Struct(&Struct { fields: &[Field::new(INT32)], tags: &[] }))),
            ],
            tags: &[],
        })))],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    match describe(shared, session, version, request).await {
        Ok(response) => response,
        Err(refusal) => DescribeQuorumResponse::default()
            .with_error_code(refusal.code)
            .with_error_message(refusal.message.map(StrBytes::from_string)),
    }
}

async fn describe(
    shared: &Shared,
    session: &Session,
    version: i16,
    mut request: DescribeQuorumRequest,
) -> Result<DescribeQuorumResponse, Refusal> {
    session.cluster(Operation::Describe)?;
    let log = &shared.door.log;
    let cluster = cluster(log)?;
    let status = cluster.quorum_at_leader().await;
    let image = image(log);
    once(&mut request.topics, |topic| topic.topic_name.clone());
    let topics = request.topics.into_iter().map(|mut topic| {
        once(&mut topic.partitions, |partition| partition.partition_index);
        let partitions = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            let part = PartitionData::default().with_partition_index(index).with_error_message(None);
            match &status {
                _ if topic.topic_name.as_str() != METADATA || index != 0 => {
                    part.with_error_code(ResponseError::UnknownTopicOrPartition.code())
                }
                None => part.with_error_code(ResponseError::LeaderNotAvailable.code()),
                Some(status) => quorum(part, status, &image, version),
            }
        });
        TopicData::default().with_topic_name(topic_name(&topic.topic_name)).with_partitions(partitions.collect())
    });
    let response = DescribeQuorumResponse::default().with_topics(topics.collect());
    let response = response.with_error_message(None);
    Ok(match &status {
        Some(status) if version >= 2 => response.with_nodes(nodes(status, &image)),
        _ => response,
    })
}

fn quorum(part: PartitionData, status: &Status, image: &Image, version: i16) -> PartitionData {
    let now = Millis::from_system(SystemTime::now());
    let of =
        |members: &BTreeMap<u64, String>| members.keys().map(|id| state(*id, status, image, now, version)).collect();
    part.with_leader_id(broker(status.leader))
        .with_leader_epoch(i32::try_from(status.term).unwrap_or(i32::MAX))
        .with_high_watermark(end(status.committed))
        .with_current_voters(of(&status.voters))
        .with_observers(of(&status.learners))
}

fn state(id: u64, status: &Status, image: &Image, now: Millis, version: i16) -> ReplicaState {
    let follower = status.followers.get(&id);
    let leads = status.leader == Some(id);
    let ago = |ago: Option<Duration>| match ago {
        Some(ago) => now.0.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        None => -1,
    };
    let log_end = if leads { status.last_log } else { follower.and_then(|follower| follower.matched) };
    let state = ReplicaState::default().with_replica_id(broker(Some(id))).with_log_end_offset(end(log_end));
    let state = if version >= 2 { state.with_replica_directory_id(directory(id, image)) } else { state };
    if leads {
        return state.with_last_caught_up_timestamp(now.0);
    }
    state
        .with_last_fetch_timestamp(ago(follower.and_then(|follower| follower.answered)))
        .with_last_caught_up_timestamp(ago(follower.and_then(|follower| follower.caught_up)))
}

fn nodes(status: &Status, image: &Image) -> Vec<Node> {
    let voters = status.voters.keys().map(|id| {
        let address = member(*id, image).and_then(|node| node.address(LISTENER));
        let listener = address.and_then(|address| address.rsplit_once(':')).and_then(|(host, port)| {
            let listener = Listener::default().with_name(StrBytes::from_static_str(LISTENER));
            Some(listener.with_host(StrBytes::from_string(host.to_owned())).with_port(port.parse().ok()?))
        });
        Node::default().with_node_id(broker(Some(*id))).with_listeners(listener.into_iter().collect())
    });
    voters.collect()
}

/// Offsets count from 0, and an end is behind the last one; -1 where it is not known.
fn end(last: Option<u64>) -> i64 {
    last.and_then(|last| i64::try_from(last).ok()).map_or(-1, |last| last.saturating_add(1))
}

fn broker(id: Option<u64>) -> BrokerId {
    BrokerId(id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1))
}

fn member(id: u64, image: &Image) -> Option<&Member> {
    image.node(NodeId(i32::try_from(id).ok()?))
}

fn directory(id: u64, image: &Image) -> Uuid {
    let registration = member(id, image).and_then(|node| node.registration.as_ref());
    registration.map_or(Uuid::nil(), |registration| registration.directory)
}
