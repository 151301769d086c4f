//! The consumer group protocol (KIP-848): members heartbeat, the broker decides who owns what.
//!
//! Whenever a member comes, goes, or reads other topics, and when the topics themselves change, the group's epoch rises and an
//! assignor works out the target: what each member shall have. Each member then gets there on its own, heartbeat by heartbeat:
//!
//! ```text
//!             has to give something up                        says that it has done so
//!   Stable ─────────────────────────────> UnrevokedPartitions ────────────────────────┐
//!     ^  │ nothing to give up                                                         │
//!     │  └────────────────────────────────────────────────────> in the target's epoch <┘
//!     │ all it shall have is there                                │ others still have some of it
//!     └───────────────────────────────── UnreleasedPartitions <───┘
//! ```
//!
//! A partition is given to nobody while another has it: until that one says that it has not, leaves, or its time is up.
//!
//! What a heartbeat changes is answered when it is durable. One record batch at a time is on its way; what happens meanwhile
//! goes into the next one. If a batch cannot be stored, all since is forgotten ([`ConsumerGroup::abandon`]) and the group is
//! made anew of what is stored. Times are of a clock that is never set: only differences count.

mod assignor;
mod expiry;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
pub mod records;
mod target;
#[cfg(test)]
mod tests;
mod topics;
mod unstored;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub use assignor::Assignor;
pub use heartbeat::{Beat, Heartbeat};
pub use member::{MemberState, Profile};
pub use topics::{Catalog, Partition, Partitions, Shape, TopicId};

use self::member::Member;
use self::records::RecordOf;
use self::topics::Patterns;
use self::unstored::Unstored;
use super::{GroupError, Limits, Name};
use crate::Millis;

/// What the driver has to do.
#[derive(Debug)]
pub enum Effect<T> {
    /// The answer to a heartbeat.
    Answer { to: T, answer: Result<Beat, GroupError> },
    /// Make all of these durable or none, then tell [`ConsumerGroup::stored`], or give the group up: see
    /// [`ConsumerGroup::abandon`].
    Persist(Vec<(RecordOf, Option<Bytes>)>),
}

/// Where a group is in its life, with Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Empty,
    /// What the members shall have is not worked out yet.
    Assigning,
    /// Some member has not got there yet.
    Reconciling,
    Stable,
}

/// A member as tools show it.
#[derive(Debug, Clone)]
pub struct MemberView {
    pub id: Name,
    pub epoch: i32,
    pub profile: Profile,
    pub assigned: Partitions,
    pub target: Partitions,
}

/// One group. `T` is where the answer to a heartbeat goes.
#[derive(Debug)]
pub struct ConsumerGroup<T> {
    limits: Limits,
    /// Rises with each change that asks for another target.
    epoch: i32,
    /// The epoch that the target was worked out for.
    target_epoch: i32,
    members: BTreeMap<Name, Member>,
    /// The member of each instance id.
    statics: BTreeMap<Name, Name>,
    /// Who has each partition, those included that are to be given up.
    owners: BTreeMap<Partition, Name>,
    /// The topics that the target was worked out for.
    topics: BTreeMap<Name, Shape>,
    patterns: Patterns,
    /// When to look at which member.
    looks: BTreeSet<(Millis, Name)>,
    unstored: Unstored<T>,
}

impl<T> ConsumerGroup<T> {
    /// A group that nobody has joined yet.
    pub fn new(limits: Limits) -> ConsumerGroup<T> {
        ConsumerGroup {
            limits,
            epoch: 0,
            target_epoch: 0,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            owners: BTreeMap::new(),
            topics: BTreeMap::new(),
            patterns: Patterns::default(),
            looks: BTreeSet::new(),
            unstored: Unstored::default(),
        }
    }

    /// The group's epoch; 0 if it never had a member.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    pub fn phase(&self) -> Phase {
        let arrived = |member: &Member| member.state == MemberState::Stable && member.epoch == self.target_epoch;
        if self.members.is_empty() {
            Phase::Empty
        } else if self.epoch > self.target_epoch {
            Phase::Assigning
        } else if self.members.values().all(arrived) {
            Phase::Stable
        } else {
            Phase::Reconciling
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Rises whenever anything but the time of a member's session has changed.
    pub fn changes(&self) -> u64 {
        self.unstored.changes
    }

    /// About how much memory the members take, in bytes.
    pub fn bytes(&self) -> usize {
        self.members.iter().map(|(id, member)| member.bytes(id)).sum()
    }

    /// How much more the members would take with what this heartbeat says, in bytes.
    pub fn growth(&self, beat: &Heartbeat<T>) -> usize {
        if beat.epoch != 0 && beat.topics.is_none() && beat.regex.is_none() {
            return 0;
        }
        let known = beat.instance.as_ref().and_then(|instance| self.statics.get(instance)).unwrap_or(&beat.id);
        beat.bytes().saturating_sub(self.members.get(known).map_or(0, |member| member.bytes(known)))
    }

    pub fn members(&self) -> impl Iterator<Item = MemberView> {
        self.members.iter().map(|(id, member)| MemberView {
            id: id.clone(),
            epoch: member.epoch,
            profile: member.profile.clone(),
            assigned: member.assigned.union(&member.revoking).copied().collect(),
            target: member.target.clone(),
        })
    }

    /// The member of an instance id.
    pub fn member_of(&self, instance: &str) -> Option<&Name> {
        self.statics.get(instance)
    }

    /// Whether a member reads this topic.
    pub fn subscribes(&self, topic: &str) -> bool {
        self.members.values().any(|member| self.reads(&member.profile, topic))
    }

    fn reads(&self, profile: &Profile, topic: &str) -> bool {
        let by_pattern = || self.patterns.found(profile.regex.as_deref()?);
        profile.topics.contains(topic) || by_pattern().is_some_and(|found| found.contains(topic))
    }

    /// Whether this member of this epoch may commit offsets, or read them. While the group is empty, one without an epoch
    /// may: an operator's tool.
    ///
    /// # Errors
    /// Another member has its instance id, it is none of the group's, or it has another epoch by now.
    pub fn may_commit(&self, epoch: i32, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        if let Some(instance) = instance
            && self.statics.get(instance).is_some_and(|owner| &**owner != id)
        {
            return Err(GroupError::FencedInstanceId);
        }
        let member = self.members.get(id).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }
}
