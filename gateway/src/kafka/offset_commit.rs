//! OffsetCommit (8), v2-9: stores how far a consumer has read.
//!
//! From a member of the group's generation, or from a consumer that assigns its partitions itself to a group without members.

use std::time::SystemTime;

use forebay_log::Millis;
use forebay_log::group::Name;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::groups::{Ask, Committed, Membership, TopicPartition};
use super::guard::{Field, INT32, INT64, Kind, Struct};
use super::session::Session;
use super::topics::partition;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::OffsetCommit,
    name: "OffsetCommit",
    advertised_from: 2,
    from: 2,
    to: 9,
    flexible_from: 8,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(INT32),
            Field::new(Kind::String),
            Field::new(Kind::String).from(7),
            Field::new(INT64).to(4),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[
                            Field::new(INT32),
                            Field::new(INT64),
                            Field::new(INT32).from(6),
                            Field::new(Kind::String),
                        ],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

/// Longest metadata of a commit, in bytes (Kafka's `offset.metadata.max.bytes`).
const MAX_METADATA: usize = 4096;

pub(crate) async fn handle(shared: &Shared, session: &Session, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let log = &shared.door.log;
    let mut accepted = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    let group = session.group(Operation::Read, &request.group_id);
    for asked in &request.topics {
        let denied = group.and_then(|()| session.topic(Operation::Read, &asked.name)).err();
        let topic = log.topic(&asked.name);
        let partitions = asked.partitions.iter().map(|part| {
            let known = topic.as_deref().is_some_and(|topic| partition(topic, part.partition_index).is_some());
            let error = denied.or_else(|| refuse(&request, part, known));
            if error.is_none() {
                let of = TopicPartition { topic: Name::from(&**asked.name), partition: part.partition_index };
                accepted.push((of, read(part)));
            }
            OffsetCommitResponsePartition::default()
                .with_partition_index(part.partition_index)
                .with_error_code(error.map_or(0, |error| error.code()))
        });
        let partitions = partitions.collect();
        topics.push(OffsetCommitResponseTopic::default().with_name(asked.name.clone()).with_partitions(partitions));
    }
    let member = Membership {
        generation: request.generation_id_or_member_epoch,
        id: Name::from(&*request.member_id),
        instance: request.group_instance_id.as_deref().map(Name::from),
    };
    let stored = match accepted.is_empty() {
        true => Ok(()),
        false => {
            let now = Millis::from_system(SystemTime::now());
            let ask = |reply| Ask::Commit(member, accepted, now, reply);
            shared.groups.answer(log, &request.group_id, ask).await
        }
    };
    if let Err(Refusal { code, .. }) = stored {
        for part in topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|part| part.error_code == 0) {
            part.error_code = code;
        }
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn refuse(request: &OffsetCommitRequest, part: &OffsetCommitRequestPartition, known: bool) -> Option<ResponseError> {
    if request.group_id.is_empty() {
        Some(ResponseError::InvalidGroupId)
    } else if !known {
        Some(ResponseError::UnknownTopicOrPartition)
    } else if part.committed_metadata.as_ref().is_some_and(|metadata| metadata.len() > MAX_METADATA) {
        Some(ResponseError::OffsetMetadataTooLarge)
    } else {
        None
    }
}

fn read(part: &OffsetCommitRequestPartition) -> Committed {
    Committed {
        offset: part.committed_offset,
        leader_epoch: part.committed_leader_epoch,
        metadata: part.committed_metadata.as_ref().map(|metadata| metadata.to_string()).unwrap_or_default(),
    }
}
