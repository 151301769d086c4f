//! Idempotent producers: what each has written last, so that a batch sent twice is stored once (KIP-98, KIP-360).
//!
//! A producer numbers its records per partition. A batch that repeats one of its last five is answered with the offsets
//! of the first; one that leaves a gap is refused. For a while it is only put off: clients have several batches under way, and when the
//! first was refused for a passing reason, the next may come at a time when it would be taken; and the log of a leader that does not
//! know of its successor may end before batches that this one has. librdkafka, told at once that something was lost, begins a
//! new epoch and sends in it again what may be kept.

use std::collections::BTreeMap;

use super::event::Appended;
use crate::error::AppendError;
use crate::record::BatchHeader;
use crate::units::{Millis, Offset};

/// Batches remembered for each producer: clients have at most as many under way.
const BATCHES: usize = 5;
/// Producers remembered for each partition; the one that wrote longest ago is forgotten first.
const MAX_PRODUCERS: usize = 1024;

/// For how long a batch is expected that is missing before one that came, in milliseconds: longer than a leader that was deposed may
/// take itself for one.
pub(super) const AWAITED_MS: i64 = 30_000;

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, Producer>,
}

/// The changes that a write makes, to be kept once it is durable.
#[derive(Debug, Default)]
pub(super) struct Changed {
    entries: BTreeMap<i64, Producer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// The latest batches of this epoch, oldest first.
    recent: Vec<Sequenced>,
    /// Greatest record timestamp of the latest batch.
    last_timestamp: Millis,
}

/// An idempotent producer as DescribeProducers shows it (KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    pub id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    /// Greatest record timestamp of its latest batch.
    pub last_timestamp: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequenced {
    first: i32,
    last: i32,
    at: Appended,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Store,
    /// It is stored already, there.
    Duplicate(Appended),
    /// One with this sequence number, of this producer, has to come first.
    Gap(i64, i32),
    Refuse(AppendError),
}

/// Since when batches are missing, by producer, and the sequence numbers that are next.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    open: BTreeMap<i64, (i32, Millis)>,
}

impl Gaps {
    /// Why a batch behind a gap is refused.
    pub(super) fn refusal(&mut self, producer: i64, expected: i32, now: Millis) -> AppendError {
        let is_awaited = |since: Millis| now.0.saturating_sub(since.0) < AWAITED_MS;
        if self.open.len() >= MAX_PRODUCERS && !self.open.contains_key(&producer) {
            self.open.retain(|_, (_, since)| is_awaited(*since));
            // Full of young ones: one of them is awaited longer.
            if self.open.len() >= MAX_PRODUCERS {
                self.open.pop_first();
            }
        }
        let gap = self.open.entry(producer).or_insert((expected, now));
        if gap.0 != expected {
            *gap = (expected, now);
        }
        if is_awaited(gap.1) { AppendError::AwaitsEarlier } else { AppendError::OutOfOrderSequence }
    }

    /// Its next batch is here.
    pub(super) fn close(&mut self, producer: i64) {
        if !self.open.is_empty() {
            self.open.remove(&producer);
        }
    }
}

impl Sequenced {
    fn of(header: &BatchHeader) -> Sequenced {
        Sequenced {
            first: header.base_sequence,
            last: after(header.base_sequence, header.last_offset_delta),
            at: Appended {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                append_time: header.is_log_append_time().then_some(header.max_timestamp),
            },
        }
    }
}

