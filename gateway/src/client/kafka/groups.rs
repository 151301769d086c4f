//! Consumer groups: listed, described, their offsets moved, and groups removed.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_log::Offset;
use forebay_log::group::subscription::assigned;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use kafka_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use kafka_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::list_groups_request::ListGroupsRequest;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequest;
use kafka_protocol::protocol::StrBytes;

use super::connection::Connection;
use super::{Client, check, topic_name};

/// Highest version of each that still asks for one group alone, or says all that is shown here.
const FIND_COORDINATOR: i16 = 3;
const DESCRIBE_GROUPS: i16 = 5;
const LIST_GROUPS: i16 = 4;
const CONSUMER_GROUP_DESCRIBE: i16 = 0;
const OFFSET_FETCH: i16 = 7;
const OFFSET_COMMIT: i16 = 8;
const DELETE_GROUPS: i16 = 2;

/// A group as its coordinator describes it.
#[derive(Debug, Clone)]
pub struct Group {
    pub name: String,
    pub kind: GroupKind,
    /// One of Kafka's names; `Dead` for a group that is not there.
    pub state: String,
    /// How partitions are shared out.
    pub protocol: String,
    /// Of the group and of what its members shall have, of one of the consumer protocol (KIP-848).
    pub epochs: Option<(i32, i32)>,
    pub members: Vec<GroupMember>,
}

/// The protocol that a group's members speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    Classic,
    Consumer,
}

#[derive(Debug, Clone)]
pub struct GroupMember {
    pub id: String,
    pub client_id: String,
    pub host: String,
    /// Of a member of the consumer protocol.
    pub epoch: Option<i32>,
    /// Topic and partition, each.
    pub partitions: Vec<(String, i32)>,
}

impl GroupKind {
    pub fn name(self) -> &'static str {
        match self {
            GroupKind::Classic => "classic",
            GroupKind::Consumer => "consumer",
        }
    }
}

pub(super) fn group_id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

