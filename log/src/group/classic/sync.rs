//! SyncGroup: the leader brings the assignments, everyone gets its own once they are stored.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, Effect, State, Then};
use crate::Millis;
use crate::group::{GroupError, Name};

/// A SyncGroup request.
#[derive(Debug, Clone)]
pub struct Sync<T> {
    /// Where the answer goes.
    pub to: T,
    pub id: Name,
    pub instance: Option<Name>,
    pub generation: i32,
    /// What the member thinks that the group follows; not told by old clients.
    pub protocol_type: Option<Name>,
    pub protocol: Option<Name>,
    /// From the leader, each member's assignment; from the others, none.
    pub assignments: Vec<(Name, Bytes)>,
}

/// What a member owns in its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<Name>,
    pub protocol: Option<Name>,
    pub assignment: Bytes,
}

impl<T> ClassicGroup<T> {
    /// A SyncGroup. Its answer is among the effects of this or of a later call.
    pub fn sync(&mut self, now: Millis, sync: Sync<T>, effects: &mut Vec<Effect<T>>) {
        if let Err(error) = self.accepts(&sync) {
            return effects.push(Effect::Synced { to: sync.to, answer: Err(error) });
        }
        let Some(member) = self.members.get_mut(&sync.id) else { return };
        member.beat(now);
        if let State::Stable = self.state {
            self.unsynced.members.remove(&sync.id);
            let assignment = member.assignment.clone();
            return effects.push(Effect::Synced { to: sync.to, answer: Ok(self.synced(assignment)) });
        }
        if let Some(before) = member.syncing.replace(sync.to) {
            effects.push(Effect::Synced { to: before, answer: Err(GroupError::RebalanceInProgress) });
        }
        if self.leader.as_ref() != Some(&sync.id) {
            return;
        }
        let State::CompletingRebalance { storing } = &mut self.state else { return };
        if std::mem::replace(storing, true) {
            // The first of the leader's assignments holds.
            return;
        }
        let brought: BTreeMap<Name, Bytes> = sync.assignments.into_iter().collect();
        let of = |id: &Name| (id.clone(), brought.get(id).cloned().unwrap_or_default());
        let assignments: BTreeMap<Name, Bytes> = self.members.keys().map(of).collect();
        let then = Then::Assign { generation: self.generation, assignments: assignments.clone() };
        effects.push(Effect::Persist { record: self.record(&assignments), then });
    }

    fn accepts(&self, sync: &Sync<T>) -> Result<(), GroupError> {
        self.known(&sync.id, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |told: &Option<Name>, is: &Option<Name>| told.is_some() && told != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance { .. } | State::Stable => Ok(()),
        }
    }

    /// A record is durable, or could not be made so.
    pub fn stored(&mut self, now: Millis, then: Then, stored: bool, effects: &mut Vec<Effect<T>>) {
        let Then::Assign { generation, mut assignments } = then else { return };
        if generation != self.generation || !matches!(self.state, State::CompletingRebalance { .. }) {
            return;
        }
        if !stored {
            // Nobody may work by an assignment that a crash would undo.
            self.refuse_syncs(now, GroupError::CoordinatorNotAvailable, effects);
            return self.rebalance(now, effects);
        }
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
        }
        self.state = State::Stable;
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            if let Some(to) = member.syncing.take() {
                member.beat(now);
                self.unsynced.members.remove(&id);
                let assignment = member.assignment.clone();
                effects.push(Effect::Synced { to, answer: Ok(self.synced(assignment)) });
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// Nobody gets an assignment of this generation any more. Who waited for one was alive so far.
    pub(super) fn refuse_syncs(&mut self, now: Millis, error: GroupError, effects: &mut Vec<Effect<T>>) {
        for member in self.members.values_mut() {
            if let Some(to) = member.syncing.take() {
                member.beat(now);
                effects.push(Effect::Synced { to, answer: Err(error) });
            }
        }
    }
}