/// The sequence number `count` after another; they go on with 0 after the largest.
fn after(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

/// Whether a sequence number is a later one.
fn is_ahead(sequence: i32, of: i32) -> bool {
    let numbers = i64::from(i32::MAX) + 1;
    let ahead = (i64::from(sequence) - i64::from(of)).rem_euclid(numbers);
    ahead > 0 && ahead < numbers / 2
}

impl Producers {
    /// Judges a batch in the light of what is durable and of what the write being built holds before it. `refused`: batches were
    /// refused of late that may come again.
    pub(super) fn judge(&self, changed: &Changed, refused: bool, header: &BatchHeader) -> Verdict {
        if header.producer_id < 0 {
            return Verdict::Store;
        }
        let (id, batch) = (header.producer_id, Sequenced::of(header));
        let Some(known) = changed.entries.get(&id).or_else(|| self.entries.get(&id)) else {
            // A producer that is not known here, or not any more, may begin anywhere (KIP-360), unless its beginning was refused.
            let may_begin = batch.first == 0 || !refused;
            return if may_begin { Verdict::Store } else { Verdict::Refuse(AppendError::AwaitsEarlier) };
        };
        if header.producer_epoch < known.epoch {
            return Verdict::Refuse(AppendError::ProducerFenced);
        }
        if header.producer_epoch > known.epoch {
            return if batch.first == 0 { Verdict::Store } else { Verdict::Gap(id, 0) };
        }
        if let Some(first) = known.recent.iter().find(|stored| (stored.first, stored.last) == (batch.first, batch.last))
        {
            return Verdict::Duplicate(first.at);
        }
        match known.recent.last() {
            Some(last) if is_ahead(batch.first, after(last.last, 1)) => Verdict::Gap(id, after(last.last, 1)),
            Some(last) if batch.first != after(last.last, 1) => Verdict::Refuse(AppendError::OutOfOrderSequence),
            _ => Verdict::Store,
        }
    }

    /// Notes a batch, with its offsets, that the write being built stores.
    pub(super) fn note(&self, changed: &mut Changed, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let id = header.producer_id;
        let known = changed.entries.remove(&id).or_else(|| self.entries.get(&id).cloned());
        let mut producer = known.filter(|known| known.epoch == header.producer_epoch).unwrap_or(Producer {
            epoch: header.producer_epoch,
            recent: Vec::with_capacity(BATCHES),
            last_timestamp: header.max_timestamp,
        });
        if producer.recent.len() == BATCHES {
            producer.recent.remove(0);
        }
        producer.recent.push(Sequenced::of(header));
        producer.last_timestamp = header.max_timestamp;
        changed.entries.insert(id, producer);
    }

    /// Keeps the changes of a write that is durable now.
    pub(super) fn keep(&mut self, changed: Changed) {
        self.entries.extend(changed.entries);
        while self.entries.len() > MAX_PRODUCERS {
            let oldest = self.entries.iter().min_by_key(|(_, producer)| producer.last_offset()).map(|(id, _)| *id);
            if let Some(id) = oldest {
                self.entries.remove(&id);
            }
        }
    }

    /// Every producer that is remembered, by id.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveProducer> {
        let shown = |(&id, producer): (&i64, &Producer)| ActiveProducer {
            id,
            epoch: producer.epoch,
            last_sequence: producer.recent.last().map_or(-1, |batch| batch.last),
            last_timestamp: producer.last_timestamp,
        };
        self.entries.iter().map(shown).collect()
    }

    /// Notes a stored batch that recovery found; to be called in the order of the log.
    pub fn restore(&mut self, header: &BatchHeader) {
        let mut changed = Changed::default();
        self.note(&mut changed, header);
        self.keep(changed);
    }
}

