//! ConsumerGroupHeartbeat (68), v0-1: a consumer joins, stays, leaves, and learns what it is to read (KIP-848).

use forebay_log::group::Name;
use forebay_log::group::consumer::{Beat, Heartbeat, Partition, TopicId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::dispatch::Client;
use super::errors::Refusal;
use super::groups::Ask;
use super::guard::{Field, INT32, Kind, Struct, UUID};
use super::join_group::text;
use super::limits::MAX_GROUP_NAME;
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::ConsumerGroupHeartbeat,
    name: "ConsumerGroupHeartbeat",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 0,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(Kind::String),
            Field::new(INT32),
            Field::new(Kind::String),
            Field::new(Kind::String),
            Field::new(INT32),
            Field::new(Kind::Array(&Kind::String)),
            Field::new(Kind::String).from(1),
            Field::new(Kind::String),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(UUID), Field::new(Kind::Array(&INT32))],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

/// First version in which the member makes its own id, and may subscribe by a regular expression.
const MEMBER_MAKES_ID: i16 = 1;

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    client: Client,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let answer = match (allow(session, &request), check(version, &request)) {
        (Err(denied), _) => Err(denied.into()),
        (Ok(()), Err(why)) => Err(Refusal::new(ResponseError::InvalidRequest, why)),
        (Ok(()), Ok(())) => ask(shared, client, request).await,
    };
    match answer {
        Ok(beat) => accepted(shared, beat),
        Err(Refusal { code, message }) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(code)
            .with_error_message(message.map(StrBytes::from_string)),
    }
}

/// A member reads the group, and may know of the topics that it names.
fn allow(session: &Session, request: &ConsumerGroupHeartbeatRequest) -> Result<(), ResponseError> {
    session.group(Operation::Read, &request.group_id)?;
    let named = request.subscribed_topic_names.iter().flatten();
    named.into_iter().try_for_each(|topic| session.topic(Operation::Describe, topic))
}

async fn ask(shared: &Shared, client: Client, request: ConsumerGroupHeartbeatRequest) -> Result<Beat, Refusal> {
    let (to, answer) = oneshot::channel();
    let name = |text: StrBytes| Name::from(&*text);
    let id = match &*request.member_id {
        "" => Uuid::new_v4().to_string().into(),
        id => Name::from(id),
    };
    let owned = request.topic_partitions.map(|topics| {
        let of = |topic: Uuid, index| Partition { topic: TopicId(topic.into_bytes()), index };
        topics.iter().flat_map(|t| t.partitions.iter().map(move |index| of(t.topic_id, *index))).collect()
    });
    let beat = Heartbeat {
        to,
        id,
        epoch: request.member_epoch,
        instance: request.instance_id.map(name),
        rack: request.rack_id.map(name),
        client_id: client.id,
        client_host: client.host,
        rebalance_timeout: (request.rebalance_timeout_ms >= 0).then(|| i64::from(request.rebalance_timeout_ms)),
        topics: request.subscribed_topic_names.map(|topics| topics.iter().map(|topic| Name::from(&***topic)).collect()),
        regex: request.subscribed_topic_regex.map(name),
        assignor: request.server_assignor.map(name),
        owned,
    };
    shared.groups.ask(&shared.door.log, &request.group_id, Ask::Beat(beat)).await?;
    match answer.await {
        Ok(answer) => Ok(answer?),
        // The node shuts down.
        Err(_) => Err(ResponseError::NotCoordinator.into()),
    }
}

/// Why the request makes no sense, if it does not.
fn check(version: i16, request: &ConsumerGroupHeartbeatRequest) -> Result<(), &'static str> {
    let is_empty = |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| text.is_empty());
    let joins = request.member_epoch == 0;
    let id_missing = request.member_id.is_empty() && (!joins || version >= MEMBER_MAKES_ID);
    let names = [&request.instance_id, &request.rack_id, &request.server_assignor, &request.subscribed_topic_regex];
    let all = [&*request.group_id, &request.member_id].into_iter().chain(names.into_iter().flatten());
    let too_long = all.into_iter().any(|name| name.len() > MAX_GROUP_NAME);
    let wrong = [
        (too_long, "an id, the rack, the assignor or the regular expression is too long"),
        (request.group_id.is_empty(), "the group id is empty"),
        (id_missing, "the member id is empty"),
        (is_empty(&request.instance_id), "the instance id is empty"),
        (is_empty(&request.rack_id), "the rack id is empty"),
        (is_empty(&request.server_assignor), "the assignor is empty"),
        (request.member_epoch < -2, "the member epoch is below -2"),
        (request.member_epoch == -2 && request.instance_id.is_none(), "only a static member leaves with epoch -2"),
        (joins && request.rebalance_timeout_ms < 0, "who joins has to name its rebalance timeout"),
        (
            joins && request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none(),
            "who joins has to name topics or a regular expression",
        ),
        (
            joins && !request.topic_partitions.as_ref().is_some_and(Vec::is_empty),
            "who joins has to say that it has no partitions",
        ),
    ];
    wrong.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(why))
}

fn accepted(shared: &Shared, beat: Beat) -> ConsumerGroupHeartbeatResponse {
    let interval = shared.groups.limits.consumer_heartbeat_interval;
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(&beat.id)))
        .with_member_epoch(beat.epoch)
        .with_heartbeat_interval_ms(i32::try_from(interval).unwrap_or(i32::MAX))
        .with_assignment(beat.assignment.map(|assignment| {
            let sorted: Vec<Partition> = assignment.into_iter().collect();
            let topics = sorted.chunk_by(|a, b| a.topic == b.topic).filter_map(|of_topic| {
                let topic = of_topic.first()?.topic;
                let indexes = of_topic.iter().map(|part| part.index).collect();
                let partitions = TopicPartitions::default().with_topic_id(Uuid::from_bytes(topic.0));
                Some(partitions.with_partitions(indexes))
            });
            Assignment::default().with_topic_partitions(topics.collect())
        }))
}
