//! What is stored of a consumer group, in Kafka's own formats: a group's epoch and topics, its target, its members.
//!
//! Keys 3 to 8 of `__consumer_offsets`; the values have version 0, compact lengths and tagged fields (KIP-482). Of the
//! partitions' racks nothing is known, so none are stored.

mod wire;

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use self::wire::{Reader, Writer};
use super::member::{Member, MemberState, Profile};
use super::topics::{Partitions, Shape};
use super::{ConsumerGroup, Limits};
use crate::Millis;
use crate::group::Name;

/// The only version of all values.
const VERSION: i16 = 0;

/// What one record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordOf {
    /// 3: the group's epoch.
    Group,
    /// 4: the topics that the members read.
    Partitions,
    /// 5: what a member says of itself.
    Member(Name),
    /// 6: the target's epoch.
    Target,
    /// 7: what a member shall have.
    TargetMember(Name),
    /// 8: what a member has, and its epoch.
    Current(Name),
}

impl RecordOf {
    /// The key's first two bytes.
    pub fn kind(&self) -> i16 {
        match self {
            RecordOf::Group => 3,
            RecordOf::Partitions => 4,
            RecordOf::Member(_) => 5,
            RecordOf::Target => 6,
            RecordOf::TargetMember(_) => 7,
            RecordOf::Current(_) => 8,
        }
    }

    /// The member, where the record is about one.
    pub fn member(&self) -> Option<&Name> {
        match self {
            RecordOf::Member(id) | RecordOf::TargetMember(id) | RecordOf::Current(id) => Some(id),
            RecordOf::Group | RecordOf::Partitions | RecordOf::Target => None,
        }
    }

    /// All kinds.
    pub const KINDS: std::ops::RangeInclusive<i16> = 3..=8;

    /// `None` for a kind that is none of these; `member` reads the member's id.
    pub fn of_kind(kind: i16, member: impl FnOnce() -> Option<Name>) -> Option<RecordOf> {
        Some(match kind {
            3 => RecordOf::Group,
            4 => RecordOf::Partitions,
            5 => RecordOf::Member(member()?),
            6 => RecordOf::Target,
            7 => RecordOf::TargetMember(member()?),
            8 => RecordOf::Current(member()?),
            _ => return None,
        })
    }
}

fn value(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(VERSION);
    write(&mut value);
    value.put_no_tags();
    value.freeze()
}

fn epoch_value(epoch: i32) -> Bytes {
    value(|value| value.put_i32(epoch))
}

fn topics_value(topics: &BTreeMap<Name, Shape>) -> Bytes {
    value(|value| {
        value.put_count(topics.len());
        for (name, shape) in topics {
            value.put_slice(&shape.id.0);
            value.put_string(name);
            value.put_i32(shape.partitions);
            value.put_count(0);
            value.put_no_tags();
        }
    })
}

fn profile_value(profile: &Profile) -> Bytes {
    value(|value| {
        value.put_optional(profile.instance.as_deref());
        value.put_optional(profile.rack.as_deref());
        value.put_string(&profile.client_id);
        value.put_string(&profile.client_host);
        value.put_count(profile.topics.len());
        profile.topics.iter().for_each(|topic| value.put_string(topic));
        value.put_optional(profile.regex.as_deref());
        value.put_i32(i32::try_from(profile.rebalance_timeout).unwrap_or(i32::MAX));
        value.put_optional(profile.assignor.as_deref());
    })
}

fn current_value(member: &Member) -> Bytes {
    value(|value| {
        value.put_i32(member.epoch);
        value.put_i32(member.previous_epoch);
        value.put_i8(member.state as i8);
        value.put_partitions(&member.assigned);
        value.put_partitions(&member.revoking);
    })
}

fn read_topics(rest: &mut Bytes) -> Option<BTreeMap<Name, Shape>> {
    let mut topics = BTreeMap::new();
    for _ in 0..rest.count()? {
        let id = rest.topic_id()?;
        let name = rest.string()?;
        let partitions = rest.try_get_i32().ok()?;
        for _ in 0..rest.count()? {
            rest.try_get_i32().ok()?;
            for _ in 0..rest.count()? {
                rest.string()?;
            }
            rest.skip_tags()?;
        }
        rest.skip_tags()?;
        topics.insert(name, Shape { id, partitions });
    }
    Some(topics)
}

