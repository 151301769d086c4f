//! Whether this replica leads or follows, and the change from one to the other.

use super::event::{Effect, Outcome};
use super::leader::{Leadership, Leading};
use super::machine::{Control, Partition};
use super::producers::Gaps;
use crate::error::AppendError;
use crate::units::{Epoch, Millis};

#[derive(Debug)]
pub(super) enum Role {
    Leader(Leading),
    /// Of the leader of the partition's epoch, or of none yet: takes nothing but what comes from it.
    Follower,
}

impl Role {
    pub(super) fn leading(&self) -> Option<&Leading> {
        match self {
            Role::Leader(leading) => Some(leading),
            Role::Follower => None,
        }
    }

    pub(super) fn leading_mut(&mut self) -> Option<&mut Leading> {
        match self {
            Role::Leader(leading) => Some(leading),
            Role::Follower => None,
        }
    }
}

impl<T> Partition<T> {
    /// The controller says that this node leads.
    pub(super) fn lead(&mut self, now: Millis, word: &Leadership, effects: &mut Vec<Effect<T>>) {
        match &mut self.role {
            _ if word.epoch < self.epoch => return,
            Role::Leader(leading) if word.epoch == self.epoch => leading.update(word, self.log_end, now),
            _ => {
                self.step_down(effects);
                self.epoch = word.epoch;
                self.role = Role::Leader(Leading::new(word, self.log_end, now));
            }
        }
        self.advance(effects);
    }

    /// Another node leads, or none.
    pub(super) fn follow(&mut self, epoch: Epoch, token: T, effects: &mut Vec<Effect<T>>) {
        if epoch < self.epoch {
            return effects.push(Effect::Done(token, Outcome::Refused(AppendError::FencedLeaderEpoch)));
        }
        if epoch > self.epoch || matches!(self.role, Role::Leader(_)) {
            self.step_down(effects);
            self.epoch = epoch;
            self.role = Role::Follower;
        }
        self.controls.push_back(Control::Settled(token));
    }

    /// Whatever waits under the leader of before is refused: whether it is kept is for the next leader to say, and who asks that
    /// one again has it stored once, if its batches have sequence numbers.
    fn step_down(&mut self, effects: &mut Vec<Effect<T>>) {
        self.gaps = Gaps::default();
        let carried = self.carried.take().into_iter().flat_map(|built| built.acks).map(|ack| ack.token);
        let waiting = self.queue.drain(..).map(|append| append.token);
        let unreplicated = self.unreplicated.drain(..).map(|ack| ack.token);
        let tokens: Vec<T> = carried.chain(waiting).chain(unreplicated).collect();
        effects.extend(tokens.into_iter().map(|token| Effect::Done(token, Outcome::Refused(AppendError::NotLeader))));
        let copies = self.copies.drain(..).map(|copied| copied.token);
        let fenced = |token| Effect::Done(token, Outcome::Refused(AppendError::FencedLeaderEpoch));
        effects.extend(copies.map(fenced));
    }
}
