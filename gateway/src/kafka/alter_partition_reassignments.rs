//! AlterPartitionReassignments (45), v0-1: replicas move to other nodes, or what is under way is cancelled (KIP-455).

use forebay_log::NodeId;
use forebay_log::cluster::controller::Reassign;
use forebay_log::cluster::{Image, Reply, Request};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition,
};
use kafka_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::controller::{ask, cluster, find, image};
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT32, Kind, Struct};
use super::session::Session;
use super::topics::once;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::AlterPartitionReassignments,
    name: "AlterPartitionReassignments",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 0,
    request: &Struct {
        fields: &[
            Field::new(INT32),
            Field::new(BOOL).from(1),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(INT32), Field::new(Kind::Array(&INT32))],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

/// A partition's index, and why it stays as it was.
type Outcome = (i32, Option<Refusal>);

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    mut request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None);
    let log = &shared.door.log;
    let allowed = session.cluster(Operation::Alter).map_err(Refusal::from);
    if let Err(refusal) = allowed.and_then(|()| cluster(log).map(drop)) {
        return refused(response, refusal);
    }
    once(&mut request.topics, |topic| topic.name.clone());
    let image = image(log);
    let resize = request.allow_replication_factor_change;
    let mut wanted = Vec::new();
    let mut results: Vec<(TopicName, Vec<Outcome>)> = Vec::new();
    // Where in `results` the answer to each of `wanted` goes.
    let mut places = Vec::new();
    for mut topic in request.topics {
        once(&mut topic.partitions, |asked| asked.partition_index);
        let mut partitions: Vec<Outcome> = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let found = check(&image, &topic.name, &asked, resize);
            let refusal = found.map(|reassign| {
                places.push((results.len(), partitions.len()));
                wanted.push(reassign);
            });
            partitions.push((asked.partition_index, refusal.err()));
        }
        results.push((topic.name, partitions));
    }
    if !wanted.is_empty() {
        let asked = ask(log, Request::AlterReassignments { partitions: wanted }, request.timeout_ms).await;
        match asked {
            Ok(Reply::Reassigned { partitions }) => {
                for ((topic, at), outcome) in places.into_iter().zip(partitions) {
                    results[topic].1[at].1 = outcome.err().map(Refusal::from);
                }
            }
            Ok(_) => return refused(response, ResponseError::UnknownServerError.into()),
            Err(refusal) => return refused(response, refusal),
        }
    }
    let topics = results.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, refusal)| {
            let (code, message) = refusal.map_or((0, None), |refusal| (refusal.code, refusal.message));
            ReassignablePartitionResponse::default()
                .with_partition_index(index)
                .with_error_code(code)
                .with_error_message(message.map(StrBytes::from_string))
        });
        ReassignableTopicResponse::default().with_name(name).with_partitions(partitions.collect())
    });
    response.with_responses(topics.collect())
}

fn check(image: &Image, topic: &str, asked: &ReassignablePartition, resize: bool) -> Result<Reassign, Refusal> {
    let (topic, index) = find(image, topic, asked.partition_index)?;
    let target: Option<Vec<NodeId>> =
        asked.replicas.as_ref().map(|replicas| replicas.iter().map(|broker| NodeId(broker.0)).collect());
    if let (Some(target), Some(state), false) = (&target, image.partition(topic, index), resize) {
        let now = state.replicas.len() - state.adding.len();
        if target.len() != now {
            let why =
                format!("{} replicas where there are {now}, and the request forbids to change that", target.len());
            return Err(Refusal::new(ResponseError::InvalidReplicationFactor, why));
        }
    }
    Ok(Reassign { topic, index, target })
}

fn refused(response: AlterPartitionReassignmentsResponse, refusal: Refusal) -> AlterPartitionReassignmentsResponse {
    response.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
}
