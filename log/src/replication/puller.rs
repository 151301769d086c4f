//! The follower's side of a session: what to ask the leader for, and what to do with what it answers.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::{End, Part, PartBody, PartitionId, Pull, PullRefusal, Want};
use crate::flaws::{self, Flaw};
use crate::limits::{PULL_AGAIN_MS, PULL_COPYING_BYTES, PULL_CUT_AGAIN_MS, PULL_SOON_MS};
use crate::partition::{Anew, LeaderMarks};
use crate::record::BatchHeader;
use crate::units::{Epoch, Millis, Offset};

/// Where a follower's log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    pub end: Offset,
    /// The leader epoch of its last batch; none of an empty log.
    pub epoch: Option<Epoch>,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect {
    /// Send this; tell with [`Puller::pulled`] what came of it.
    Pull(Pull),
    /// Tell the leader.
    Ends(Vec<End>),
    /// Store these batches behind those of earlier effects; then [`Puller::copied`].
    Copy { partition: PartitionId, epoch: Epoch, from: Offset, marks: LeaderMarks, batches: Bytes },
    /// Cut the log to where it agrees with the leader's, of which `leader` tells the end of an epoch
    /// ([`crate::partition::agreement`]); then [`Puller::cut`].
    Agree { partition: PartitionId, epoch: Epoch, leader: (Epoch, Offset) },
    /// Begin the log anew at `at`; then [`Puller::cut`].
    Anew { partition: PartitionId, epoch: Epoch, at: Offset, anew: Anew },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// To be wanted with the next pull, when nothing is being stored.
    Wanted,
    /// The leader knows what comes next.
    Streaming,
    /// The log is being cut.
    Cutting,
    /// Nothing before this: the leader has refused, or the disk has.
    Resting(Millis),
}

#[derive(Debug)]
struct Follow {
    epoch: Epoch,
    tail: Tail,
    /// Received so far.
    next: Offset,
    phase: Phase,
    /// Copies that are being stored.
    copying: usize,
    /// How long it rests when its leader does not know yet that it leads, in milliseconds.
    rest_ms: i64,
}

/// One follower's session with one leader.
#[derive(Debug)]
pub struct Puller {
    session: u64,
    /// Of the next pull.
    sequence: u32,
    /// Pulls without an answer: a second one when a partition is to begin while the first waits for something new.
    in_flight: usize,
    again_at: Millis,
    follows: BTreeMap<PartitionId, Follow>,
    drops: Vec<PartitionId>,
    copying_bytes: usize,
}

impl Puller {
    /// `session`: a number that was not used with this leader before.
    #[must_use]
    pub fn new(session: u64) -> Puller {
        Puller {
            session,
            sequence: 0,
            in_flight: 0,
            again_at: Millis(i64::MIN),
            follows: BTreeMap::new(),
            drops: Vec::new(),
            copying_bytes: 0,
        }
    }

    /// Follows a partition of this leader from where its log ends; nothing of before may be under way.
    pub fn follow(&mut self, now: Millis, partition: PartitionId, epoch: Epoch, tail: Tail, effects: &mut Vec<Effect>) {
        let follow = Follow { epoch, tail, next: tail.end, phase: Phase::Wanted, copying: 0, rest_ms: PULL_SOON_MS };
        self.follows.insert(partition, follow);
        self.drops.retain(|dropped| *dropped != partition);
        self.next_pull(now, effects);
    }

