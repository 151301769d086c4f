//! From one generation to the next: waiting for the members, choosing what they follow, and time running out.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClassicGroup, Effect, Initial, State, Then};
use crate::Millis;
use crate::group::{GroupError, Name};

/// Members of a generation that have not fetched their assignment, and until when they may.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub(super) members: BTreeSet<Name>,
    pub(super) ends: Millis,
}

impl<T> ClassicGroup<T> {
    /// Begins a rebalance if none is under way, and ends it if nobody is missing.
    pub(super) fn rebalance(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        let ends = now.after(self.rebalance_timeout());
        let preparing = |initial| State::PreparingRebalance { ends, initial };
        match self.state {
            State::Empty => {
                let look = now.after(self.limits.initial_rebalance_delay).min(ends);
                self.state = preparing(Some(Initial { look, somebody_joined: false }));
            }
            State::CompletingRebalance { .. } => {
                self.refuse_syncs(now, GroupError::RebalanceInProgress, effects);
                self.state = preparing(None);
            }
            State::Stable => self.state = preparing(None),
            State::PreparingRebalance { .. } => {}
        }
        self.unsynced.members.clear();
        self.complete_if_all_joined(now, effects);
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        let State::PreparingRebalance { initial, .. } = self.state else { return };
        let all = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if all && (initial.is_none() || self.members.is_empty()) {
            self.complete(now, effects);
        }
    }

    /// Begins the next generation with those who have joined; static members that have not stay members of it.
    fn complete(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        let late = |(_, member): &(&Name, &super::Member<T>)| member.joining.is_none() && member.instance.is_none();
        let late: Vec<Name> = self.members.iter().filter(late).map(|(id, _)| id.clone()).collect();
        for id in late {
            self.remove(&id, effects);
        }
        let ends = now.after(self.rebalance_timeout());
        let joined: Vec<Name> =
            self.members.iter().filter(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone()).collect();
        if self.members.is_empty() {
            self.generation += 1;
            self.state = State::Empty;
            (self.protocol, self.leader) = (None, None);
            return effects.push(Effect::Persist { record: self.record(&BTreeMap::new()), then: Then::Nothing });
        }
        let Some(first) = joined.first() else {
            self.state = State::PreparingRebalance { ends, initial: None };
            return;
        };
        if !self.leader.as_ref().is_some_and(|leader| joined.contains(leader)) {
            self.leader = Some(first.clone());
        }
        self.generation += 1;
        self.protocol = self.choose_protocol();
        self.state = State::CompletingRebalance { storing: false };
        self.unsynced.ends = ends;
        self.unsynced.members = joined.iter().cloned().collect();
        for id in joined {
            if let Some(member) = self.members.get_mut(&id) {
                member.beat(now);
            }
            self.answer_join(&id, self.leader.clone(), false, effects);
        }
    }

    /// Each member votes for the first of its protocols that all have; among equals the leader's taste decides.
    fn choose_protocol(&self) -> Option<Name> {
        let leader = self.members.get(self.leader.as_ref()?)?;
        let common = |name: &Name| self.members.values().all(|member| member.offers(name));
        let prefers = |member: &super::Member<T>, name: &Name| {
            member.protocols.iter().find(|(offered, _)| common(offered)).is_some_and(|(choice, _)| choice == name)
        };
        let votes = |name: &Name| self.members.values().filter(|member| prefers(member, name)).count();
        let candidates = leader.protocols.iter().map(|(name, _)| name).filter(|name| common(name));
        // Of equals, `max_by_key` takes the last.
        let candidates: Vec<&Name> = candidates.collect();
        candidates.into_iter().rev().max_by_key(|name| votes(name)).cloned()
    }

    /// What is due: sessions and ids that have lapsed, rebalances whose time is up.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        self.pending.retain(|_, lapses| *lapses > now);
        let expired = |(_, member): &(&Name, &super::Member<T>)| !member.waits() && member.session_ends <= now;
        let mut gone: BTreeSet<Name> = self.members.iter().filter(expired).map(|(id, _)| id.clone()).collect();
        if self.unsynced.ends <= now {
            gone.append(&mut self.unsynced.members);
        }
        for id in &gone {
            self.remove(id, effects);
        }
        if !gone.is_empty() {
            self.rebalance(now, effects);
        }
        self.complete_if_all_joined(now, effects);
        let delay = self.limits.initial_rebalance_delay;
        if let State::PreparingRebalance { ends, initial } = &mut self.state {
            let over = match initial {
                Some(first) if first.look <= now && first.somebody_joined && first.look < *ends => {
                    *first = Initial { look: now.after(delay).min(*ends), somebody_joined: false };
                    false
                }
                Some(first) => first.look <= now,
                None => *ends <= now,
            };
            if over {
                self.complete(now, effects);
            }
        }
    }

    /// When [`ClassicGroup::tick`] has something to do, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        let sessions = self.members.values().filter(|member| !member.waits()).map(|member| member.session_ends);
        let round = match self.state {
            State::PreparingRebalance { initial: Some(initial), .. } => Some(initial.look),
            State::PreparingRebalance { ends, initial: None } => Some(ends),
            _ => None,
        };
        let syncs = (!self.unsynced.members.is_empty()).then_some(self.unsynced.ends);
        sessions.chain(self.pending.values().copied()).chain(round).chain(syncs).min()
    }

    /// How long the slowest member may take to join again.
    fn rebalance_timeout(&self) -> i64 {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or(0)
    }

    /// Takes a member out; what it waited for is refused.
    pub(super) fn remove(&mut self, id: &Name, effects: &mut Vec<Effect<T>>) {
        let Some(mut member) = self.members.remove(id) else { return };
        if let Some(to) = member.joining.take() {
            effects.push(Effect::Joined { to, id: id.clone(), answer: Err(GroupError::UnknownMemberId) });
        }
        if let Some(to) = member.syncing.take() {
            effects.push(Effect::Synced { to, answer: Err(GroupError::UnknownMemberId) });
        }
        if let Some(instance) = member.instance
            && self.statics.get(&instance) == Some(id)
        {
            self.statics.remove(&instance);
        }
        self.unsynced.members.remove(id);
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }
}