fn read_profile(rest: &mut Bytes) -> Option<Profile> {
    let (instance, rack) = (rest.optional()?, rest.optional()?);
    let (client_id, client_host) = (rest.string()?, rest.string()?);
    let topics = (0..rest.count()?).map(|_| rest.string()).collect::<Option<_>>()?;
    let regex = rest.optional()?.filter(|regex| !regex.is_empty());
    let rebalance_timeout = i64::from(rest.try_get_i32().ok()?);
    let assignor = rest.optional()?;
    Some(Profile { instance, rack, client_id, client_host, topics, regex, rebalance_timeout, assignor })
}

/// What a member has, as it is stored.
struct Current {
    epoch: i32,
    previous_epoch: i32,
    state: MemberState,
    assigned: Partitions,
    revoking: Partitions,
}

fn read_current(rest: &mut Bytes) -> Option<Current> {
    let (epoch, previous_epoch) = (rest.try_get_i32().ok()?, rest.try_get_i32().ok()?);
    let state = match rest.try_get_i8().ok()? {
        0 => MemberState::Stable,
        1 => MemberState::UnrevokedPartitions,
        2 => MemberState::UnreleasedPartitions,
        _ => return None,
    };
    Some(Current { epoch, previous_epoch, state, assigned: rest.partitions()?, revoking: rest.partitions()? })
}

fn read<V>(mut stored: Bytes, read: impl FnOnce(&mut Bytes) -> Option<V>) -> Option<V> {
    (stored.try_get_i16().ok()? == VERSION).then_some(())?;
    read(&mut stored)
}

impl<T> ConsumerGroup<T> {
    /// The record as it is to be stored now; `None` takes it away.
    pub(super) fn encode(&self, of: &RecordOf) -> Option<Bytes> {
        Some(match of {
            RecordOf::Group => epoch_value(self.epoch),
            RecordOf::Partitions => topics_value(&self.topics),
            RecordOf::Target => epoch_value(self.target_epoch),
            RecordOf::Member(id) => profile_value(&self.members.get(id)?.profile),
            RecordOf::TargetMember(id) => {
                let target = &self.members.get(id)?.target;
                value(|value| value.put_partitions(target))
            }
            RecordOf::Current(id) => current_value(self.members.get(id)?),
        })
    }

    /// A group as it was stored; its members' sessions, and the times to give partitions up, begin anew. Records that cannot
    /// be read count as if they were not there.
    pub fn restore(
        limits: Limits,
        records: impl IntoIterator<Item = (RecordOf, Bytes)>,
        now: Millis,
    ) -> ConsumerGroup<T> {
        let mut group = ConsumerGroup::new(limits);
        let (mut targets, mut currents) = (BTreeMap::new(), BTreeMap::new());
        for (of, stored) in records {
            match of {
                RecordOf::Group => group.epoch = read(stored, |rest| rest.try_get_i32().ok()).unwrap_or(0),
                RecordOf::Target => group.target_epoch = read(stored, |rest| rest.try_get_i32().ok()).unwrap_or(0),
                RecordOf::Partitions => group.topics = read(stored, read_topics).unwrap_or_default(),
                RecordOf::Member(id) => {
                    group.members.extend(read(stored, read_profile).map(|profile| (id, Member::new(profile))));
                }
                RecordOf::TargetMember(id) => targets.extend(read(stored, Reader::partitions).map(|t| (id, t))),
                RecordOf::Current(id) => currents.extend(read(stored, read_current).map(|current| (id, current))),
            }
        }
        let ids: Vec<Name> = group.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = group.members.get_mut(&id) else { continue };
            member.target = targets.remove(&id).unwrap_or_default();
            if let Some(current) = currents.remove(&id) {
                // Stored together, no two members have the same; from damaged records the first one has it.
                let mut own = |part: &_| *group.owners.entry(*part).or_insert_with(|| id.clone()) == id;
                member.assigned = current.assigned.into_iter().filter(&mut own).collect();
                member.revoking = current.revoking.into_iter().filter(&mut own).collect();
                (member.epoch, member.previous_epoch) = (current.epoch, current.previous_epoch);
                member.state = current.state;
            }
            member.session_ends = now.after(limits.consumer_session_timeout);
            if member.state == MemberState::UnrevokedPartitions {
                member.revoke_by = Some(now.after(member.profile.rebalance_timeout));
            }
            if let Some(instance) = &member.profile.instance {
                group.statics.insert(instance.clone(), id.clone());
            }
            group.watch(&id);
        }
        group
    }
}
