//! What a follower does: stores the leader's batches where the leader stored them, and cuts its log where the two part (KIP-101).

use bytes::Bytes;

use super::commit::Built;
use super::event::{Ack, Appended, Effect, Outcome};
use super::machine::{Partition, Restored, State};
use super::role::Role;
use super::segments::Starts;
use crate::error::AppendError;
use crate::flaws::{self, Flaw};
use crate::record::{BatchHeader, Batches};
use crate::units::{Epoch, Offset};

use super::epochs::EpochCache;

/// What a leader tells of its log with each batch of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderMarks {
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// Records below are in the cold tier.
    pub tiered: Offset,
}

/// Batches from the leader, checked by the caller ([`check_copy`]); may be none, to tell the marks alone.
#[derive(Debug)]
pub struct Copied<T> {
    /// Of the leader that they came from.
    pub epoch: Epoch,
    pub batches: Bytes,
    pub marks: LeaderMarks,
    /// Answered when they are durable.
    pub token: T,
}

/// Where the log is to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncation {
    /// The follower's epoch in which that was found.
    pub epoch: Epoch,
    /// Everything at and above goes.
    pub to: Offset,
    /// The leader has nothing local that follows on this log: all of it goes, and it begins anew at `to`.
    pub anew: Option<Anew>,
}

/// What a log that begins anew is told of what lies before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Anew {
    pub starts: Starts,
    pub epochs: EpochCache,
}

/// Checks batches that came from a leader: whole, in order, with their checksums. Run it on the caller's thread.
///
/// # Errors
/// [`AppendError::Corrupt`]: they were damaged on the way or in the leader's log.
pub fn check_copy(batches: &Bytes, from: Offset) -> Result<Offset, AppendError> {
    let mut next = from;
    for batch in Batches::new(batches.clone()) {
        let (header, batch) = batch.map_err(|_| AppendError::Corrupt("incomplete batch from the leader"))?;
        header.check_crc(&batch).map_err(|_| AppendError::Corrupt("checksum mismatch in a batch from the leader"))?;
        if header.base_offset != next {
            return Err(AppendError::Corrupt("a batch from the leader does not follow on the log"));
        }
        next = header.next_offset();
    }
    Ok(next)
}

/// How far a follower's log agrees with its leader's, which answered that the largest epoch not above the follower's last one is
/// `epoch` and ends at `end` (KIP-279): what lies above has to go.
#[must_use]
pub fn agreement(own: &EpochCache, log_end: Offset, (epoch, end): (Epoch, Offset)) -> Offset {
    match own.end_offset(epoch, log_end) {
        Some((_, own_end)) => own_end.min(end),
        None => log_end.min(end),
    }
}

impl<T> Partition<T> {
    /// Batches of the leader.
    pub(super) fn copy(&mut self, copied: Copied<T>, effects: &mut Vec<Effect<T>>) {
        let refusal = match (&self.role, self.refusal()) {
            (Role::Leader(_), _) => Some(AppendError::FencedLeaderEpoch),
            (Role::Follower, _) if copied.epoch != self.epoch && !flaws::has(Flaw::NoEpochCheck) => {
                Some(AppendError::FencedLeaderEpoch)
            }
            (Role::Follower, refusal) => refusal,
        };
        if let Some(error) = refusal {
            effects.push(Effect::Done(copied.token, Outcome::Refused(error)));
            return;
        }
        self.leader_marks = copied.marks;
        self.advance(effects);
        self.copies.push_back(copied);
    }

