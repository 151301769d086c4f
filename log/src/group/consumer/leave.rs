//! Members that go: for good, or, static ones, for now.

use super::heartbeat::{Beat, Heartbeat};
use super::member::{LEFT_FOR_NOW, MemberState};
use super::records::RecordOf;
use super::topics::Catalog;
use super::{ConsumerGroup, Effect};
use crate::Millis;
use crate::group::{GroupError, Name};

impl<T> ConsumerGroup<T> {
    pub(super) fn leaves(&mut self, now: Millis, beat: &Heartbeat<T>, catalog: &Catalog) -> Result<Beat, GroupError> {
        if let Some(instance) = &beat.instance {
            let owner = self.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
            if *owner != beat.id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        if beat.epoch == LEFT_FOR_NOW && beat.instance.is_some() {
            self.leave_for_now(now, &beat.id)?;
        } else {
            self.take_out(&beat.id).ok_or(GroupError::UnknownMemberId)?;
            self.refresh(catalog, true);
        }
        Ok(Beat { id: beat.id.clone(), epoch: beat.epoch, assignment: None })
    }

    /// It has nothing any more, but what it shall have waits for it until its session ends.
    fn leave_for_now(&mut self, now: Millis, id: &Name) -> Result<(), GroupError> {
        let member = self.members.get_mut(id).ok_or(GroupError::UnknownMemberId)?;
        for part in std::mem::take(&mut member.revoking) {
            self.owners.remove(&part);
        }
        member.epoch = LEFT_FOR_NOW;
        member.state = MemberState::Stable;
        member.revoke_by = None;
        member.reported = None;
        member.session_ends = now.after(self.limits.consumer_session_timeout);
        self.unstored.mark(RecordOf::Current(id.clone()));
        self.watch(id);
        Ok(())
    }

    /// Sends members away that an operator names. Whether each one was a member.
    pub fn send_away(&mut self, ids: &[Name], catalog: &Catalog, effects: &mut Vec<Effect<T>>) -> Vec<bool> {
        let gone: Vec<bool> = ids.iter().map(|id| self.take_out(id).is_some()).collect();
        if gone.contains(&true) {
            self.refresh(catalog, true);
        }
        self.flush(effects);
        gone
    }
}
