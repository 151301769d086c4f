//! OffsetForLeaderEpoch (23), v2-4: where a leader epoch ended, so that a consumer notices a truncated log (KIP-101, KIP-320).

use forebay_cluster::Partition;
use forebay_log::{Epoch, Offset, ReadError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT32, Kind, Struct};
use super::leadership::check_leader;
use super::session::Session;
use super::topics::partition;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::OffsetForLeaderEpoch,
    name: "OffsetForLeaderEpoch",
    advertised_from: 2,
    from: 2,
    to: 4,
    flexible_from: 4,
    request: &Struct {
        fields: &[
            Field::new(INT32).from(3),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(INT32), Field::new(INT32), Field::new(INT32)],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|asked| {
        let topic = shared.door.log.topic(&asked.topic);
        let allowed = session.topic(Operation::Describe, &asked.topic);
        let partitions = asked.partitions.iter().map(|part| {
            let found = topic.as_deref().and_then(|topic| partition(topic, part.partition));
            let end = allowed.map_err(Refusal::from).and_then(|()| match found {
                Some(found) => end_of(found, part),
                None => Err(ResponseError::UnknownTopicOrPartition.into()),
            });
            let answer = EpochEndOffset::default().with_partition(part.partition);
            match end {
                Ok((epoch, offset)) => answer.with_leader_epoch(epoch.0).with_end_offset(offset.0),
                Err(refusal) => answer.with_error_code(refusal.code).with_leader_epoch(-1).with_end_offset(-1),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(asked.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_of(partition: &Partition, asked: &OffsetForLeaderPartition) -> Result<(Epoch, Offset), Refusal> {
    check_leader(partition, asked.current_leader_epoch)?;
    let ours = partition.leader_epoch();
    if let Some(why) = partition.unopened() {
        return Err(ReadError::Offline(why).into());
    }
    // Not the high watermark: a new leader's may lie below what its followers have, and a client would take that for a loss.
    let end = partition.watermarks().log_end;
    let wanted = Epoch(asked.leader_epoch);
    // The present epoch may not have written yet; of one that is still to come nothing is known.
    let found = match wanted.0.cmp(&ours.0) {
        std::cmp::Ordering::Equal => Some((ours, end)),
        std::cmp::Ordering::Less => partition.epochs().end_offset(wanted, end),
        std::cmp::Ordering::Greater => None,
    };
    Ok(found.unwrap_or((Epoch(-1), Offset(-1))))
}