    /// The next batch of the leader's, for the log end `base`.
    pub(super) fn next_copy(&mut self, base: Offset, effects: &mut Vec<Effect<T>>) -> Option<Built<T>> {
        loop {
            let copied = self.copies.front_mut()?;
            let header = match BatchHeader::parse(&copied.batches) {
                Ok(header) if header.base_offset == base && header.size <= copied.batches.len() => header,
                _ => {
                    let copied = self.copies.pop_front()?;
                    let outcome = if copied.batches.is_empty() {
                        Outcome::Applied
                    } else {
                        Outcome::Refused(AppendError::Corrupt("a batch from the leader does not follow on the log"))
                    };
                    effects.push(Effect::Done(copied.token, outcome));
                    continue;
                }
            };
            let batch = copied.batches.split_to(header.size);
            let at = Appended { base_offset: base, last_offset: header.last_offset(), append_time: None };
            let acks = if copied.batches.is_empty() {
                self.copies.pop_front().map(|copied| Ack { token: copied.token, at, all: false }).into_iter().collect()
            } else {
                Vec::new()
            };
            return Some(Built { bytes: batch.len() as u64, slices: vec![batch], headers: vec![header], acks });
        }
    }

    /// The starts as the leader has told them, as far as this log reaches.
    pub(super) fn follow_starts(&self) -> Option<Starts> {
        if !matches!(self.role, Role::Follower) {
            return None;
        }
        let marks = &self.leader_marks;
        let mut starts = self.starts.clone();
        starts.tiered = starts.tiered.max(marks.tiered.min(self.high_watermark));
        starts.log_start = starts.log_start.max(marks.log_start.min(self.high_watermark));
        starts.cold.retain(|cold| cold.end_offset > starts.log_start);
        (starts != self.starts).then_some(starts)
    }

    /// Begins to cut the log.
    pub(super) fn truncate(&mut self, cut: Truncation, token: T, effects: &mut Vec<Effect<T>>) {
        let refused = if !matches!(self.role, Role::Follower) || cut.epoch != self.epoch {
            Some(AppendError::FencedLeaderEpoch)
        } else if cut.to < self.high_watermark {
            // What lies below was promised. A leader without it was not to be elected.
            Some(AppendError::Storage(format!(
                "the leader of epoch {} has the log only up to {}, but records up to {} are committed here",
                cut.epoch, cut.to, self.high_watermark
            )))
        } else {
            None
        };
        if let Some(error) = refused {
            return effects.push(Effect::Done(token, Outcome::Refused(error)));
        }
        if cut.anew.is_none() && cut.to >= self.log_end {
            return effects.push(Effect::Done(token, Outcome::Applied));
        }
        self.cut_token = Some(token);
        // From here on it is as if they were gone: should this node lead before they are, it must not count on them.
        self.log_end = self.log_end.min(cut.to);
        self.epochs.truncate(cut.to);
        effects.push(Effect::Watermarks(self.watermarks()));
        effects.push(Effect::Truncate(cut.clone()));
        self.state = State::Truncating(cut);
    }

    /// The log is cut: this is what is there.
    pub(super) fn truncated(&mut self, restored: Restored, effects: &mut Vec<Effect<T>>) {
        let Restored { segments, log_end, starts, epochs, producers, .. } = restored;
        let begins_anew = matches!(&self.state, State::Truncating(cut) if cut.anew.is_some());
        self.segments = segments;
        self.log_end = log_end;
        self.starts = starts;
        self.epochs = epochs;
        self.producers = producers;
        self.closed_version += 1;
        self.state = State::Idle;
        // Built for the end of before.
        let stale = self.carried.take().into_iter().flat_map(|built| built.acks).map(|ack| ack.token);
        let tokens: Vec<T> = stale.chain(self.copies.drain(..).map(|copied| copied.token)).collect();
        let refused = |token| Effect::Done(token, Outcome::Refused(AppendError::FencedLeaderEpoch));
        effects.extend(tokens.into_iter().map(refused));
        if begins_anew {
            self.high_watermark = self.high_watermark.max(self.starts.tiered.min(log_end));
        }
        self.advance(effects);
        if let Some(token) = self.cut_token.take() {
            effects.push(Effect::Done(token, Outcome::Applied));
        }
    }
}
