//! ConsumerGroupHeartbeat: joining, staying in, and saying what one has given up.

use super::assignor::Assignor;
use super::member::{LEFT_FOR_NOW, Member, Profile, bytes_of};
use super::records::RecordOf;
use super::topics::{Catalog, Partition, Partitions};
use super::{ConsumerGroup, Effect};
use crate::Millis;
use crate::group::{GroupError, Name};

/// A ConsumerGroupHeartbeat request. `None` is what has not changed since the last one, or is not used.
#[derive(Debug, Clone)]
pub struct Heartbeat<T> {
    /// Where the answer goes.
    pub to: T,
    pub id: Name,
    /// 0 joins; -1 leaves; -2 leaves as a static member that will be back.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance: Option<Name>,
    pub rack: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    /// Milliseconds.
    pub rebalance_timeout: Option<i64>,
    pub topics: Option<Vec<Name>>,
    /// An empty one takes the one before away.
    pub regex: Option<Name>,
    pub assignor: Option<Name>,
    /// What the member has.
    pub owned: Option<Vec<Partition>>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    pub id: Name,
    pub epoch: i32,
    /// What the member is to have now, when that is news or the member said all of itself.
    pub assignment: Option<Partitions>,
}

impl<T> Heartbeat<T> {
    /// About how much memory its member takes, in bytes.
    pub fn bytes(&self) -> usize {
        bytes_of(self)
    }

    /// Whether it says everything, as after an answer that was lost.
    fn is_full(&self) -> bool {
        self.rebalance_timeout.is_some() && (self.topics.is_some() || self.regex.is_some()) && self.owned.is_some()
    }
}

impl<T> ConsumerGroup<T> {
    /// A heartbeat. Its answer is among the effects of this or of a later call.
    pub fn heartbeat(&mut self, now: Millis, beat: Heartbeat<T>, catalog: &Catalog, effects: &mut Vec<Effect<T>>) {
        let answer = if beat.epoch < 0 { self.leaves(now, &beat, catalog) } else { self.stays(now, &beat, catalog) };
        match answer {
            Ok(answer) => self.unstored.answer(beat.to, answer, effects),
            Err(error) => effects.push(Effect::Answer { to: beat.to, answer: Err(error) }),
        }
        self.flush(effects);
    }

    fn stays(&mut self, now: Millis, beat: &Heartbeat<T>, catalog: &Catalog) -> Result<Beat, GroupError> {
        self.admit(beat)?;
        if let Some(regex) = &beat.regex {
            self.patterns.admit(regex)?;
        }
        if beat.assignor.as_deref().is_some_and(|name| Assignor::named(name).is_none()) {
            return Err(GroupError::UnsupportedAssignor);
        }
        // Nothing fails from here on.
        let joins = beat.epoch == 0;
        let came = joins && self.take_in(beat);
        let session_ends = now.after(self.limits.consumer_session_timeout);
        let Some(member) = self.members.get_mut(&beat.id) else { return Err(GroupError::UnknownMemberId) };
        member.session_ends = session_ends;
        if let Some(owned) = beat.owned.as_ref().filter(|_| !joins) {
            member.reported = Some(owned.iter().copied().collect());
        } else if joins {
            member.reported = Some(Partitions::new());
        }
        let renewed = member.profile.renew(beat);
        if came || renewed.anything {
            self.unstored.mark(RecordOf::Member(beat.id.clone()));
        }
        self.watch(&beat.id);
        self.refresh(catalog, came || renewed.subscription);
        let news = self.reconcile(now, &beat.id, joins);
        let Some(member) = self.members.get(&beat.id) else { return Err(GroupError::UnknownMemberId) };
        let assignment = (news || joins || beat.is_full()).then(|| member.assigned.clone());
        Ok(Beat { id: beat.id.clone(), epoch: member.epoch, assignment })
    }

    /// Whether this is a member, or may become one.
    fn admit(&self, beat: &Heartbeat<T>) -> Result<(), GroupError> {
        let joins = beat.epoch == 0;
        if let Some(owner) = beat.instance.as_ref().and_then(|instance| self.statics.get(instance))
            && *owner != beat.id
        {
            let left = self.members.get(owner).is_none_or(|member| member.epoch == LEFT_FOR_NOW);
            return match (joins, left) {
                (true, true) => Ok(()),
                (true, false) => Err(GroupError::UnreleasedInstanceId),
                (false, _) => Err(GroupError::FencedInstanceId),
            };
        }
        let Some(member) = self.members.get(&beat.id) else {
            return match joins {
                false => Err(GroupError::UnknownMemberId),
                true if self.members.len() >= self.limits.max_size => Err(GroupError::GroupMaxSizeReached),
                true => Ok(()),
            };
        };
        if beat.instance.is_some() && beat.instance != member.profile.instance {
            return Err(GroupError::UnknownMemberId);
        }
        // The answer with the present epoch may have been lost: then it has nothing but what it shall have.
        let missed_answer = || {
            let within = match (&beat.owned, &member.reported) {
                (Some(owned), _) => owned.iter().all(|part| member.assigned.contains(part)),
                (None, Some(reported)) => reported.is_subset(&member.assigned),
                (None, None) => false,
            };
            beat.epoch == member.previous_epoch && member.epoch != LEFT_FOR_NOW && within
        };
        if joins || beat.epoch == member.epoch || missed_answer() { Ok(()) } else { Err(GroupError::FencedMemberEpoch) }
    }

    /// Makes the one who joins a member, if it is none; a static one takes the place of who had its instance id. Whether
    /// the group has one more member than before.
    fn take_in(&mut self, beat: &Heartbeat<T>) -> bool {
        if self.members.contains_key(&beat.id) {
            return false;
        }
        let before = beat.instance.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        let former = before.as_ref().and_then(|before| self.take_out(before));
        let came = former.is_none();
        let mut member = Member::new(Profile { instance: beat.instance.clone(), ..Profile::default() });
        if let Some(former) = former {
            member.profile = former.profile;
            member.assigned = former.assigned;
            member.target = former.target;
        }
        self.owners.extend(member.assigned.iter().map(|part| (*part, beat.id.clone())));
        if let Some(instance) = &member.profile.instance {
            self.statics.insert(instance.clone(), beat.id.clone());
        }
        self.members.insert(beat.id.clone(), member);
        for of in [RecordOf::Member, RecordOf::TargetMember, RecordOf::Current] {
            self.unstored.mark(of(beat.id.clone()));
        }
        came
    }

    /// Takes a member out; who it was.
    pub(super) fn take_out(&mut self, id: &Name) -> Option<Member> {
        let member = self.members.remove(id)?;
        for part in member.assigned.union(&member.revoking) {
            self.owners.remove(part);
        }
        if let Some(instance) = &member.profile.instance {
            self.statics.remove(instance);
        }
        if let Some(at) = member.looked_at {
            self.looks.remove(&(at, id.clone()));
        }
        for of in [RecordOf::Member, RecordOf::TargetMember, RecordOf::Current] {
            self.unstored.mark(of(id.clone()));
        }
        Some(member)
    }
}
