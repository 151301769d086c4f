//! ElectLeaders (43), v0-2: leaderships go to the preferred replicas (KIP-183, KIP-460). Unclean elections are refused.

use std::collections::BTreeMap;

use forebay_log::cluster::controller::ElectionType;
use forebay_log::cluster::{Image, Reply, Request};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use kafka_protocol::messages::elect_leaders_response::{ElectLeadersResponse, PartitionResult, ReplicaElectionResult};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::controller::{ask, cluster, find, image};
use super::errors::Refusal;
use super::guard::{Field, INT8, INT32, Kind, Struct, TOPIC_PARTITIONS};
use super::session::Session;
use super::topics::topic_name;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::ElectLeaders,
    name: "ElectLeaders",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 2,
    request: &Struct {
        fields: &[
            Field::new(INT8).from(1),
            Field::new(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS))),
            Field::new(INT32),
        ],
        tags: &[],
    },
};

/// By topic and partition: none where all went well.
type Outcomes = BTreeMap<(String, i32), Option<Refusal>>;

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut outcomes = Outcomes::new();
    let elected = elect(shared, session, &request, &mut outcomes).await;
    let mut response = ElectLeadersResponse::default();
    if let Err(refusal) = elected {
        // Before v1 there is no other place for it than with each partition.
        let asked = request.topic_partitions.iter().flatten();
        for (topic, index) in asked.flat_map(|topic| topic.partitions.iter().map(|at| (topic.topic.to_string(), *at))) {
            outcomes.insert((topic, index), Some(refusal.clone()));
        }
        if version >= 1 {
            response = response.with_error_code(refusal.code);
        }
    }
    let mut results: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for ((topic, index), refusal) in outcomes {
        let (code, message) = refusal.map_or((0, None), |refusal| (refusal.code, refusal.message));
        results.entry(topic).or_default().push(
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(code)
                .with_error_message(message.map(StrBytes::from_string)),
        );
    }
    let results = results.into_iter().map(|(topic, partitions)| {
        ReplicaElectionResult::default().with_topic(topic_name(&topic)).with_partition_result(partitions)
    });
    response.with_replica_election_results(results.collect())
}

async fn elect(
    shared: &Shared,
    session: &Session,
    request: &ElectLeadersRequest,
    outcomes: &mut Outcomes,
) -> Result<(), Refusal> {
    session.cluster(Operation::Alter)?;
    let log = &shared.door.log;
    cluster(log)?;
    let election = match request.election_type {
        0 => ElectionType::Preferred,
        1 => ElectionType::Unclean,
        kind => {
            return Err(Refusal::new(ResponseError::InvalidRequest, format!("there is no election of type {kind}")));
        }
    };
    let image = image(log);
    let partitions = request.topic_partitions.as_ref().map(|asked| known(&image, asked, outcomes));
    if partitions.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    match ask(log, Request::ElectLeaders { election, partitions }, request.timeout_ms).await? {
        Reply::Elected { partitions } => {
            for elected in partitions {
                // One that was deleted in the meantime has no name any more.
                let Some(topic) = image.topic(elected.topic) else { continue };
                let index = i32::try_from(elected.index).unwrap_or(i32::MAX);
                outcomes.insert((topic.name.clone(), index), elected.outcome.err().map(Refusal::from));
            }
            Ok(())
        }
        _ => Err(ResponseError::UnknownServerError.into()),
    }
}

/// The partitions that there are, each once; that there is no such one is noted for the others.
fn known(image: &Image, asked: &[TopicPartitions], outcomes: &mut Outcomes) -> Vec<(Uuid, u32)> {
    let mut known = Vec::new();
    for topic in asked {
        for index in &topic.partitions {
            let at = (topic.topic.to_string(), *index);
            if outcomes.contains_key(&at) {
                continue;
            }
            let found = find(image, &topic.topic, *index);
            outcomes.insert(at, found.err().map(Refusal::from));
            known.extend(found.ok());
        }
    }
    known
}
