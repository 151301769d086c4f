//! The machine itself: events in, effects out, state moved only by durable work.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use super::ages::Step;
use super::commit::Built;
use super::compacted::Compacted;
use super::epochs::EpochCache;
use super::event::{Append, Appended, Change, Durable, Effect, Event, Fault, Outcome, Repair, ReplicaId, Watermarks};
use super::producers::Producers;
use super::retention::{self, Hold};
use super::segments::{ClosedSegment, Segment, Starts};
use crate::error::AppendError;
use crate::limits::CLOCK_SETTLE_MS;
use crate::topic::TopicConfig;
use crate::units::{Epoch, Millis, Offset};

/// How long a partition whose repair failed waits before it tries again, in milliseconds.
pub const REPAIR_RETRY_MS: i64 = 1000;

/// What recovery found on the disk.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The segments, oldest first; the last is the active one. May be empty.
    pub segments: Vec<Segment>,
    /// The next offset to be written.
    pub log_end: Offset,
    pub starts: Starts,
    pub epochs: EpochCache,
    pub producers: Producers,
}

#[derive(Debug)]
pub(super) enum State {
    Idle,
    /// A persist is outstanding.
    Busy,
    /// A repair is outstanding.
    Repairing(Repair),
    /// A repair failed; nothing is accepted until one succeeds.
    Broken {
        repair: Repair,
        fault: Fault,
        retry_at: Millis,
    },
}

#[derive(Debug)]
pub(super) enum Control<T> {
    Roll(T),
    Tiered(Offset, T),
    LogStart(Offset, T),
    Compact(Box<Compacted>, T),
    Cleaned(Offset, T),
}

/// One partition. See the module for how it is driven.
#[derive(Debug)]
pub struct Partition<T> {
    pub(super) config: TopicConfig,
    pub(super) epoch: Epoch,
    pub(super) epochs: EpochCache,
    pub(super) producers: Producers,
    pub(super) segments: Vec<Segment>,
    pub(super) starts: Starts,
    /// Our own durable end.
    pub(super) log_end: Offset,
    pub(super) high_watermark: Offset,
    /// Durable end of each in-sync follower.
    pub(super) followers: BTreeMap<ReplicaId, Offset>,
    pub(super) queue: VecDeque<Append<T>>,
    /// Built for the log end, but it did not fit into the segment of the last write.
    pub(super) carried: Option<Built<T>>,
    pub(super) controls: VecDeque<Control<T>>,
    /// Durable here, waiting for followers.
    pub(super) unreplicated: VecDeque<(T, Appended)>,
    /// A tick has asked for rolls and retention; cleared by a failure, so that a full disk is not asked in a circle.
    pub(super) maintain: bool,
    /// No maintenance before this: the last one failed.
    pub(super) rest_until: Millis,
    /// Raised whenever [`Partition::closed_segments`] changes.
    pub(super) closed_version: u64,
    /// Appends of a failed write, refused once the repair is durable: until then a crash might bring them back.
    pub(super) doubtful: Vec<(T, AppendError)>,
    pub(super) state: State,
    /// Since when this machine is there, by the clock as it is now.
    pub(super) hold: Hold,
    /// Whether local retention rests.
    pub(super) hold_local: bool,
    /// Steps of the clock that ages do not know yet.
    pub(super) steps: Vec<Step>,
}

impl<T> Partition<T> {
    /// A machine on what recovery found. All of it is readable.
    #[must_use]
    pub fn new(config: TopicConfig, now: Millis, restored: Restored) -> Partition<T> {
        let Restored { mut segments, log_end, starts, epochs, producers } = restored;
        if segments.is_empty() {
            segments.push(Segment::empty(log_end, now));
        }
        Partition {
            config,
            epoch: epochs.latest().unwrap_or_default(),
            epochs,
            producers,
            segments,
            starts,
            log_end,
            high_watermark: log_end,
            followers: BTreeMap::new(),
            queue: VecDeque::new(),
            carried: None,
            controls: VecDeque::new(),
            unreplicated: VecDeque::new(),
            maintain: false,
            rest_until: Millis(i64::MIN),
            closed_version: 0,
            doubtful: Vec::new(),
            state: State::Idle,
            hold: Hold { opened: now, until: Millis(now.0.saturating_add(CLOCK_SETTLE_MS)) },
            hold_local: false,
            steps: Vec::new(),
        }
    }

    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        let local = self.segments.first().map_or(self.log_end, |s| s.base_offset);
        Watermarks {
            log_start: self.starts.log_start,
            local_start: local.max(self.starts.log_start),
            high_watermark: self.high_watermark,
            log_end: self.log_end,
        }
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    #[must_use]
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// Closed segments wholly below the high watermark, oldest first.
    #[must_use]
    pub fn closed_segments(&self) -> Vec<ClosedSegment> {
        let closed = &self.segments[..self.segments.len().saturating_sub(1)];
        closed.iter().filter(|s| s.end_offset <= self.high_watermark).map(Segment::closed).collect()
    }

