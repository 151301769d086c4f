//! The machine itself: events in, effects out, state moved only by durable work.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::ages::Step;
use super::commit::Built;
use super::compacted::Compacted;
use super::epochs::EpochCache;
use super::event::{Ack, Append, Change, Durable, Effect, Event, Fault, Outcome, Repair, Watermarks};
use super::follower::{Copied, LeaderMarks, Truncation};
use super::leader::Leading;
use super::producers::{Gaps, Producers};
use super::retention::{self, Hold};
use super::role::Role;
use super::segments::{ClosedSegment, Segment, Starts};
use crate::error::AppendError;
use crate::flaws::{self, Flaw};
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
    /// Records below are known to be on every in-sync replica: what a leader may show before it has heard from the others.
    pub high_watermark: Offset,
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
    /// The log is being cut.
    Truncating(Truncation),
    /// A repair or a cut failed; nothing is accepted until one succeeds.
    Broken {
        mend: Mend,
        fault: Fault,
        retry_at: Millis,
    },
}

/// What puts the disk right.
#[derive(Debug, Clone)]
pub(super) enum Mend {
    Repair(Repair),
    Truncation(Truncation),
}

#[derive(Debug)]
pub(super) enum Control<T> {
    Roll(T),
    Tiered(Offset, T),
    LogStart(Offset, T),
    Compact(Box<Compacted>, T),
    Cleaned(Offset, T),
    Truncate(Truncation, T),
    /// Answered as soon as nothing of before is under way.
    Settled(T),
}

