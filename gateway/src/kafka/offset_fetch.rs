//! OffsetFetch (9), v1-9: how far groups have read; -1 where nothing was committed.

use forebay_log::group::Name;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestGroup};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::groups::{Ask, Committed, Membership, TopicPartition};
use super::guard::{BOOL, Field, INT32, Kind, Struct, TOPIC_PARTITIONS};
use super::session::Session;
use super::topics::{once, topic_name};
use crate::security::acl::{Operation, ResourceType};

pub(crate) static API: Api = Api {
    key: ApiKey::OffsetFetch,
    name: "OffsetFetch",
    advertised_from: 1,
    from: 1,
    to: 9,
    flexible_from: 6,
    request: &Struct {
        fields: &[
            Field::new(Kind::String).to(7),
            Field::new(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS))).to(7),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(Kind::String).from(9),
                    Field::new(INT32).from(9),
                    Field::new(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS))),
                ],
                tags: &[],
            })))
            .from(8),
            Field::new(BOOL).from(7),
        ],
        tags: &[],
    },
};

/// The offsets of one topic, by partition.
type TopicOffsets = (TopicName, Vec<(i32, Result<Option<Committed>, ResponseError>)>);

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    mut request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if version >= 8 {
        once(&mut request.groups, |group| group.group_id.clone());
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(one_group(shared, session, group).await);
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let asked = request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    match find(shared, session, &request.group_id, asked).await {
        Ok(found) => {
            let topics = found.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(index, committed)| {
                    let Fields { error, offset, epoch, metadata } = fields(committed);
                    let partition = OffsetFetchResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(error)
                        .with_committed_offset(offset)
                        .with_metadata(metadata);
                    if version >= 5 { partition.with_committed_leader_epoch(epoch) } else { partition }
                });
                OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
            });
            OffsetFetchResponse::default().with_topics(topics.collect())
        }
        Err(refusal) => OffsetFetchResponse::default().with_error_code(refusal.code),
    }
}

async fn one_group(shared: &Shared, session: &Session, group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default();
    // A member of the consumer protocol reads them by its epoch (KIP-848).
    let id = group.member_id.as_deref().unwrap_or_default();
    let (generation, id) = (group.member_epoch, Name::from(id));
    if generation >= 0 || !id.is_empty() {
        let ask = |reply| Ask::MayFetch(Membership { generation, id, instance: None }, reply);
        if let Err(refusal) = shared.groups.answer(&shared.door.log, &group.group_id, ask).await {
            return response.with_error_code(refusal.code).with_group_id(group.group_id);
        }
    }
    let asked = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    let response = match find(shared, session, &group.group_id, asked).await {
        Ok(found) => {
            let topics = found.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(index, committed)| {
                    let Fields { error, offset, epoch, metadata } = fields(committed);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_error_code(error)
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(epoch)
                        .with_metadata(metadata)
                });
                OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
            });
            response.with_topics(topics.collect())
        }
        Err(refusal) => response.with_error_code(refusal.code),
    };
    response.with_group_id(group.group_id)
}

struct Fields {
    error: i16,
    offset: i64,
    epoch: i32,
    metadata: Option<StrBytes>,
}

fn fields(committed: Result<Option<Committed>, ResponseError>) -> Fields {
    match committed {
        Ok(Some(Committed { offset, leader_epoch, metadata })) => {
            Fields { error: 0, offset, epoch: leader_epoch, metadata: Some(StrBytes::from_string(metadata)) }
        }
        none => {
            let error = none.err().map_or(0, |error| error.code());
            Fields { error, offset: -1, epoch: -1, metadata: Some(StrBytes::from_static_str("")) }
        }
    }
}

/// What was asked for; without `asked` all that the group has committed.
async fn find(
    shared: &Shared,
    session: &Session,
    group: &str,
    asked: Option<Vec<(TopicName, Vec<i32>)>>,
) -> Result<Vec<TopicOffsets>, Refusal> {
    session.group(Operation::Describe, group)?;
    let (groups, log) = (&shared.groups, &shared.door.log);
    let mut found: Vec<TopicOffsets> = Vec::new();
    let Some(asked) = asked else {
        for (TopicPartition { topic, partition }, committed) in groups.offsets(log, group).await? {
            let committed = Ok(Some(committed));
            match found.last_mut().filter(|(last, _)| last.as_str() == &*topic) {
                Some((_, partitions)) => partitions.push((partition, committed)),
                None => found.push((topic_name(&topic), vec![(partition, committed)])),
            }
        }
        found.retain(|(topic, _)| session.allows(Operation::Describe, ResourceType::Topic, topic));
        return Ok(found);
    };
    for (topic, indexes) in asked {
        let mut partitions = Vec::with_capacity(indexes.len());
        if let Err(denied) = session.topic(Operation::Describe, &topic) {
            found.push((topic, indexes.into_iter().map(|index| (index, Err(denied))).collect()));
            continue;
        }
        for index in indexes {
            let of = TopicPartition { topic: Name::from(&**topic), partition: index };
            partitions.push((index, Ok(groups.offset(log, group, of).await?)));
        }
        found.push((topic, partitions));
    }
    Ok(found)
}
