//! The leader's side of a session: which partitions the follower wants, how far each was sent, and which have something new.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::message::{End, Part, PartBody, PartitionId, Pull, PullRefusal, Want};
use crate::error::ReadError;
use crate::flaws::{self, Flaw};
use crate::partition::{Anew, EpochCache, LeaderMarks, Watermarks};
use crate::record::BatchHeader;
use crate::units::{Epoch, Offset};

/// What a leader's node knows of a partition.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub leads: bool,
    pub epoch: Epoch,
    pub marks: Watermarks,
    /// Records below are in the cold tier.
    pub tiered: Offset,
    /// Whether the follower is one of the in-sync replicas: it is never throttled.
    pub in_sync: bool,
}

/// The partitions of a node, as feeding needs them.
pub trait Source {
    /// None: it is not here.
    fn view(&self, partition: PartitionId) -> Option<View>;
    fn epochs(&self, partition: PartitionId) -> EpochCache;
    /// What a follower that begins anew at the local log start has to know.
    fn anew(&self, partition: PartitionId) -> Anew;
    /// Whether a read from there is not expected to wait for the disk. What is not at hand is put off: it stays ready.
    fn is_at_hand(&self, _partition: PartitionId, _from: Offset) -> bool {
        true
    }
    /// Whole batches from `from` on up to the log end, at least one.
    ///
    /// # Errors
    /// Why there are none.
    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<Bytes, ReadError>;
}

/// The leader does not know what the session has been sent: the follower begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLost;

struct Position {
    want: Want,
    /// Sent so far.
    next: Offset,
    /// The logs are known to agree up to `next`.
    agrees: bool,
    told: Option<LeaderMarks>,
    /// In the queue.
    queued: bool,
}

/// How much one answer may hold.
#[derive(Debug, Clone, Copy)]
struct Budget {
    all: usize,
    /// Of partitions of which the follower is not in sync.
    catching_up: usize,
}

/// What is to be sent, and what is known now.
#[derive(Debug, Default)]
pub struct Answer {
    pub parts: Vec<Part>,
    /// How far followers are whose logs were found to agree with the leader's. Before that their ends say nothing.
    pub agreed: Vec<End>,
}

/// One follower's session.
#[derive(Default)]
pub struct Feed {
    session: u64,
    sequence: u32,
    positions: BTreeMap<PartitionId, Position>,
    ready: VecDeque<PartitionId>,
}

impl Feed {
    /// Takes a pull in.
    ///
    /// # Errors
    /// It is not the next one of the session.
    pub fn pull(&mut self, pull: &Pull) -> Result<(), SessionLost> {
        if pull.sequence == 0 {
            *self = Feed { session: pull.session, ..Feed::default() };
        } else if pull.session != self.session || pull.sequence != self.sequence.wrapping_add(1) {
            return Err(SessionLost);
        }
        self.sequence = pull.sequence;
        for partition in &pull.drops {
            self.positions.remove(partition);
        }
        for want in &pull.wants {
            let position = Position { want: *want, next: want.from, agrees: false, told: None, queued: false };
            self.positions.insert(want.partition, position);
            self.enqueue(want.partition);
        }
        Ok(())
    }

    /// The partition has something new.
    pub fn moved(&mut self, partition: PartitionId) {
        self.enqueue(partition);
    }

    /// Whether some partition may have something to send.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Partitions of the session.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.positions.keys().copied()
    }

    /// What is to be sent now, `max_bytes` of batches at most unless a single one is larger; of partitions that the follower is
    /// still catching up with `catch_up_bytes`. The partitions take turns.
    pub fn answer(&mut self, source: &impl Source, max_bytes: usize, catch_up_bytes: usize) -> Answer {
        let mut budget = Budget { all: max_bytes, catching_up: catch_up_bytes };
        let (mut parts, mut agreed) = (Vec::new(), Vec::new());
        for _ in 0..self.ready.len() {
            if budget.all == 0 {
                break;
            }
            let Some(partition) = self.ready.pop_front() else { break };
            let Some(position) = self.positions.get_mut(&partition) else { continue };
            position.queued = false;
            let epoch = position.want.epoch;
            let agreed_before = position.agrees;
            let next = position.next_part(source, &mut budget);
            if position.agrees && !agreed_before {
                agreed.push(End { partition, epoch, end: position.want.from });
            }
            match next {
                Next::Nothing => {}
                Next::Later => self.enqueue(partition),
                Next::Part { body, more } => {
                    if !matches!(body, PartBody::Batches { .. }) {
                        self.positions.remove(&partition);
                    } else if more {
                        self.enqueue(partition);
                    }
                    parts.push(Part { partition, epoch, body });
                }
            }
        }
        Answer { parts, agreed }
    }

    fn enqueue(&mut self, partition: PartitionId) {
        if let Some(position) = self.positions.get_mut(&partition)
            && !std::mem::replace(&mut position.queued, true)
        {
            self.ready.push_back(partition);
        }
    }
}

enum Next {
    Nothing,
    /// Throttled, or not at hand.
    Later,
    Part {
        body: PartBody,
        more: bool,
    },
}

