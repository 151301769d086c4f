//! What a fetch asks for: the partitions that it names, where the client may read them.

use std::sync::Arc;

use forebay_cluster::Partition;
use forebay_log::NodeId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use uuid::Uuid;

use super::Shared;
use super::errors::Refusal;
use super::fetch_replica::Reader;
use super::fetch_response::PartitionAnswer;
use super::leadership::{check_leader, check_replica};
use super::session::Session;
use super::topics::partition;
use crate::security::LEGACY_TOPIC as SECRET_TOPIC;
use crate::security::acl::Operation;

/// One partition that is asked for, and the partition if there is one.
pub(super) struct Target {
    pub(super) asked: FetchPartition,
    pub(super) partition: Result<Arc<Partition>, Refusal>,
    /// This node, where a follower may be read as well.
    follower: Option<NodeId>,
    /// A replica that is nearer to the client than the leader here.
    nearer: Option<NodeId>,
}

impl Target {
    /// The partition, as long as it can be read here: its leader may change while a fetch waits.
    pub(super) fn readable(&self) -> Result<&Arc<Partition>, Refusal> {
        let partition = self.partition.as_ref().map_err(Refusal::clone)?;
        let epoch = self.asked.current_leader_epoch;
        match self.follower {
            Some(here) => check_replica(partition, here, epoch)?,
            None => check_leader(partition, epoch)?,
        }
        Ok(partition)
    }
}

pub(super) struct TopicTargets {
    pub(super) name: TopicName,
    pub(super) id: Uuid,
    pub(super) targets: Vec<Target>,
}

pub(super) fn targets(
    shared: &Shared,
    session: &Session,
    reader: &Reader,
    version: i16,
    topic: FetchTopic,
) -> TopicTargets {
    let log = &shared.door.log;
    let (found, unknown) = if version >= 13 {
        (shared.topic_ids.find(log, topic.topic_id), ResponseError::UnknownTopicId)
    } else {
        (log.topic(&topic.topic), ResponseError::UnknownTopicOrPartition)
    };
    // A name is asked about whether there is such a topic or not; of an unknown id there is no name to ask about.
    let name = found.as_ref().map_or(topic.topic.as_str(), |found| &found.name);
    let allowed = if version >= 13 && found.is_none() { Ok(()) } else { may_read(session, name) };
    let targets = topic.partitions.into_iter().map(|asked| {
        let partition = match (&found, allowed) {
            (_, Err(denied)) => Err(denied),
            (Some(found), _) => partition(found, asked.partition).ok_or(ResponseError::UnknownTopicOrPartition),
            (None, _) => Err(unknown),
        };
        let nearer = partition.as_ref().ok().and_then(|partition| reader.nearer(partition));
        Target { asked, partition: partition.cloned().map_err(Refusal::from), follower: reader.follower, nearer }
    });
    TopicTargets { name: topic.topic, id: topic.topic_id, targets: targets.collect() }
}

fn may_read(session: &Session, topic: &str) -> Result<(), ResponseError> {
    // The keys of users are for nobody to read, whatever the ACLs say.
    if topic == SECRET_TOPIC {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    session.topic(Operation::Read, topic)
}

/// Where the client shall read instead, when a nearer replica has what it asks for. What is only in the cold tier the leader gives.
pub(super) fn elsewhere(partition: &Partition, target: &Target) -> Option<PartitionAnswer> {
    let nearer = target.nearer.filter(|_| partition.leads())?;
    let marks = partition.watermarks();
    let has = (marks.local_start.0..=marks.high_watermark.0).contains(&target.asked.fetch_offset);
    has.then(|| PartitionAnswer {
        high_watermark: marks.high_watermark.0,
        log_start: marks.log_start.0,
        preferred: Some(nearer.0),
        ..PartitionAnswer::default()
    })
}
