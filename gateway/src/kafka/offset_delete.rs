//! OffsetDelete (47), v0: a group forgets how far it has read of topics that none of its members reads (KIP-496).

use forebay_log::group::Name;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequest;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::Shared;
use super::api::Api;
use super::groups::{Ask, TopicPartition};
use super::guard::{Field, INT32, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::OffsetDelete,
    name: "OffsetDelete",
    advertised_from: 0,
    from: 0,
    to: 0,
    flexible_from: i16::MAX,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(Kind::Array(&INT32))],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(shared: &Shared, session: &Session, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    if let Err(denied) = session.group(Operation::Delete, &request.group_id) {
        return OffsetDeleteResponse::default().with_error_code(denied.code());
    }
    let allowed: Vec<_> = request.topics.iter().map(|topic| session.topic(Operation::Read, &topic.name)).collect();
    let of = |topic: &str, partition: i32| TopicPartition { topic: Name::from(topic), partition };
    let readable = request.topics.iter().zip(&allowed).filter(|(_, allowed)| allowed.is_ok());
    let asked = readable.flat_map(|(t, _)| t.partitions.iter().map(|p| of(&t.name, p.partition_index)));
    let asked: Vec<TopicPartition> = asked.collect();
    let ask = |reply| Ask::Forget(asked, reply);
    let mut results = match shared.groups.answer(&shared.door.log, &request.group_id, ask).await {
        Ok(results) => results.into_iter(),
        Err(refusal) => return OffsetDeleteResponse::default().with_error_code(refusal.code),
    };
    // Topic by topic, as they were asked.
    let topics = request.topics.into_iter().zip(allowed).map(|(topic, allowed)| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = allowed.and_then(|()| results.next().unwrap_or(Ok(())));
            let code = result.err().map_or(0, |error| error.code());
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
