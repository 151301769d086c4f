//! After work that failed: what is refused, how the disk is brought back to what is durable, and when that is tried again.

use super::event::{Change, Durable, Effect, Fault, Outcome, Repair};
use super::machine::{Control, Mend, Partition, REPAIR_RETRY_MS, State};
use super::producers::Gaps;
use crate::error::AppendError;
use crate::units::Millis;

impl<T> Partition<T> {
    /// Refuses all that waits behind the failed work: an append must not overtake an earlier one of the same device that
    /// was refused. What the work itself held is refused when the repair has made sure that it is gone.
    pub(super) fn persist_failed(
        &mut self,
        now: Millis,
        then: Durable<T>,
        fault: &Fault,
        effects: &mut Vec<Effect<T>>,
    ) {
        let Durable { change, acks, applied } = then;
        self.maintain = false;
        self.rest_until = Millis(now.0 + REPAIR_RETRY_MS);
        self.doubtful.extend(acks.into_iter().map(|ack| (ack.token, fault.refusal())));
        effects.extend(applied.into_iter().map(|token| Effect::Done(token, Outcome::Refused(fault.refusal()))));
        self.state = match change {
            Change::Starts(_) | Change::Compacted(_) => State::Idle,
            Change::Written { rolled, active, .. } => {
                self.refuse_waiting(now, fault, effects);
                let durable = self.active();
                let repair = Repair {
                    segment: durable.base_offset,
                    len: durable.bytes,
                    remove: rolled.then_some(active.base_offset),
                };
                effects.push(Effect::Repair(repair));
                State::Repairing(repair)
            }
        };
    }

    pub(super) fn repair_failed(&mut self, now: Millis, fault: Fault, effects: &mut Vec<Effect<T>>) {
        self.refuse_waiting(now, &fault, effects);
        if let State::Repairing(repair) = self.state {
            let mend = Mend::Repair(repair);
            self.state = State::Broken { mend, fault, retry_at: Millis(now.0 + REPAIR_RETRY_MS) };
        }
    }

    fn refuse_waiting(&mut self, now: Millis, fault: &Fault, effects: &mut Vec<Effect<T>>) {
        self.refused_at = Some(now);
        let carried = self.carried.take().into_iter().flat_map(|built| built.acks).map(|ack| ack.token);
        let controls = self.controls.drain(..).map(Control::into_token);
        let queued = self.queue.drain(..).map(|append| append.token);
        let copies = self.copies.drain(..).map(|copied| copied.token);
        let tokens = carried.chain(queued).chain(copies).chain(controls);
        effects.extend(tokens.map(|token| Effect::Done(token, Outcome::Refused(fault.refusal()))));
    }

    /// The log could not be cut: what is on the disk is not what this machine holds, so nothing is done before it can be.
    pub(super) fn truncate_failed(&mut self, now: Millis, fault: Fault, effects: &mut Vec<Effect<T>>) {
        self.refuse_waiting(now, &fault, effects);
        let token = self.cut_token.take();
        effects.extend(token.map(|token| Effect::Done(token, Outcome::Refused(fault.refusal()))));
        if let State::Truncating(cut) = &self.state {
            let mend = Mend::Truncation(cut.clone());
            self.state = State::Broken { mend, fault, retry_at: Millis(now.0 + REPAIR_RETRY_MS) };
        }
    }

    /// Why nothing is taken now, when that is so.
    pub(super) fn refusal(&self) -> Option<AppendError> {
        match &self.state {
            State::Broken { fault: Fault::DiskFull, .. } => Some(AppendError::DiskFull),
            State::Broken { fault: Fault::Io(what), .. } => Some(AppendError::Offline(what.clone())),
            _ => None,
        }
    }

    /// Tries again to put the disk right.
    pub(super) fn retry(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        let State::Broken { mend, retry_at, .. } = &self.state else { return };
        if now < *retry_at {
            return;
        }
        self.state = match mend.clone() {
            Mend::Repair(repair) => {
                effects.push(Effect::Repair(repair));
                State::Repairing(repair)
            }
            Mend::Truncation(cut) => {
                effects.push(Effect::Truncate(cut.clone()));
                State::Truncating(cut)
            }
        };
    }

    /// Waits that end at a time of the clock, after it was set by `by` milliseconds.
    pub(super) fn shift_waits(&mut self, by: i64) {
        let moved = |at: Millis| Millis(at.0.saturating_add(by));
        self.rest_until = moved(self.rest_until);
        self.refused_at = self.refused_at.map(moved);
        self.gaps = Gaps::default();
        if let State::Broken { retry_at, .. } = &mut self.state {
            *retry_at = moved(*retry_at);
        }
        if let Some(leading) = self.role.leading_mut() {
            leading.shift(by);
        }
    }
}
