//! LeaveGroup: members that go, by themselves or sent away by an operator.

use super::{ClassicGroup, Effect, State};
use crate::Millis;
use crate::group::{GroupError, Name};

/// Who goes.
#[derive(Debug, Clone)]
pub struct Leaver {
    /// May be empty where the instance says enough.
    pub id: Name,
    pub instance: Option<Name>,
}

impl<T> ClassicGroup<T> {
    /// One member of a LeaveGroup.
    ///
    /// # Errors
    /// It is none of the group's, or another has its instance id.
    pub fn leave(&mut self, now: Millis, leaver: Leaver, effects: &mut Vec<Effect<T>>) -> Result<(), GroupError> {
        let Leaver { mut id, instance } = leaver;
        if let Some(owner) = instance.as_ref().and_then(|instance| self.statics.get(instance))
            && id.is_empty()
        {
            id = owner.clone();
        }
        if self.pending.remove(&id).is_some() {
            self.complete_if_all_joined(now, effects);
            return Ok(());
        }
        self.known(&id, instance.as_deref())?;
        self.remove(&id, effects);
        match self.state {
            State::PreparingRebalance { .. } => self.complete_if_all_joined(now, effects),
            _ => self.rebalance(now, effects),
        }
        Ok(())
    }
}
