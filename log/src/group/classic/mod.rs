//! The classic group protocol: members join and sync, one of them, the leader, decides who owns what.
//!
//! ```text
//!            join                    all have joined, or time is up          assignment stored
//!   Empty ────────> PreparingRebalance ───────────────────────> CompletingRebalance ─────────> Stable
//!     ^                 ^      │ nobody is left                    │ join, leave, expiry         │
//!     └─────────────────┼──────┘                                   │                             │
//!                       └──────────────────────────────────────────┴─────────────────────────────┘
//! ```
//!
//! A member's request that must wait (JoinGroup for the others, SyncGroup for the leader) is a `T` that comes back in an
//! [`Effect`]. Times are of a clock that is never set: only differences count. Sources: KIP-62 (rebalance timeout), KIP-134
//! (initial delay), KIP-345 (static members), KIP-394 (member id before joining), KIP-559 (protocol in every answer), KIP-814 (a
//! static leader keeps its assignment).

mod join;
mod leave;
mod member;
mod rebalance;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use join::{Join, Joined, JoinedMember};
pub use leave::Leaver;
pub use member::{GroupRecord, MemberRecord, Protocol};
pub use sync::{Sync, Synced};

use self::member::{MEMBER_BYTES, Member};
use self::rebalance::Unsynced;
use super::{GroupError, Limits, Name};
use crate::Millis;

/// What the driver has to do.
#[derive(Debug)]
pub enum Effect<T> {
    /// The answer to a JoinGroup, for the member `id`.
    Joined { to: T, id: Name, answer: Result<Joined, GroupError> },
    /// The answer to a SyncGroup.
    Synced { to: T, answer: Result<Synced, GroupError> },
    /// Make the record durable, then tell [`ClassicGroup::stored`].
    Persist { record: GroupRecord, then: Then },
}

/// What waits for a record to be durable.
#[derive(Debug)]
pub enum Then {
    /// The members of this generation wait for their assignments.
    Assign { generation: i32, assignments: BTreeMap<Name, Bytes> },
    /// Nobody: the group has become empty.
    Nothing,
}

/// Where a group is in its life, with Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

#[derive(Debug)]
enum State {
    Empty,
    /// Members join until `ends`.
    PreparingRebalance {
        ends: Millis,
        initial: Option<Initial>,
    },
    /// Members wait for the leader's assignment; `storing` once it is there.
    CompletingRebalance {
        storing: bool,
    },
    Stable,
}

/// The first rebalance of an empty group: others may be about to join, so it waits a little.
#[derive(Debug, Clone, Copy)]
struct Initial {
    /// When to look whether somebody else has joined.
    look: Millis,
    somebody_joined: bool,
}

/// One group. `T` is where the answer to a waiting request goes.
#[derive(Debug)]
pub struct ClassicGroup<T> {
    limits: Limits,
    state: State,
    generation: i32,
    protocol_type: Option<Name>,
    protocol: Option<Name>,
    leader: Option<Name>,
    members: BTreeMap<Name, Member<T>>,
    /// The member of each instance id.
    statics: BTreeMap<Name, Name>,
    /// Member ids that were given out and have not joined, and when they lapse.
    pending: BTreeMap<Name, Millis>,
    unsynced: Unsynced,
}

impl<T> ClassicGroup<T> {
    /// A group that nobody has joined yet.
    pub fn new(limits: Limits) -> ClassicGroup<T> {
        ClassicGroup {
            limits,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: Unsynced::default(),
        }
    }

    /// A group as it was stored; its members' sessions begin anew, for they could not reach anybody meanwhile.
    pub fn restore(limits: Limits, record: &GroupRecord, now: Millis) -> ClassicGroup<T> {
        let mut group = ClassicGroup::new(limits);
        group.generation = record.generation;
        group.protocol_type = record.protocol_type.clone();
        if let Some(protocol) = record.protocol.as_ref().filter(|_| !record.members.is_empty()) {
            for stored in &record.members {
                group.insert(stored.id.clone(), Member::restore(stored, protocol, now));
            }
            group.protocol = Some(protocol.clone());
            let leader = record.leader.as_ref().filter(|leader| group.members.contains_key(*leader)).cloned();
            group.leader = leader.or_else(|| group.members.keys().next().cloned());
            group.state = State::Stable;
        }
        group
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Empty => Phase::Empty,
            State::PreparingRebalance { .. } => Phase::PreparingRebalance,
            State::CompletingRebalance { .. } => Phase::CompletingRebalance,
            State::Stable => Phase::Stable,
        }
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> Option<&Name> {
        self.protocol_type.as_ref()
    }

    /// The protocol that all members of this generation follow.
    pub fn protocol(&self) -> Option<&Name> {
        self.protocol.as_ref()
    }

    /// Whether it is as if it had never been: no member, and nobody about to become one.
    pub fn is_unused(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// About how much memory the members take, in bytes.
    pub fn bytes(&self) -> usize {
        let pending = self.pending.keys().map(|id| MEMBER_BYTES + id.len());
        self.members.iter().map(|(id, member)| member.bytes(id)).chain(pending).sum()
    }

    /// How much of that is a member's own that would join with this request.
    pub fn bytes_of(&self, join: &Join<T>) -> usize {
        let known = join.instance.as_ref().and_then(|instance| self.statics.get(instance)).unwrap_or(&join.id);
        self.members.get(known).map_or(0, |member| member.bytes(known))
    }

    /// The members as they would be stored.
    pub fn members(&self) -> impl Iterator<Item = MemberRecord> {
        let protocol = self.protocol.clone().unwrap_or_default();
        self.members.iter().map(move |(id, member)| member.record(id, &protocol, member.assignment.clone()))
    }

    /// Whether a commit of this member of this generation may be stored. While the group is empty, one without a generation
    /// may: of a consumer that assigns partitions itself.
    ///
    /// # Errors
    /// Another member has its instance id, it is none of the group's, its generation is over, or it has not synced yet.
    pub fn may_commit(
        &mut self,
        now: Millis,
        generation: i32,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        if generation >= 0 || !id.is_empty() || instance.is_some() {
            self.known(id, instance)?;
        }
        if generation != self.generation {
            return Err(if self.members.contains_key(id) || generation < 0 {
                GroupError::IllegalGeneration
            } else {
                GroupError::UnknownMemberId
            });
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::CompletingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            // Those who must join again still store how far they have come.
            State::Stable | State::PreparingRebalance { .. } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.beat(now);
                }
                Ok(())
            }
        }
    }

    /// A Heartbeat.
    ///
    /// # Errors
    /// As for [`ClassicGroup::may_commit`], and when the member must join again.
    pub fn heartbeat(
        &mut self,
        now: Millis,
        generation: i32,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(), GroupError> {
        self.known(id, instance)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(id) {
            member.beat(now);
        }
        match self.state {
            State::PreparingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether this is a member, and still the one of its instance.
    fn known(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let owner = self.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
            if &**owner != id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    fn insert(&mut self, id: Name, member: Member<T>) {
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending.remove(&id);
        self.members.insert(id, member);
    }

    fn record(&self, assignments: &BTreeMap<Name, Bytes>) -> GroupRecord {
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |(id, member): (&Name, &Member<T>)| {
            member.record(id, &protocol, assignments.get(id).cloned().unwrap_or_else(|| member.assignment.clone()))
        };
        GroupRecord {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.iter().map(member).collect(),
        }
    }
}
