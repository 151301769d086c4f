//! JoinGroup: becoming a member, coming back as one, and joining again for the next generation.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::member::{MEMBER_BYTES, Member, NAME_COPIES, Protocol, protocol_bytes};
use super::{ClassicGroup, Effect, State, Then};
use crate::Millis;
use crate::group::{GroupError, Name};

/// A JoinGroup request. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct Join<T> {
    /// Where the answer goes.
    pub to: T,
    /// Empty for one that has none yet.
    pub id: Name,
    /// The id that it gets then; never used before.
    pub new_id: Name,
    /// `group.instance.id` of a static member.
    pub instance: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    pub session_timeout: i64,
    pub rebalance_timeout: i64,
    pub protocol_type: Name,
    /// The protocols that the member knows, best first.
    pub protocols: Vec<Protocol>,
    /// From version 4 on a member takes its id first and joins with it then, so that one whose answer is lost does not
    /// stay behind as a member that nobody is (KIP-394).
    pub takes_id_first: bool,
    /// From version 9 on a leader can be told that the group goes on as it is (KIP-814).
    pub may_skip_assignment: bool,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: Option<Name>,
    pub protocol: Name,
    pub leader: Name,
    /// The leader must not assign anew: the assignments that the group has hold.
    pub skip_assignment: bool,
    /// For the leader, all members; for the others, none.
    pub members: Vec<JoinedMember>,
}

/// What the leader learns of each member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub id: Name,
    pub instance: Option<Name>,
    pub metadata: Bytes,
}

impl<T> Join<T> {
    /// About how much memory its member takes, in bytes.
    pub fn bytes(&self) -> usize {
        let id = self.id.len().max(self.new_id.len());
        let names = NAME_COPIES * (id + self.instance.as_deref().map_or(0, str::len));
        MEMBER_BYTES + names + self.client_id.len() + protocol_bytes(&self.protocols)
    }
}

impl<T> ClassicGroup<T> {
    /// A JoinGroup. Its answer is among the effects of this or of a later call.
    pub fn join(&mut self, now: Millis, join: Join<T>, effects: &mut Vec<Effect<T>>) {
        if let Err(error) = self.admits(&join) {
            let id = if join.id.is_empty() { Name::default() } else { join.id.clone() };
            effects.push(Effect::Joined { to: join.to, id, answer: Err(error) });
        } else if join.id.is_empty() {
            self.join_without_id(now, join, effects);
        } else {
            self.join_with_id(now, join, effects);
        }
    }

    fn admits(&self, join: &Join<T>) -> Result<(), GroupError> {
        if !(self.limits.min_session_timeout..=self.limits.max_session_timeout).contains(&join.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let known = self.members.contains_key(&join.id)
            || self.pending.contains_key(&join.id)
            || join.instance.as_ref().is_some_and(|instance| self.statics.contains_key(instance));
        if !known && self.members.len() + self.pending.len() >= self.limits.max_size {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        // What one member alone offers cannot be wrong for others.
        let mut others = self.members.iter().filter(|(id, _)| **id != join.id).map(|(_, member)| member).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        let same_type = self.protocol_type.as_ref() == Some(&join.protocol_type);
        let others: Vec<_> = others.collect();
        let common = |(name, _): &Protocol| others.iter().all(|member| member.offers(name));
        if same_type && join.protocols.iter().any(common) { Ok(()) } else { Err(GroupError::InconsistentGroupProtocol) }
    }

    fn join_without_id(&mut self, now: Millis, join: Join<T>, effects: &mut Vec<Effect<T>>) {
        let id = join.new_id.clone();
        match &join.instance {
            Some(instance) => match self.statics.get(instance).cloned() {
                Some(before) => self.replace(now, &before, join, effects),
                None => self.add(now, id, join, effects),
            },
            None if join.takes_id_first => {
                self.pending.insert(id.clone(), now.after(join.session_timeout));
                effects.push(Effect::Joined { to: join.to, id, answer: Err(GroupError::MemberIdRequired) });
            }
            None => self.add(now, id, join, effects),
        }
    }

    fn join_with_id(&mut self, now: Millis, join: Join<T>, effects: &mut Vec<Effect<T>>) {
        let id = join.id.clone();
        if join.instance.is_none() && self.pending.contains_key(&id) {
            return self.add(now, id, join, effects);
        }
        if let Err(error) = self.known(&id, join.instance.as_deref()) {
            return effects.push(Effect::Joined { to: join.to, id, answer: Err(error) });
        }
        let leads = self.leader.as_ref() == Some(&id);
        let same = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        let goes_on = match self.state {
            // Its answer was lost: it gets it again.
            State::CompletingRebalance { .. } => same,
            // A leader that joins again wants a rebalance: something that only it can see has changed.
            State::Stable => same && !leads,
            State::Empty | State::PreparingRebalance { .. } => false,
        };
        self.update(now, &id, join, effects);
        if goes_on {
            self.answer_join(&id, self.leader.clone(), false, effects);
        } else {
            self.rebalance(now, effects);
        }
    }

    fn add(&mut self, now: Millis, id: Name, join: Join<T>, effects: &mut Vec<Effect<T>>) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            session_ends: now.after(join.session_timeout),
            joining: Some(join.to),
            syncing: None,
        };
        self.insert(id, member);
        if let State::PreparingRebalance { initial: Some(initial), .. } = &mut self.state {
            initial.somebody_joined = true;
        }
        self.rebalance(now, effects);
    }