impl Position {
    fn next_part(&mut self, source: &impl Source, budget: &mut Budget) -> Next {
        let last = |body| Next::Part { body, more: false };
        let refused = |why| last(PartBody::Refused(why));
        let Some(view) = source.view(self.want.partition) else { return refused(PullRefusal::NotLeader) };
        let any_epoch = flaws::has(Flaw::NoEpochCheck);
        if view.epoch > self.want.epoch && !any_epoch {
            return refused(PullRefusal::FencedEpoch);
        }
        if view.epoch < self.want.epoch && !any_epoch {
            return refused(PullRefusal::UnknownEpoch);
        }
        if !view.leads {
            return refused(PullRefusal::NotLeader);
        }
        if !self.agrees {
            if let Some((epoch, end)) = self.divergence(source, &view) {
                return last(PartBody::Diverges { epoch, end });
            }
            self.agrees = true;
        }
        let marks = LeaderMarks {
            high_watermark: view.marks.high_watermark,
            log_start: view.marks.log_start,
            tiered: view.tiered,
        };
        if self.next < view.marks.local_start {
            let anew = source.anew(self.want.partition);
            return last(PartBody::Anew { at: anew.starts.tiered.max(anew.starts.log_start), anew });
        }
        if self.next >= view.marks.log_end {
            if self.told == Some(marks) {
                return Next::Nothing;
            }
            self.told = Some(marks);
            return last(PartBody::Batches { from: self.next, marks, batches: Bytes::new() });
        }
        let room = if view.in_sync { budget.all } else { budget.all.min(budget.catching_up) };
        if room == 0 {
            return Next::Later;
        }
        if !source.is_at_hand(self.want.partition, self.next) {
            return Next::Later;
        }
        match source.read(self.want.partition, self.next, room) {
            Ok(batches) => self.batches(batches, &view, marks, budget),
            // Retention was faster: the next look finds another local start.
            Err(ReadError::Tiered { .. } | ReadError::OutOfRange { .. }) => Next::Later,
            Err(error) => refused(PullRefusal::Storage(error.to_string())),
        }
    }

    fn batches(&mut self, batches: Bytes, view: &View, marks: LeaderMarks, budget: &mut Budget) -> Next {
        let from = self.next;
        let mut end = 0;
        // A read may begin with a batch that holds records below: a follower's log ends between batches.
        while let Some(Ok(header)) = batches.get(end..).filter(|rest| !rest.is_empty()).map(BatchHeader::parse)
            && header.base_offset == self.next
        {
            end += header.size;
            self.next = header.next_offset();
        }
        if end == 0 || end > batches.len() {
            let why = format!("no batch begins at offset {from}");
            return Next::Part { body: PartBody::Refused(PullRefusal::Storage(why)), more: false };
        }
        budget.all = budget.all.saturating_sub(end);
        if !view.in_sync {
            budget.catching_up = budget.catching_up.saturating_sub(end);
        }
        self.told = Some(marks);
        let batches = batches.slice(..end);
        Next::Part { body: PartBody::Batches { from, marks, batches }, more: self.next < view.marks.log_end }
    }

    /// Where the follower's log parts from the leader's, if it does (KIP-101, KIP-595).
    fn divergence(&self, source: &impl Source, view: &View) -> Option<(Epoch, Offset)> {
        let log_end = view.marks.log_end;
        if flaws::has(Flaw::TruncateToHighWatermark) {
            return None;
        }
        let Some(last) = self.want.last_epoch else {
            // An empty log parts from nothing, unless it begins where the leader's has not come to.
            return (self.next > log_end).then_some((Epoch(-1), log_end));
        };
        let (epoch, end) = source.epochs(self.want.partition).end_offset(last, log_end).unwrap_or((Epoch(-1), log_end));
        (epoch < last || end < self.next).then_some((epoch, end))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::record::{BatchBuilder, Compression, RecordChunk};
    use crate::units::Millis;

    /// Two partitions with a batch each; of the second one nothing is in memory.
    struct Two {
        batch: Bytes,
        may_block: bool,
    }

    fn id(index: u32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(1), index }
    }

    impl Source for Two {
        fn view(&self, _: PartitionId) -> Option<View> {
            let (log_start, local_start, high_watermark, log_end) = (Offset(0), Offset(0), Offset(0), Offset(1));
            let marks = Watermarks { log_start, local_start, high_watermark, log_end };
            Some(View { leads: true, epoch: Epoch(0), marks, tiered: Offset(0), in_sync: true })
        }
        fn epochs(&self, _: PartitionId) -> EpochCache {
            EpochCache::default()
        }
        fn anew(&self, _: PartitionId) -> Anew {
            Anew::default()
        }
        fn is_at_hand(&self, partition: PartitionId, _: Offset) -> bool {
            self.may_block || partition == id(0)
        }
        fn read(&self, partition: PartitionId, from: Offset, _: usize) -> Result<Bytes, ReadError> {
            assert!(self.is_at_hand(partition, from));
            Ok(self.batch.clone())
        }
    }

    #[test]
    fn what_is_not_at_hand_is_put_off_and_sent_when_that_may_wait_for_the_disk() {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(1), None, Some(b"v"), &[]);
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push_chunk(&chunk);
        let mut two = Two { batch: builder.build(Offset(0), Epoch(0)).unwrap(), may_block: false };
        let mut feed = Feed::default();
        let want = |index| Want { partition: id(index), epoch: Epoch(0), from: Offset(0), last_epoch: None };
        feed.pull(&Pull { session: 1, sequence: 0, wants: vec![want(0), want(1)], drops: Vec::new() }).unwrap();
        let sent = |feed: &mut Feed, two: &Two| -> Vec<u32> {
            feed.answer(two, 1 << 20, 1 << 20).parts.iter().map(|part| part.partition.index).collect()
        };
        assert_eq!(sent(&mut feed, &two), [0]);
        assert!(feed.is_ready());
        assert_eq!(sent(&mut feed, &two), [0u32; 0]);
        two.may_block = true;
        assert_eq!(sent(&mut feed, &two), [1]);
        assert!(!feed.is_ready());
    }
}
