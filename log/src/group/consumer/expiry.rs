//! Members whose time is up: silent for too long, or too slow to give partitions up.
//!
//! A heartbeat moves its member's deadline and nothing else: the group looks at the member at the deadline that it had, and
//! then sees when to look again.

use super::{Catalog, ConsumerGroup, Effect};
use crate::Millis;
use crate::group::Name;

impl<T> ConsumerGroup<T> {
    /// Sees to it that the group looks at the member by its deadline.
    pub(super) fn watch(&mut self, id: &Name) {
        let Some(member) = self.members.get_mut(id) else { return };
        let deadline = member.deadline();
        if member.looked_at.is_some_and(|at| at <= deadline) {
            return;
        }
        if let Some(at) = member.looked_at.replace(deadline) {
            self.looks.remove(&(at, id.clone()));
        }
        self.looks.insert((deadline, id.clone()));
    }

    /// What is due: members whose time is up are out.
    pub fn tick(&mut self, now: Millis, catalog: &Catalog, effects: &mut Vec<Effect<T>>) {
        let mut gone = false;
        while let Some((_, id)) = self.looks.first().filter(|(at, _)| *at <= now).cloned() {
            self.looks.pop_first();
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.looked_at = None;
            if member.deadline() > now {
                self.watch(&id);
            } else {
                gone |= self.take_out(&id).is_some();
            }
        }
        if gone {
            self.refresh(catalog, true);
        }
        self.flush(effects);
    }

    /// When [`ConsumerGroup::tick`] has something to do, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.looks.first().map(|(at, _)| *at)
    }
}