impl Client {
    /// The names of all groups that any broker coordinates.
    pub async fn groups(&mut self) -> anyhow::Result<Vec<String>> {
        self.metadata(Some(""), false).await?;
        let brokers: Vec<i32> = self.brokers.keys().copied().collect();
        let mut names = Vec::new();
        for broker in brokers {
            let call = self.broker(broker).await?.call(LIST_GROUPS, Duration::ZERO, |_| ListGroupsRequest::default());
            let answer = call.await?;
            check(answer.error_code, None, "cannot list groups")?;
            names.extend(answer.groups.into_iter().map(|group| group.group_id.to_string()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The connection to the broker that coordinates a group.
    pub(super) async fn coordinator(&mut self, group: &str) -> anyhow::Result<&mut Connection> {
        let key = StrBytes::from_string(group.to_owned());
        let request = FindCoordinatorRequest::default().with_key(key);
        let answer = self.first.call(FIND_COORDINATOR, Duration::ZERO, |_| request).await?;
        check(answer.error_code, answer.error_message.as_ref(), format!("cannot find the coordinator of {group}"))?;
        let broker = answer.node_id.0;
        self.brokers.insert(broker, format!("{}:{}", answer.host.as_str(), answer.port));
        self.broker(broker).await
    }

    /// A group's state and members.
    pub async fn group(&mut self, name: &str) -> anyhow::Result<Group> {
        match self.consumer_group(name).await? {
            Some(group) => Ok(group),
            None => self.classic_group(name).await,
        }
    }

    /// A group of the consumer protocol; `None` if it is none, or the broker is too old to have any.
    async fn consumer_group(&mut self, name: &str) -> anyhow::Result<Option<Group>> {
        let coordinator = self.coordinator(name).await?;
        if !coordinator.serves::<ConsumerGroupDescribeRequest>() {
            return Ok(None);
        }
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(name)]);
        let answer = coordinator.call(CONSUMER_GROUP_DESCRIBE, Duration::ZERO, |_| request).await?;
        let group = answer.groups.into_iter().next();
        let group = group.ok_or_else(|| anyhow::anyhow!("the coordinator's answer does not tell of {name}"))?;
        if group.error_code == ResponseError::GroupIdNotFound.code() {
            return Ok(None);
        }
        check(group.error_code, group.error_message.as_ref(), format!("group {name}"))?;
        let members = group.members.into_iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            epoch: Some(member.member_epoch),
            partitions: member
                .assignment
                .topic_partitions
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic_name.as_str().to_owned(), *index)))
                .collect(),
        });
        Ok(Some(Group {
            name: name.to_owned(),
            kind: GroupKind::Consumer,
            state: group.group_state.to_string(),
            protocol: group.assignor_name.to_string(),
            epochs: Some((group.group_epoch, group.assignment_epoch)),
            members: members.collect(),
        }))
    }

    async fn classic_group(&mut self, name: &str) -> anyhow::Result<Group> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(name)]);
        let answer = self.coordinator(name).await?.call(DESCRIBE_GROUPS, Duration::ZERO, |_| request).await?;
        let group = answer.groups.into_iter().next();
        let group = group.ok_or_else(|| anyhow::anyhow!("the coordinator's answer does not tell of {name}"))?;
        check(group.error_code, None, format!("group {name}"))?;
        let members = group.members.into_iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            epoch: None,
            partitions: assigned(&member.member_assignment),
        });
        Ok(Group {
            name: name.to_owned(),
            kind: GroupKind::Classic,
            epochs: None,
            state: group.group_state.to_string(),
            protocol: group.protocol_data.to_string(),
            members: members.collect(),
        })
    }

    /// How far a group has read, by topic and partition.
    pub async fn group_offsets(&mut self, name: &str) -> anyhow::Result<BTreeMap<(String, i32), Offset>> {
        let request = OffsetFetchRequest::default().with_group_id(group_id(name)).with_topics(None);
        let answer = self.coordinator(name).await?.call(OFFSET_FETCH, Duration::ZERO, |_| request).await?;
        check(answer.error_code, None, format!("cannot read the offsets of group {name}"))?;
        let mut offsets = BTreeMap::new();
        for topic in answer.topics {
            for part in topic.partitions {
                let what = || format!("group {name}, {}-{}", topic.name.as_str(), part.partition_index);
                check(part.error_code, None, what())?;
                if part.committed_offset >= 0 {
                    offsets.insert((topic.name.to_string(), part.partition_index), Offset(part.committed_offset));
                }
            }
        }
        Ok(offsets)
    }

    /// Moves a group in a topic; it may have no members.
    pub async fn seek_group(&mut self, name: &str, topic: &str, to: &[(i32, Offset)]) -> anyhow::Result<()> {
        self.commit_at(None, name, topic, to).await
    }

    /// As [`Client::seek_group`], with what this broker knows of the group.
    #[cfg(test)]
    pub(crate) async fn seek_group_at(
        &mut self,
        name: &str,
        topic: &str,
        to: &[(i32, Offset)],
        broker: i32,
    ) -> anyhow::Result<()> {
        self.commit_at(Some(broker), name, topic, to).await
    }

    async fn commit_at(
        &mut self,
        at: Option<i32>,
        name: &str,
        topic: &str,
        to: &[(i32, Offset)],
    ) -> anyhow::Result<()> {
        let part = |&(index, offset): &(i32, Offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset.0)
                .with_committed_metadata(Some(StrBytes::default()))
        };
        let moved = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(to.iter().map(part).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(name))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![moved]);
        let answer = match at {
            Some(broker) => self.broker(broker).await?,
            None => self.coordinator(name).await?,
        };
        let answer = answer.call(OFFSET_COMMIT, Duration::ZERO, |_| request).await?;
        for topic in answer.topics {
            for part in topic.partitions {
                let what = || format!("cannot move group {name} in {}-{}", topic.name.as_str(), part.partition_index);
                check(part.error_code, None, what())?;
            }
        }
        Ok(())
    }

    /// Removes a group and its offsets; it may have no members.
    pub async fn delete_group(&mut self, name: &str) -> anyhow::Result<()> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(name)]);
        let answer = self.coordinator(name).await?.call(DELETE_GROUPS, Duration::ZERO, |_| request).await?;
        for result in answer.results {
            check(result.error_code, None, format!("cannot delete group {name}"))?;
        }
        Ok(())
    }
}