    /// Takes a known member's new request in; a request of it that still waits is answered, for nobody reads two.
    fn update(&mut self, now: Millis, id: &Name, join: Join<T>, effects: &mut Vec<Effect<T>>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.protocols = join.protocols;
        member.beat(now);
        if let Some(to) = member.joining.replace(join.to) {
            let answer = Err(GroupError::RebalanceInProgress);
            effects.push(Effect::Joined { to, id: id.clone(), answer });
        }
        if let Some(to) = member.syncing.take() {
            effects.push(Effect::Synced { to, answer: Err(GroupError::RebalanceInProgress) });
        }
        if self.members.len() == 1 {
            self.protocol_type = Some(join.protocol_type);
        }
    }

    /// A static member has come back under a new id: the old one is fenced. If nothing else has changed, the group goes on.
    fn replace(&mut self, now: Millis, before: &Name, join: Join<T>, effects: &mut Vec<Effect<T>>) {
        let Some(mut member) = self.members.remove(before) else { return };
        if let Some(to) = member.joining.take() {
            let answer = Err(GroupError::FencedInstanceId);
            effects.push(Effect::Joined { to, id: before.clone(), answer });
        }
        if let Some(to) = member.syncing.take() {
            effects.push(Effect::Synced { to, answer: Err(GroupError::FencedInstanceId) });
        }
        let same = self.protocol.as_ref().is_some_and(|protocol| {
            join.protocols.iter().any(|(name, metadata)| name == protocol && *metadata == member.metadata(protocol))
        });
        let (id, may_skip) = (join.new_id.clone(), join.may_skip_assignment);
        let led = self.leader.as_ref() == Some(before);
        if led {
            self.leader = Some(id.clone());
        }
        self.insert(id.clone(), member);
        if self.unsynced.members.remove(before) {
            self.unsynced.members.insert(id.clone());
        }
        self.update(now, &id, join, effects);
        if !(matches!(self.state, State::Stable) && same) {
            return self.rebalance(now, effects);
        }
        // A leader that cannot be told to leave the assignments alone would assign anew, for nobody to hear: it is told that
        // its former id leads.
        let leader = if led && !may_skip { Some(before.clone()) } else { self.leader.clone() };
        self.answer_join(&id, leader, led && may_skip, effects);
        effects.push(Effect::Persist { record: self.record(&BTreeMap::new()), then: Then::Nothing });
    }

    /// Answers the waiting join of a member of the current generation, telling it who leads.
    pub(super) fn answer_join(
        &mut self,
        id: &Name,
        leader: Option<Name>,
        skip_assignment: bool,
        effects: &mut Vec<Effect<T>>,
    ) {
        let (Some(protocol), Some(leader)) = (self.protocol.clone(), leader) else { return };
        let members = if leader == *id {
            let joined = |(id, member): (&Name, &Member<T>)| JoinedMember {
                id: id.clone(),
                instance: member.instance.clone(),
                metadata: member.metadata(&protocol),
            };
            self.members.iter().map(joined).collect()
        } else {
            Vec::new()
        };
        let Some(to) = self.members.get_mut(id).and_then(|member| member.joining.take()) else { return };
        let answer = Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader,
            skip_assignment,
            members,
        };
        effects.push(Effect::Joined { to, id: id.clone(), answer: Ok(answer) });
    }
}
