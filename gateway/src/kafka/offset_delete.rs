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

pub(crate) async fn handle(shared: &Shared, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let of = |topic: &str, partition: i32| TopicPartition { topic: Name::from(topic), partition };
    let asked = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| of(&t.name, p.partition_index)));
    let asked: Vec<TopicPartition> = asked.collect();
    let ask = |reply| Ask::Forget(asked, reply);
    let mut results = match shared.groups.answer(&shared.door.log, &request.group_id, ask).await {
        Ok(results) => results.into_iter(),
        Err(refusal) => return OffsetDeleteResponse::default().with_error_code(refusal.code),
    };
    // Topic by topic, as they were asked.
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = results.next().and_then(Result::err).map_or(0, |error| error.code());
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
