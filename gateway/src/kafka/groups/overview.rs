//! All groups at one glance, for people: kind, state, members and what they have, how far they have read.

use std::collections::HashMap;

use forebay_log::group::Name;
use forebay_log::group::classic::MemberRecord;
use forebay_log::group::consumer::MemberView;
use forebay_log::group::subscription::assigned;

use super::coordinator::Coordinator;
use super::entry::Group;
use super::offsets::{self, TopicPartition};
use super::{Committed, Listed};

/// A group as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Overview {
    pub(crate) listed: Listed,
    /// The generation of a classic group, the epoch of one of the consumer protocol.
    pub(crate) epoch: i32,
    /// How partitions are shared out; empty where nobody has said.
    pub(crate) assignor: Name,
    pub(crate) members: Vec<Member>,
    pub(crate) offsets: Vec<(TopicPartition, Committed)>,
}

/// A member as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: Name,
    pub(crate) instance: Option<Name>,
    pub(crate) client_id: Name,
    pub(crate) host: Name,
    /// Of a member of the consumer protocol.
    pub(crate) epoch: Option<i32>,
    pub(crate) partitions: Vec<TopicPartition>,
}

impl Coordinator {
    pub(super) fn overview(&self, most: usize) -> (usize, Vec<Overview>) {
        let names: HashMap<_, _> = self.catalog.topics.iter().map(|(name, shape)| (shape.id, name.clone())).collect();
        let consumer = |member: MemberView| Member {
            id: member.id,
            instance: member.profile.instance,
            client_id: member.profile.client_id,
            host: member.profile.client_host,
            epoch: Some(member.epoch),
            partitions: member
                .assigned
                .into_iter()
                .filter_map(|part| {
                    Some(TopicPartition { topic: names.get(&part.topic)?.clone(), partition: part.index })
                })
                .collect(),
        };
        let view = |listed: Listed| {
            let offsets = offsets::all(&self.state, &listed.group);
            let (epoch, assignor, members) = match self.groups.get(&listed.group).map(|entry| &entry.group) {
                Some(Group::Classic(group)) => {
                    (group.generation(), group.protocol().cloned(), group.members().map(classic).collect())
                }
                Some(Group::Consumer(group)) => {
                    (group.epoch(), Some(group.assignor().name().into()), group.members().map(consumer).collect())
                }
                None => (0, None, Vec::new()),
            };
            Overview { listed, epoch, assignor: assignor.unwrap_or_default(), members, offsets }
        };
        let listed = self.list();
        (listed.len(), listed.into_iter().take(most).map(view).collect())
    }
}

fn classic(member: MemberRecord) -> Member {
    let partitions = assigned(&member.assignment).into_iter();
    Member {
        id: member.id,
        instance: member.instance,
        client_id: member.client_id,
        host: member.client_host,
        epoch: None,
        partitions: partitions.map(|(topic, partition)| TopicPartition { topic: topic.into(), partition }).collect(),
    }
}
