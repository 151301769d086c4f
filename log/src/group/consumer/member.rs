//! One member of a consumer group: what it says of itself, what it shall have and what it has.

use std::collections::BTreeSet;

use super::heartbeat::Heartbeat;
use super::topics::Partitions;
use crate::Millis;
use crate::group::Name;

/// The epoch of a static member that has left and will be back (KIP-848).
pub(super) const LEFT_FOR_NOW: i32 = -2;
/// What a member takes beside its names and partitions: times, entries of maps.
const MEMBER_BYTES: usize = 512;
/// In how many places a member's id and instance id may stand.
const NAME_COPIES: usize = 4;
/// What a partition takes in a set.
const PARTITION_BYTES: usize = 32;

/// Where a member is on its way to what it shall have; the numbers are those of the stored records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    Stable = 0,
    /// It has to give partitions up before it reaches the next epoch.
    UnrevokedPartitions = 1,
    /// It is in the next epoch and waits for partitions that others have not given up yet.
    UnreleasedPartitions = 2,
}

/// What a member says of itself, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// `group.instance.id` of a static member.
    pub instance: Option<Name>,
    pub rack: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    /// Topics by name.
    pub topics: BTreeSet<Name>,
    /// Topics by regular expression; `None` and empty are the same.
    pub regex: Option<Name>,
    /// Milliseconds that it may take to give partitions up.
    pub rebalance_timeout: i64,
    /// The assignor that it would like.
    pub assignor: Option<Name>,
}

/// What of a profile has changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Renewed {
    pub(super) anything: bool,
    /// What it reads, or by which assignor.
    pub(super) subscription: bool,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) profile: Profile,
    /// 0: it has just come. [`LEFT_FOR_NOW`]: it has left and will be back.
    pub(super) epoch: i32,
    /// The epoch before, by which it goes on if the answer with the present one was lost.
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    /// What it has, or has been told to take.
    pub(super) assigned: Partitions,
    /// What it has been told to give up, and has until it says that it has not.
    pub(super) revoking: Partitions,
    /// What it shall have.
    pub(super) target: Partitions,
    /// What it said last that it has; `None` until it has said so.
    pub(super) reported: Option<Partitions>,
    pub(super) session_ends: Millis,
    /// Until when it has to give up what it has to.
    pub(super) revoke_by: Option<Millis>,
    /// When the group looks at it next; not after its deadline.
    pub(super) looked_at: Option<Millis>,
}

impl Profile {
    fn set<V: PartialEq>(slot: &mut V, value: V) -> bool {
        let differs = *slot != value;
        *slot = value;
        differs
    }

    /// Takes over what a heartbeat says; what it does not name stays.
    pub(super) fn renew<T>(&mut self, beat: &Heartbeat<T>) -> Renewed {
        let mut renewed = Renewed::default();
        if let Some(topics) = &beat.topics {
            renewed.subscription |= Profile::set(&mut self.topics, topics.iter().cloned().collect());
        }
        if let Some(regex) = &beat.regex {
            renewed.subscription |=
                Profile::set(&mut self.regex, Some(regex.clone()).filter(|regex| !regex.is_empty()));
        }
        if let Some(assignor) = &beat.assignor {
            renewed.subscription |= Profile::set(&mut self.assignor, Some(assignor.clone()));
        }
        renewed.anything = renewed.subscription;
        if let Some(rack) = &beat.rack {
            renewed.anything |= Profile::set(&mut self.rack, Some(rack.clone()));
        }
        if let Some(timeout) = beat.rebalance_timeout {
            renewed.anything |= Profile::set(&mut self.rebalance_timeout, timeout);
        }
        if self.client_id != beat.client_id {
            renewed.anything |= Profile::set(&mut self.client_id, beat.client_id.clone());
        }
        if self.client_host != beat.client_host {
            renewed.anything |= Profile::set(&mut self.client_host, beat.client_host.clone());
        }
        renewed
    }

    fn bytes(&self) -> usize {
        let topics = self.topics.iter().map(|topic| topic.len() + size_of::<Name>());
        let options = [&self.regex, &self.rack, &self.assignor].map(|name| name.as_deref().map_or(0, str::len));
        topics.sum::<usize>() + options.iter().sum::<usize>() + self.client_id.len() + self.client_host.len()
    }
}

/// About how much memory a member takes that joins with this heartbeat, in bytes.
pub(super) fn bytes_of<T>(beat: &Heartbeat<T>) -> usize {
    let mut profile = Profile::default();
    profile.renew(beat);
    let names = NAME_COPIES * (beat.id.len() + beat.instance.as_deref().map_or(0, str::len));
    MEMBER_BYTES + names + profile.bytes()
}

impl Member {
    pub(super) fn new(profile: Profile) -> Member {
        Member {
            profile,
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            target: Partitions::new(),
            reported: None,
            session_ends: Millis(0),
            revoke_by: None,
            looked_at: None,
        }
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn bytes(&self, id: &Name) -> usize {
        let names = NAME_COPIES * (id.len() + self.profile.instance.as_deref().map_or(0, str::len));
        let reported = self.reported.as_ref().map_or(0, Partitions::len);
        // What it has stands in the group's list of owners, too.
        let partitions = 2 * (self.assigned.len() + self.revoking.len()) + self.target.len() + reported;
        MEMBER_BYTES + names + self.profile.bytes() + PARTITION_BYTES * partitions
    }

    /// Whether it has, as far as is known, something of what it has to give up.
    pub(super) fn has_unrevoked(&self) -> bool {
        self.reported.as_ref().is_none_or(|reported| !reported.is_disjoint(&self.revoking))
    }

    pub(super) fn enter(&mut self, epoch: i32) {
        if self.epoch != epoch {
            self.previous_epoch = self.epoch.max(0);
            self.epoch = epoch;
        }
    }

    /// When it is out if nothing is heard of it.
    pub(super) fn deadline(&self) -> Millis {
        self.revoke_by.map_or(self.session_ends, |at| at.min(self.session_ends))
    }
}