    /// Below which offset the log is compacted.
    #[must_use]
    pub fn compacted_to(&self) -> Offset {
        self.starts.compacted
    }

    /// Changes whenever [`Partition::closed_segments`] does.
    #[must_use]
    pub fn closed_version(&self) -> u64 {
        self.closed_version
    }

    /// Bytes in all local segments.
    #[must_use]
    pub fn local_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Why nothing is accepted now, when that is so.
    #[must_use]
    pub fn offline(&self) -> Option<String> {
        match &self.state {
            State::Broken { fault: Fault::Io(what), .. } => Some(what.clone()),
            State::Broken { fault: Fault::DiskFull, .. } => Some("disk full".to_owned()),
            _ => None,
        }
    }

    /// When the next [`Event::Tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if let State::Broken { retry_at, .. } = self.state {
            return Some(retry_at);
        }
        let aged = self.segments.last().and_then(|active| active.ages_at(&self.config));
        let retention = retention::next_deadline(&self.retention(), &self.segments, &self.starts, self.hold);
        [aged, retention].into_iter().flatten().min().map(|at| at.max(self.rest_until))
    }

    /// The config as retention is to see it.
    pub(super) fn retention(&self) -> Cow<'_, TopicConfig> {
        if !self.hold_local {
            return Cow::Borrowed(&self.config);
        }
        let never =
            TopicConfig { local_retention_ms: Some(i64::MAX), local_retention_bytes: None, ..self.config.clone() };
        Cow::Owned(never)
    }

    /// Takes one event and pushes what is to be done, in order.
    pub fn handle(&mut self, now: Millis, event: Event<T>, effects: &mut Vec<Effect<T>>) {
        match event {
            Event::Append(appends) => self.accept(appends, effects),
            Event::Persisted(then) => self.persisted(then, effects),
            Event::PersistFailed(then, fault) => self.persist_failed(now, then, &fault, effects),
            Event::Repaired => {
                self.state = State::Idle;
                let refused =
                    self.doubtful.drain(..).map(|(token, error)| Effect::Done(token, Outcome::Refused(error)));
                effects.extend(refused);
            }
            Event::RepairFailed(fault) => self.repair_failed(now, fault, effects),
            Event::Tick => {
                self.maintain = now >= self.rest_until;
                self.retry(now, effects);
            }
            Event::ClockStepped { by } => self.clock_stepped(now, by),
            Event::Configure(config) => self.config = config,
            Event::HoldLocal(hold) => self.hold_local = hold,
            Event::Roll(token) => self.controls.push_back(Control::Roll(token)),
            Event::SetTiered(end, token) => self.controls.push_back(Control::Tiered(end, token)),
            Event::SetLogStart(to, token) => self.controls.push_back(Control::LogStart(to, token)),
            Event::Compact(compacted, token) => self.controls.push_back(Control::Compact(compacted, token)),
            Event::SetCompacted(end, token) => self.controls.push_back(Control::Cleaned(end, token)),
            Event::DescribeProducers(token) => {
                effects.push(Effect::Done(token, Outcome::Producers(self.producers.active())));
            }
            Event::BecomeLeader { epoch, followers } => {
                self.epoch = self.epoch.max(epoch);
                self.followers = followers.into_iter().map(|id| (id, Offset::ZERO)).collect();
                self.advance(effects);
            }
            Event::Replicated { replica, end } => {
                if let Some(known) = self.followers.get_mut(&replica) {
                    *known = end.max(*known);
                }
                self.advance(effects);
            }
        }
        self.next_work(now, effects);
    }

    fn accept(&mut self, appends: Vec<Append<T>>, effects: &mut Vec<Effect<T>>) {
        if let State::Broken { fault, .. } = &self.state {
            let error = match fault {
                Fault::DiskFull => AppendError::DiskFull,
                Fault::Io(what) => AppendError::Offline(what.clone()),
            };
            effects.extend(appends.into_iter().map(|a| Effect::Done(a.token, Outcome::Refused(error.clone()))));
        } else {
            self.queue.extend(appends);
        }
    }

    fn persisted(&mut self, then: Durable<T>, effects: &mut Vec<Effect<T>>) {
        let Durable { change, acks, applied } = then;
        self.state = State::Idle;
        let mut gone = Vec::new();
        match change {
            Change::Written { rolled, active, epochs, producers } => {
                if rolled {
                    self.closed_version += 1;
                } else {
                    self.segments.pop();
                }
                self.log_end = active.end_offset;
                self.segments.push(active);
                if let Some(epochs) = epochs {
                    self.epochs = epochs;
                }
                self.producers.keep(producers);
            }
            Change::Starts(starts) => {
                self.starts = starts;
                gone = self.drop_segments();
            }
            Change::Compacted(compacted) => self.compacted(&compacted),
        }
        self.unreplicated.extend(acks);
        self.advance(effects);
        if !gone.is_empty() {
            effects.push(Effect::Delete(gone));
        }
        effects.extend(applied.into_iter().map(|token| Effect::Done(token, Outcome::Applied)));
    }

    /// Moves the high watermark to what every in-sync replica holds, and answers what that covers.
    pub(super) fn advance(&mut self, effects: &mut Vec<Effect<T>>) {
        let everywhere = self.followers.values().copied().fold(self.log_end, Offset::min);
        let before = self.high_watermark;
        self.high_watermark = before.max(everywhere);
        let newest_closed = self.segments.iter().rev().nth(1).map(|s| s.end_offset);
        if newest_closed.is_some_and(|end| before < end && end <= self.high_watermark) {
            self.closed_version += 1;
        }
        effects.push(Effect::Watermarks(self.watermarks()));
        while self.unreplicated.front().is_some_and(|(_, a)| a.last_offset < self.high_watermark) {
            if let Some((token, appended)) = self.unreplicated.pop_front() {
                effects.push(Effect::Done(token, Outcome::Appended(appended)));
            }
        }
    }

    /// Segments that the saved starts have let go: below the log start, or cold.
    fn drop_segments(&mut self) -> Vec<Offset> {
        let cold_end = self.starts.cold.last().map_or(Offset::ZERO, |cold| cold.end_offset);
        let start = self.starts.log_start.max(cold_end);
        let closed = self.segments.len().saturating_sub(1);
        let gone = self.segments[..closed].iter().take_while(|s| s.end_offset <= start).count();
        self.closed_version += u64::from(gone > 0);
        self.segments.drain(..gone).map(|s| s.base_offset).collect()
    }

    /// Refuses all that waits behind the failed work: an append must not overtake an earlier one of the same device that
    /// was refused. What the work itself held is refused when the repair has made sure that it is gone.
    fn persist_failed(&mut self, now: Millis, then: Durable<T>, fault: &Fault, effects: &mut Vec<Effect<T>>) {
        let Durable { change, acks, applied } = then;
        self.maintain = false;
        self.rest_until = Millis(now.0 + REPAIR_RETRY_MS);
        self.doubtful.extend(acks.into_iter().map(|(token, _)| (token, fault.refusal())));
        effects.extend(applied.into_iter().map(|token| Effect::Done(token, Outcome::Refused(fault.refusal()))));
        self.state = match change {
            Change::Starts(_) | Change::Compacted(_) => State::Idle,
            Change::Written { rolled, active, .. } => {
                self.refuse_waiting(fault, effects);
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

    fn repair_failed(&mut self, now: Millis, fault: Fault, effects: &mut Vec<Effect<T>>) {
        self.refuse_waiting(&fault, effects);
        if let State::Repairing(repair) = self.state {
            self.state = State::Broken { repair, fault, retry_at: Millis(now.0 + REPAIR_RETRY_MS) };
        }
    }

    fn refuse_waiting(&mut self, fault: &Fault, effects: &mut Vec<Effect<T>>) {
        let carried = self.carried.take().into_iter().flat_map(|built| built.acks).map(|(token, _)| token);
        let controls = self.controls.drain(..).map(|control| match control {
            Control::Roll(token)
            | Control::Tiered(_, token)
            | Control::LogStart(_, token)
            | Control::Compact(_, token)
            | Control::Cleaned(_, token) => token,
        });
        let tokens = carried.chain(self.queue.drain(..).map(|append| append.token)).chain(controls);
        effects.extend(tokens.map(|token| Effect::Done(token, Outcome::Refused(fault.refusal()))));
    }

    fn retry(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        if let State::Broken { repair, retry_at, .. } = self.state
            && now >= retry_at
        {
            self.state = State::Repairing(repair);
            effects.push(Effect::Repair(repair));
        }
    }

    /// Waits that end at a time of the clock, after it was set by `by` milliseconds.
    pub(super) fn shift_waits(&mut self, by: i64) {
        let moved = |at: Millis| Millis(at.0.saturating_add(by));
        self.rest_until = moved(self.rest_until);
        if let State::Broken { retry_at, .. } = &mut self.state {
            *retry_at = moved(*retry_at);
        }
    }

    pub(super) fn active(&self) -> Segment {
        // `new` leaves at least one segment and nothing removes the last.
        self.segments.last().copied().unwrap_or_else(|| Segment::empty(self.log_end, Millis::default()))
    }
}