    pub fn unfollow(&mut self, partition: PartitionId) {
        if self.follows.remove(&partition).is_some() {
            self.drops.push(partition);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.follows.is_empty()
    }

    /// The leader's answer to a pull of this session, or that there is none: then another begins.
    pub fn pulled(&mut self, now: Millis, session: u64, answer: Option<Vec<Part>>, effects: &mut Vec<Effect>) {
        if session != self.session {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match answer {
            Some(parts) => parts.into_iter().for_each(|part| self.part(now, part, effects)),
            None => self.begin_again(now),
        }
        self.next_pull(now, effects);
    }

    /// Something that the leader was to be told may not have reached it: another session begins, in which it hears all of it again.
    pub fn lost(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.begin_again(now);
        self.next_pull(now, effects);
    }

    fn begin_again(&mut self, now: Millis) {
        self.session = self.session.wrapping_add(1);
        self.sequence = 0;
        self.in_flight = 0;
        self.drops.clear();
        self.again_at = now.after(PULL_AGAIN_MS);
        for follow in self.follows.values_mut().filter(|follow| follow.phase == Phase::Streaming) {
            follow.phase = Phase::Wanted;
        }
    }

    fn part(&mut self, now: Millis, part: Part, effects: &mut Vec<Effect>) {
        let Part { partition, epoch, body } = part;
        let Some(follow) = self.follows.get_mut(&partition) else { return };
        let is_ours = follow.epoch == epoch || flaws::has(Flaw::NoEpochCheck);
        if !is_ours || follow.phase != Phase::Streaming {
            return;
        }
        match body {
            PartBody::Batches { from, marks, batches } => {
                if from != follow.next {
                    follow.phase = Phase::Wanted;
                    return;
                }
                follow.next = end_of(&batches, from);
                follow.copying += 1;
                self.copying_bytes += batches.len();
                effects.push(Effect::Copy { partition, epoch, from, marks, batches });
            }
            // Only of what was just wanted, so that nothing of it is being stored.
            PartBody::Diverges { epoch: common, end } => {
                follow.phase = Phase::Cutting;
                effects.push(Effect::Agree { partition, epoch, leader: (common, end) });
            }
            PartBody::Anew { at, anew } => {
                follow.phase = Phase::Cutting;
                effects.push(Effect::Anew { partition, epoch, at, anew });
            }
            PartBody::Refused(why) => {
                // Nodes hear of a new leader within milliseconds of each other.
                let soon = (follow.rest_ms * 2).min(PULL_AGAIN_MS / 4);
                let pause = match why {
                    PullRefusal::UnknownEpoch => std::mem::replace(&mut follow.rest_ms, soon),
                    _ => PULL_AGAIN_MS,
                };
                follow.phase = Phase::Resting(now.after(pause));
            }
        }
    }

    /// Batches of this partition are durable, or were refused; where its log ends now, if it is still here. To be told of every
    /// [`Effect::Copy`], also of a partition that was let go since: what is being stored is bounded.
    pub fn copied(
        &mut self,
        now: Millis,
        (partition, epoch): (PartitionId, Epoch),
        bytes: usize,
        kept: bool,
        tail: Option<Tail>,
        effects: &mut Vec<Effect>,
    ) {
        self.copying_bytes = self.copying_bytes.saturating_sub(bytes);
        let follow = self.follows.get_mut(&partition).filter(|follow| follow.epoch == epoch);
        if let (Some(follow), Some(tail)) = (follow, tail) {
            follow.copying = follow.copying.saturating_sub(1);
            follow.tail = tail;
            if kept && bytes > 0 {
                effects.push(Effect::Ends(vec![End { partition, epoch, end: tail.end }]));
            } else if !kept {
                follow.phase = Phase::Resting(now.after(PULL_AGAIN_MS));
            }
        }
        self.next_pull(now, effects);
    }

    /// The log was cut, or could not be; where it ends now.
    pub fn cut(
        &mut self,
        now: Millis,
        (partition, epoch): (PartitionId, Epoch),
        done: bool,
        tail: Tail,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(follow) = self.follows.get_mut(&partition).filter(|follow| follow.epoch == epoch) {
            follow.tail = tail;
            // What stands against it lasts: a disk that fails, a leader without what is committed here.
            follow.phase = if done { Phase::Wanted } else { Phase::Resting(now.after(PULL_CUT_AGAIN_MS)) };
        }
        self.next_pull(now, effects);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.next_pull(now, effects);
    }

    /// When the next [`Puller::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let resting = self.follows.values().filter_map(|follow| match follow.phase {
            Phase::Resting(until) => Some(until),
            _ => None,
        });
        // While too much is being stored the next pull waits for that, not for the time.
        let may_pull = self.in_flight == 0 && self.copying_bytes < PULL_COPYING_BYTES;
        let again = (may_pull && !self.follows.is_empty()).then_some(self.again_at);
        resting.chain(again).min()
    }

    fn next_pull(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for follow in self.follows.values_mut() {
            if matches!(follow.phase, Phase::Resting(until) if now >= until) {
                follow.phase = Phase::Wanted;
            }
        }
        let idle = self.follows.is_empty() && self.drops.is_empty();
        let begins = self.follows.values().any(|follow| follow.phase == Phase::Wanted && follow.copying == 0);
        let may = match self.in_flight {
            0 => !idle,
            1 => begins,
            _ => false,
        };
        if !may || now < self.again_at || self.copying_bytes >= PULL_COPYING_BYTES {
            return;
        }
        let mut wants = Vec::new();
        for (&partition, follow) in &mut self.follows {
            if follow.phase == Phase::Wanted && follow.copying == 0 {
                follow.phase = Phase::Streaming;
                follow.next = follow.tail.end;
                let Tail { end, epoch: last_epoch } = follow.tail;
                wants.push(Want { partition, epoch: follow.epoch, from: end, last_epoch });
            }
        }
        let drops = std::mem::take(&mut self.drops);
        effects.push(Effect::Pull(Pull { session: self.session, sequence: self.sequence, wants, drops }));
        self.sequence = self.sequence.wrapping_add(1);
        self.in_flight += 1;
    }
}