impl Producer {
    fn last_offset(&self) -> Option<Offset> {
        self.recent.last().map(|batch| batch.at.last_offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Epoch;

    /// A batch of `count` records.
    fn batch(id: i64, epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(offset),
            size: 100,
            leader_epoch: Epoch(0),
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: Millis(0),
            max_timestamp: Millis(0),
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
        }
    }

    fn judge(producers: &Producers, header: &BatchHeader) -> Verdict {
        producers.judge(&Changed::default(), false, header)
    }

    fn at(base: i64, last: i64) -> Verdict {
        Verdict::Duplicate(Appended { base_offset: Offset(base), last_offset: Offset(last), append_time: None })
    }

    #[test]
    fn each_of_the_last_five_batches_is_known_again_by_its_first_offsets() {
        let mut producers = Producers::default();
        for n in 0..6 {
            producers.restore(&batch(7, 0, n * 10, 10, i64::from(n) * 10));
        }
        assert_eq!(judge(&producers, &batch(7, 0, 50, 10, 999)), at(50, 59));
        assert_eq!(judge(&producers, &batch(7, 0, 10, 10, 999)), at(10, 19));
        let too_old = judge(&producers, &batch(7, 0, 0, 10, 999));
        assert_eq!(too_old, Verdict::Refuse(AppendError::OutOfOrderSequence));
        assert_eq!(judge(&producers, &batch(7, 0, 60, 1, 999)), Verdict::Store);
        assert_eq!(judge(&producers, &batch(7, 0, 61, 1, 999)), Verdict::Gap(7, 60));
    }

    #[test]
    fn what_is_missing_is_awaited_for_half_a_minute_and_what_is_too_old_is_not() {
        let mut producers = Producers::default();
        producers.restore(&batch(7, 0, i32::MAX, 1, 0));
        assert_eq!(judge(&producers, &batch(7, 0, 0, 1, 999)), Verdict::Store);
        assert_eq!(judge(&producers, &batch(7, 0, 1, 1, 999)), Verdict::Gap(7, 0));
        let too_old = Verdict::Refuse(AppendError::OutOfOrderSequence);
        assert_eq!(judge(&producers, &batch(7, 0, i32::MAX - 9, 1, 999)), too_old);
        let mut gaps = Gaps::default();
        let mut refusal = |expected, now| gaps.refusal(7, expected, Millis(now));
        assert_eq!(refusal(0, 1000), AppendError::AwaitsEarlier);
        assert_eq!(refusal(0, 30_999), AppendError::AwaitsEarlier);
        assert_eq!(refusal(0, 31_000), AppendError::OutOfOrderSequence);
        assert_eq!(refusal(5, 31_000), AppendError::AwaitsEarlier, "another gap");
        gaps.close(7);
        assert_eq!(gaps.refusal(7, 5, Millis(62_000)), AppendError::AwaitsEarlier);
        for producer in 0..2 * MAX_PRODUCERS as i64 {
            assert_eq!(gaps.refusal(producer, 5, Millis(62_000)), AppendError::AwaitsEarlier);
        }
        assert_eq!(gaps.open.len(), MAX_PRODUCERS);
    }

    #[test]
    fn a_new_epoch_begins_with_0_and_fences_the_old_one() {
        let mut producers = Producers::default();
        producers.restore(&batch(7, 3, 0, 10, 0));
        assert_eq!(judge(&producers, &batch(7, 4, 10, 1, 10)), Verdict::Gap(7, 0));
        assert_eq!(judge(&producers, &batch(7, 4, 0, 1, 10)), Verdict::Store);
        producers.restore(&batch(7, 4, 0, 1, 10));
        assert_eq!(judge(&producers, &batch(7, 3, 10, 1, 11)), Verdict::Refuse(AppendError::ProducerFenced));
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere_and_one_without_id_is_not_watched() {
        let mut producers = Producers::default();
        assert_eq!(judge(&producers, &batch(7, 0, 500, 1, 0)), Verdict::Store);
        producers.restore(&batch(-1, -1, -1, 1, 0));
        assert_eq!(producers, Producers::default());
    }

    #[test]
    fn sequence_numbers_go_on_with_0_after_the_largest() {
        let mut producers = Producers::default();
        producers.restore(&batch(7, 0, i32::MAX - 1, 4, 0));
        assert_eq!(judge(&producers, &batch(7, 0, 2, 1, 4)), Verdict::Store);
        assert_eq!(judge(&producers, &batch(7, 0, i32::MAX - 1, 4, 4)), at(0, 3));
    }

    #[test]
    fn the_number_of_producers_is_bounded_and_the_oldest_go_first() {
        let mut producers = Producers::default();
        for id in 0..=MAX_PRODUCERS as i64 {
            producers.restore(&batch(id, 0, 0, 1, id));
        }
        assert_eq!(producers.entries.len(), MAX_PRODUCERS);
        assert!(!producers.entries.contains_key(&0));
    }

    proptest! {
        /// A producer with up to five batches under way repeats any of them, in any order, again and again.
        #[test]
        fn retries_never_store_a_record_twice_nor_out_of_order(
            sizes in prop::collection::vec(1..4i32, 1..40),
            tries in prop::collection::vec((0..5usize, any::<bool>()), 0..300),
        ) {
            let mut producers = Producers::default();
            let (mut log, mut end) = (Vec::new(), 0i64);
            let starts: Vec<i32> = sizes.iter().scan(0, |s, n| { let at = *s; *s += n; Some(at) }).collect();
            let mut acked = 0;
            for (ahead, answer_lost) in tries {
                let n = acked + ahead;
                if n >= sizes.len() {
                    continue;
                }
                let header = batch(7, 0, starts[n], sizes[n], end);
                // The window of a client: a gap in front of the first batch ever is not seen by the log.
                if log.is_empty() && n > 0 {
                    continue;
                }
                match judge(&producers, &header) {
                    Verdict::Store => {
                        producers.restore(&header);
                        log.push(n);
                        end += i64::from(sizes[n]);
                    }
                    Verdict::Duplicate(first) => prop_assert_eq!(first.base_offset.0, i64::from(starts[n])),
                    Verdict::Gap(..) | Verdict::Refuse(_) => continue,
                }
                if !answer_lost && n == acked {
                    acked += 1;
                }
            }
            prop_assert_eq!(log.clone(), (0..log.len()).collect::<Vec<_>>());
        }
    }
}
