//! What the machine does next: bounds of the log, rolls and retention that are due, then what waits to be appended.

use super::commit::{Rules, build_next};
use super::epochs::EpochCache;
use super::event::{Change, Durable, Effect, Outcome, Persist, Work, Write};
use super::machine::{Control, Partition, State};
use super::producers::{AWAITED_MS, Changed};
use super::retention;
use super::segments::{Segment, Starts};
use crate::topic::TimestampType;
use crate::units::Millis;

impl<T> Partition<T> {
    /// Begins the next work, if none is outstanding: requests about the log's bounds, retention and rolls that are due,
    /// then appends.
    pub(super) fn next_work(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        while matches!(self.state, State::Idle) {
            let persist = if !self.steps.is_empty() {
                self.take_steps(effects)
            } else if let Some(control) = self.controls.pop_front() {
                self.control(now, control, effects)
            } else if self.maintain {
                self.maintenance(now, effects)
            } else if self.carried.is_some() || !self.queue.is_empty() || !self.copies.is_empty() {
                self.commit(now, effects)
            } else {
                return;
            };
            if let Some(persist) = persist {
                self.state = State::Busy;
                effects.push(Effect::Persist(persist));
            }
        }
    }

    fn control(&mut self, now: Millis, control: Control<T>, effects: &mut Vec<Effect<T>>) -> Option<Persist<T>> {
        let mut starts = self.starts.clone();
        let token = match control {
            Control::Roll(token) => {
                if self.active().bytes > 0 {
                    return Some(self.roll(now, vec![token]));
                }
                token
            }
            Control::Tiered(end, token) => {
                starts.tiered = starts.tiered.max(end.min(self.high_watermark));
                token
            }
            Control::Compact(compacted, token) => return self.compact(compacted, token, effects),
            Control::Settled(token) => token,
            Control::Truncate(cut, token) => {
                self.truncate(cut, token, effects);
                return None;
            }
            Control::Cleaned(end, token) => {
                starts.compacted = starts.compacted.max(end.min(self.high_watermark));
                token
            }
            Control::LogStart(to, token) => {
                starts.log_start = starts.log_start.max(to.min(self.high_watermark));
                starts.cold.retain(|cold| cold.end_offset > starts.log_start);
                token
            }
        };
        if starts == self.starts {
            effects.push(Effect::Done(token, Outcome::Applied));
            return None;
        }
        Some(Self::save(starts, vec![token]))
    }

    /// Retention first, then the roll of an active segment that is too old; nothing due ends it.
    fn maintenance(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) -> Option<Persist<T>> {
        if let Some(persist) = self.settle_ages(now, effects) {
            return Some(persist);
        }
        if let Some(starts) = self.follow_starts() {
            return Some(Self::save(starts, Vec::new()));
        }
        let kept =
            retention::apply(&self.retention(), &self.segments, &self.starts, self.high_watermark, self.hold, now);
        if let Some((starts, _)) = kept {
            return Some(Self::save(starts, Vec::new()));
        }
        let active = self.active();
        self.maintain =
            active.is_aged(&self.config, now) || retention::active_expired(&self.retention(), &active, self.hold, now);
        self.maintain.then(|| self.roll(now, Vec::new()))
    }

    pub(super) fn save(starts: Starts, applied: Vec<T>) -> Persist<T> {
        let then = Durable { change: Change::Starts(starts.clone()), acks: Vec::new(), applied };
        Persist { work: Work::Starts(starts), then }
    }

    fn roll(&self, now: Millis, applied: Vec<T>) -> Persist<T> {
        let active = Segment::empty(self.log_end, now);
        let write = Write {
            roll: true,
            segment: active.base_offset,
            position: 0,
            slices: Vec::new(),
            batches: Vec::new(),
            epochs: None,
        };
        let change = Change::Written { rolled: true, active, epochs: None, producers: Changed::default() };
        Persist { work: Work::Write(write), then: Durable { change, acks: Vec::new(), applied } }
    }

    /// One write of as much of what waits as fits into one segment, rolled first if it must be.
    fn commit(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) -> Option<Persist<T>> {
        let mut active = self.active();
        let mut rolled = false;
        let mut epochs = None;
        let (mut slices, mut batches, mut acks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut changed, mut repeats) = (Changed::default(), Vec::new());
        let leads = self.role.leading().is_some();
        let refused = self.refused_at.is_some_and(|at| now.0.saturating_sub(at.0) < AWAITED_MS);
        loop {
            let append_time = (self.config.timestamp_type == TimestampType::LogAppendTime).then_some(now);
            let rules = Rules {
                config: &self.config,
                epoch: self.epoch,
                append_time,
                producers: &self.producers,
                changed: &changed,
                refused,
                now,
            };
            let next = match self.carried.take() {
                Some(carried) => Some(carried),
                None if leads => {
                    build_next(&mut self.queue, &rules, &mut self.gaps, active.end_offset, &mut repeats, effects)
                }
                None => self.next_copy(active.end_offset, effects),
            };
            let Some(built) = next else { break };
            if active.must_roll(&self.config, now, built.bytes, built.records()) {
                if !batches.is_empty() {
                    self.carried = Some(built);
                    break;
                }
                active = Segment::empty(active.end_offset, now);
                rolled = true;
            }
            if active.bytes == 0 {
                active.created = now;
            }
            active.appended = now;
            batches.extend(built.placed(active.bytes));
            for header in &built.headers {
                let known: &EpochCache = epochs.as_ref().unwrap_or(&self.epochs);
                if known.latest().is_none_or(|latest| latest < header.leader_epoch) {
                    let mut next = known.clone();
                    next.assign(header.leader_epoch, header.base_offset);
                    epochs = Some(next);
                }
                self.producers.note(&mut changed, header);
                active.max_timestamp = active.max_timestamp.max(header.max_timestamp);
                active.end_offset = header.next_offset();
            }
            active.bytes += built.bytes;
            slices.extend(built.slices);
            acks.extend(built.acks);
        }
        let Some(position) = batches.first().map(|first| first.position) else {
            // Nothing but repeats of what is durable.
            self.durable(repeats, effects);
            return None;
        };
        acks.extend(repeats);
        let write =
            Write { roll: rolled, segment: active.base_offset, position, slices, batches, epochs: epochs.clone() };
        let change = Change::Written { rolled, active, epochs, producers: changed };
        Some(Persist { work: Work::Write(write), then: Durable { change, acks, applied: Vec::new() } })
    }
}