/// The offset behind whole batches that begin at `from`.
fn end_of(batches: &Bytes, from: Offset) -> Offset {
    let (mut next, mut at) = (from, 0);
    while let Some(Ok(header)) = batches.get(at..).filter(|rest| !rest.is_empty()).map(BatchHeader::parse) {
        next = header.next_offset();
        at += header.size.max(1);
    }
    next
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const EPOCH: Epoch = Epoch(3);

    fn id(index: u32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(1), index }
    }

    fn batches(bytes: usize) -> PartBody {
        PartBody::Batches { from: Offset(0), marks: LeaderMarks::default(), batches: vec![0; bytes].into() }
    }

    /// A session that stores as much at once as it may.
    fn full() -> (Puller, usize) {
        let (mut puller, mut effects) = (Puller::new(1), Vec::new());
        puller.follow(Millis(0), id(0), EPOCH, Tail { end: Offset(0), epoch: None }, &mut effects);
        assert!(matches!(effects[..], [Effect::Pull(_)]));
        effects.clear();
        let part = Part { partition: id(0), epoch: EPOCH, body: batches(PULL_COPYING_BYTES) };
        puller.pulled(Millis(1), 1, Some(vec![part]), &mut effects);
        assert!(matches!(effects[..], [Effect::Copy { .. }]), "and no pull before that is stored");
        (puller, PULL_COPYING_BYTES)
    }

    #[test]
    fn while_too_much_is_being_stored_nothing_is_due() {
        let (mut puller, bytes) = full();
        assert_eq!(puller.next_deadline(), None, "a time that is over would be slept for again and again");
        let (mut effects, tail) = (Vec::new(), Tail { end: Offset(9), epoch: Some(EPOCH) });
        puller.copied(Millis(2), (id(0), EPOCH), bytes, true, Some(tail), &mut effects);
        assert!(matches!(effects[..], [Effect::Ends(_), Effect::Pull(_)]));
    }

    #[test]
    fn a_cut_that_was_refused_is_asked_for_again_after_a_longer_pause() {
        let (mut puller, mut effects) = (Puller::new(1), Vec::new());
        let tail = Tail { end: Offset(5), epoch: Some(Epoch(1)) };
        puller.follow(Millis(0), id(0), EPOCH, tail, &mut effects);
        let body = PartBody::Diverges { epoch: Epoch(0), end: Offset(2) };
        puller.pulled(Millis(1), 1, Some(vec![Part { partition: id(0), epoch: EPOCH, body }]), &mut effects);
        effects.clear();
        puller.cut(Millis(2), (id(0), EPOCH), false, tail, &mut effects);
        puller.tick(Millis(2 + PULL_CUT_AGAIN_MS - 1), &mut effects);
        let again = |effect: &Effect| matches!(effect, Effect::Pull(pull) if !pull.wants.is_empty());
        assert!(!effects.iter().any(again));
        puller.tick(Millis(2 + PULL_CUT_AGAIN_MS), &mut effects);
        assert!(effects.iter().any(again));
    }

    #[test]
    fn what_was_being_stored_of_a_partition_let_go_does_not_hold_up_the_others() {
        let (mut puller, bytes) = full();
        let mut effects = Vec::new();
        puller.unfollow(id(0));
        puller.follow(Millis(2), id(1), EPOCH, Tail { end: Offset(0), epoch: None }, &mut effects);
        assert!(effects.is_empty());
        puller.copied(Millis(3), (id(0), EPOCH), bytes, false, None, &mut effects);
        assert!(matches!(&effects[..], [Effect::Pull(pull)] if pull.wants.len() == 1 && pull.drops == [id(0)]));
    }
}