impl<T> Control<T> {
    pub(super) fn into_token(self) -> T {
        match self {
            Control::Roll(token)
            | Control::Tiered(_, token)
            | Control::LogStart(_, token)
            | Control::Compact(_, token)
            | Control::Cleaned(_, token)
            | Control::Truncate(_, token)
            | Control::Settled(token) => token,
        }
    }
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
    pub(super) role: Role,
    /// What the leader has told last, for a follower.
    pub(super) leader_marks: LeaderMarks,
    /// Batches of the leader, for a follower.
    pub(super) copies: VecDeque<Copied<T>>,
    /// Who waits for the log to be cut.
    pub(super) cut_token: Option<T>,
    pub(super) queue: VecDeque<Append<T>>,
    /// Built for the log end, but it did not fit into the segment of the last write.
    pub(super) carried: Option<Built<T>>,
    pub(super) controls: VecDeque<Control<T>>,
    /// Durable here, waiting for followers.
    pub(super) unreplicated: VecDeque<Ack<T>>,
    /// A tick has asked for rolls and retention; cleared by a failure, so that a full disk is not asked in a circle.
    pub(super) maintain: bool,
    /// No maintenance before this: the last one failed.
    pub(super) rest_until: Millis,
    /// Raised whenever [`Partition::closed_segments`] changes.
    pub(super) closed_version: u64,
    /// What producers have left out.
    pub(super) gaps: Gaps,
    /// When appends were last refused that may be taken at another time.
    pub(super) refused_at: Option<Millis>,
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
    /// A machine on what recovery found. Until it is told to lead it takes no appends.
    #[must_use]
    pub fn new(config: TopicConfig, now: Millis, restored: Restored) -> Partition<T> {
        let Restored { mut segments, log_end, high_watermark, starts, epochs, producers } = restored;
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
            high_watermark: high_watermark.min(log_end),
            role: Role::Follower,
            leader_marks: LeaderMarks::default(),
            copies: VecDeque::new(),
            cut_token: None,
            queue: VecDeque::new(),
            carried: None,
            controls: VecDeque::new(),
            unreplicated: VecDeque::new(),
            maintain: false,
            rest_until: Millis(i64::MIN),
            closed_version: 0,
            gaps: Gaps::default(),
            refused_at: None,
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

    /// Whether this replica leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Closed segments wholly below the high watermark, oldest first.
    #[must_use]
    pub fn closed_segments(&self) -> Vec<ClosedSegment> {
        let closed = &self.segments[..self.segments.len().saturating_sub(1)];
        closed.iter().filter(|s| s.end_offset <= self.high_watermark).map(Segment::closed).collect()
    }

    /// Where the log starts, here and in the cold tier.
    #[must_use]
    pub fn starts(&self) -> &Starts {
        &self.starts
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
        // Where the whole log starts is the leader's to say.
        let follows = matches!(self.role, Role::Follower) && self.config.delete;
        if !self.hold_local && !follows {
            return Cow::Borrowed(&self.config);
        }
        let mut config = self.config.clone();
        config.delete &= !follows;
        if self.hold_local {
            config.local_retention_ms = Some(i64::MAX);
            config.local_retention_bytes = None;
        }
        Cow::Owned(config)
    }

    /// Takes one event and pushes what is to be done, in order.
    pub fn handle(&mut self, now: Millis, event: Event<T>, effects: &mut Vec<Effect<T>>) {
        match event {
            Event::Append(appends) => self.accept(now, appends, effects),
            Event::Persisted(then) => self.persisted(now, then, effects),
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
            Event::DescribeFollowers(token) => {
                let followers = self.role.leading().map(Leading::describe).unwrap_or_default();
                effects.push(Effect::Done(token, Outcome::Followers(followers)));
            }
            Event::Lead(word) => self.lead(now, &word, effects),
            Event::Follow(epoch, token) => self.follow(epoch, token, effects),
            Event::Replicated { epoch, replica, incarnation, end } => {
                let log_end = self.log_end;
                let is_ours = epoch == self.epoch || flaws::has(Flaw::NoEpochCheck);
                if let Some(leading) = self.role.leading_mut().filter(|_| is_ours) {
                    leading.replicated_to((replica, incarnation), end, log_end, now);
                    self.advance(effects);
                }
            }
            Event::IsrRefused(at) => {
                if let Some(leading) = self.role.leading_mut() {
                    leading.refused(at, now);
                }
            }
            Event::Copy(copied) => self.copy(copied, effects),
            Event::Truncate(cut, token) => self.controls.push_back(Control::Truncate(cut, token)),
            Event::Truncated(restored) => self.truncated(*restored, effects),
            Event::TruncateFailed(fault) => self.truncate_failed(now, fault, effects),
        }
        self.propose_isr(now, effects);
        self.next_work(now, effects);
    }

    fn accept(&mut self, now: Millis, appends: Vec<Append<T>>, effects: &mut Vec<Effect<T>>) {
        let Some(leading) = self.role.leading() else {
            let refused = |append: Append<T>| Effect::Done(append.token, Outcome::Refused(AppendError::NotLeader));
            return effects.extend(appends.into_iter().map(refused));
        };
        let few = leading.in_sync_count() < self.config.min_insync_replicas as usize;
        let refusal = self.refusal();
        if few || refusal.is_some() {
            self.refused_at = Some(now);
        }
        for append in appends {
            match &refusal {
                Some(error) => effects.push(Effect::Done(append.token, Outcome::Refused(error.clone()))),
                None if few && append.all => {
                    effects.push(Effect::Done(append.token, Outcome::Refused(AppendError::NotEnoughReplicas)));
                }
                None => self.queue.push_back(append),
            }
        }
    }

    fn persisted(&mut self, now: Millis, then: Durable<T>, effects: &mut Vec<Effect<T>>) {
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
        if let Some(leading) = self.role.leading_mut() {
            leading.grown(self.log_end, now);
        }
        self.durable(acks, effects);
        if !gone.is_empty() {
            effects.push(Effect::Delete(gone));
        }
        effects.extend(applied.into_iter().map(|token| Effect::Done(token, Outcome::Applied)));
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

    pub(super) fn active(&self) -> Segment {
        // `new` leaves at least one segment and nothing removes the last.
        self.segments.last().copied().unwrap_or_else(|| Segment::empty(self.log_end, Millis::default()))
    }
}
