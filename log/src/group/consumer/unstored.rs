//! What has changed since it was stored last, and who waits for it to be durable.

use std::collections::BTreeSet;

use super::heartbeat::Beat;
use super::records::RecordOf;
use super::{ConsumerGroup, Effect};

#[derive(Debug)]
pub(super) struct Unstored<T> {
    changed: BTreeSet<RecordOf>,
    /// Whether a batch is on its way, and the how manieth that, or the last one, is.
    storing: bool,
    batches: u64,
    /// Answers, and the batch that each one waits for.
    waiting: Vec<(u64, T, Beat)>,
    pub(super) changes: u64,
}

impl<T> Default for Unstored<T> {
    fn default() -> Unstored<T> {
        Unstored { changed: BTreeSet::new(), storing: false, batches: 0, waiting: Vec::new(), changes: 0 }
    }
}

impl<T> Unstored<T> {
    pub(super) fn mark(&mut self, of: RecordOf) {
        self.changed.insert(of);
        self.changes += 1;
    }

    /// Answers when all that the answer rests upon is durable.
    pub(super) fn answer(&mut self, to: T, answer: Beat, effects: &mut Vec<Effect<T>>) {
        if !self.changed.is_empty() {
            self.waiting.push((self.batches + 1, to, answer));
        } else if self.storing {
            self.waiting.push((self.batches, to, answer));
        } else {
            effects.push(Effect::Answer { to, answer: Ok(answer) });
        }
    }
}

impl<T> ConsumerGroup<T> {
    /// Whether all is as it is stored.
    pub fn is_settled(&self) -> bool {
        !self.unstored.storing && self.unstored.changed.is_empty()
    }

    /// Begins the next batch if there is something to store and none is on its way.
    pub(super) fn flush(&mut self, effects: &mut Vec<Effect<T>>) {
        if self.unstored.storing || self.unstored.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.unstored.changed);
        let records = changed.into_iter().map(|of| {
            let value = self.encode(&of);
            (of, value)
        });
        let records = records.collect();
        self.unstored.storing = true;
        self.unstored.batches += 1;
        effects.push(Effect::Persist(records));
    }

    /// The batch on its way is durable.
    pub fn stored(&mut self, effects: &mut Vec<Effect<T>>) {
        self.unstored.storing = false;
        let done = self.unstored.batches;
        let (ready, waiting) =
            std::mem::take(&mut self.unstored.waiting).into_iter().partition(|(batch, ..)| *batch <= done);
        self.unstored.waiting = waiting;
        let ready: Vec<_> = ready;
        effects.extend(ready.into_iter().map(|(_, to, answer)| Effect::Answer { to, answer: Ok(answer) }));
        self.flush(effects);
    }

    /// Gives the group up, because its batch could not be stored: what rests upon it must not be told to anybody. The group is
    /// to be made anew of what is stored ([`ConsumerGroup::restore`]). Returns who waits: each has to ask again.
    pub fn abandon(self) -> impl Iterator<Item = T> {
        self.unstored.waiting.into_iter().map(|(_, to, _)| to)
    }
}
