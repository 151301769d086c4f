//! Property tests of compaction: whatever is appended, however passes are cut short, each key's last value survives.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Keys, Rewriter, Rules};
use crate::record::{BatchBuilder, BatchHeader, Batches, Compression, Record, RecordReader};
use crate::units::{Epoch, Millis, Offset};

const RETENTION: i64 = 50;

#[derive(Debug, Clone)]
enum Step {
    /// Records of these keys; `None` is a tombstone.
    Append(Vec<(u8, Option<u8>)>, bool),
    Roll,
    /// A pass with room for so many keys, which ends after so many segments.
    Pass {
        room: usize,
        groups: usize,
    },
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = prop::collection::vec((0..6u8, prop::option::weighted(0.7, any::<u8>())), 1..6);
    let step = prop_oneof![
        6 => (records, any::<bool>()).prop_map(|(records, producer)| Step::Append(records, producer)),
        3 => Just(Step::Roll),
        3 => (1..8usize, 1..6usize).prop_map(|(room, groups)| Step::Pass { room, groups }),
        1 => (1..80i64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

/// A log in memory: its closed segments, and what was appended since.
#[derive(Default)]
struct Log {
    closed: Vec<Vec<Bytes>>,
    active: Vec<Bytes>,
    end: i64,
    compacted: Offset,
    now: i64,
    /// All that was ever appended, by offset.
    written: Vec<Record>,
    /// When a pass covered the tombstone at this offset for the first time.
    covered: BTreeMap<i64, i64>,
}

fn records(batches: &[Bytes]) -> Vec<Record> {
    let mut all = Vec::new();
    for batch in batches {
        let header = BatchHeader::parse(batch).unwrap();
        header.check_crc(batch).unwrap();
        all.extend(RecordReader::new(&header, batch).unwrap().map(Result::unwrap));
    }
    all
}

impl Log {
    fn append(&mut self, values: &[(u8, Option<u8>)], producer: bool) {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        for (n, (key, value)) in values.iter().enumerate() {
            let value = value.map(|value| vec![value; 40]);
            builder.push(n as i32, Millis(self.now + n as i64), Some(&[*key]), value.as_deref(), &[(b"h", None)]);
        }
        let mut batch = builder.build(Offset(self.end), Epoch(0)).unwrap().to_vec();
        if producer {
            let header = BatchHeader::parse(&batch).unwrap();
            BatchHeader { producer_id: 7, producer_epoch: 0, base_sequence: 3, ..header }.write(&mut batch);
        }
        let batch = Bytes::from(batch);
        self.written.extend(records(std::slice::from_ref(&batch)));
        self.end += values.len() as i64;
        self.active.push(batch);
    }

    fn roll(&mut self) {
        if !self.active.is_empty() {
            self.closed.push(std::mem::take(&mut self.active));
        }
    }

    /// Compacts segments pair by pair, as many pairs as it is given before the power fails.
    fn pass(&mut self, room: usize, groups: usize) {
        let mut keys = Keys::new(room * 65);
        let mut covered = self.compacted;
        'map: for batch in self.closed.iter().flatten() {
            let header = BatchHeader::parse(batch).unwrap();
            if header.next_offset() <= self.compacted {
                continue;
            }
            for record in records(std::slice::from_ref(batch)) {
                if !keys.note(&record.key.unwrap(), record.offset) {
                    break 'map;
                }
            }
            covered = header.next_offset();
        }
        for offset in 0..covered.0 {
            if self.written[offset as usize].value.is_none() {
                self.covered.entry(offset).or_insert(self.now);
            }
        }
        let whole = self.closed.len().div_ceil(2);
        for group in 0..whole.min(groups) {
            let (at, count) = (group, self.closed.len().saturating_sub(group).min(2));
            let rules = Rules {
                keys: &keys,
                covered,
                now: Millis(self.now),
                delete_retention_ms: RETENTION,
                keep_producers: true,
            };
            let mut rewriter = Rewriter::new(rules);
            let mut out = Vec::new();
            for batch in self.closed[at..at + count].iter().flatten() {
                rewriter.push(&BatchHeader::parse(batch).unwrap(), batch, &mut out).unwrap();
            }
            rewriter.flush(&mut out);
            self.closed.splice(at..at + count, [out]);
        }
        if whole <= groups {
            self.compacted = covered;
        }
    }

    fn all(&self) -> Vec<Bytes> {
        self.closed.iter().flatten().chain(&self.active).cloned().collect()
    }

    fn check(&self) {
        let all = self.all();
        let joined = Bytes::from(all.concat());
        let mut next = Offset(0);
        for batch in Batches::new(joined) {
            let (header, _) = batch.unwrap();
            assert_eq!(header.base_offset, next, "no gap and no overlap");
            next = header.next_offset();
        }
        assert_eq!(next.0, self.end);
        let kept = records(&all);
        for record in &kept {
            assert_eq!(*record, self.written[record.offset.0 as usize], "what stays is as it was");
        }
        let last = |records: &[Record]| -> BTreeMap<Bytes, Record> {
            records.iter().map(|record| (record.key.clone().unwrap(), record.clone())).collect()
        };
        let (now, then) = (last(&kept), last(&self.written));
        for (key, written) in then {
            let may_be_gone = written.value.is_none()
                && self.covered.get(&written.offset.0).is_some_and(|at| at + RETENTION <= self.now);
            match now.get(&key) {
                Some(found) => assert_eq!(*found, written, "the last value of {key:?}"),
                None => assert!(may_be_gone, "{written:?} is lost"),
            }
        }
        for (offset, batch) in all.iter().map(|batch| (BatchHeader::parse(batch).unwrap(), batch)) {
            if batch.len() > 61 {
                continue;
            }
            assert_eq!(offset.record_count, 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_last_value_of_every_key_survives_and_nothing_else_changes(steps in steps()) {
        let mut log = Log::default();
        for step in steps {
            match step {
                Step::Append(values, producer) => log.append(&values, producer),
                Step::Roll => log.roll(),
                Step::Pass { room, groups } => log.pass(room, groups),
                Step::Wait(time) => log.now += time,
            }
            log.check();
        }
        log.roll();
        log.pass(1000, 1000);
        log.pass(1000, 1000);
        let mut keys: Vec<_> = records(&log.all()).into_iter().map(|record| record.key).collect();
        let before = keys.len();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), before, "one record a key when all is compacted");
        log.now += RETENTION;
        log.compacted = Offset(0);
        log.pass(1000, 1000);
        log.check();
        prop_assert!(records(&log.all()).iter().all(|record| record.value.is_some()), "tombstones go in the end");
    }

    #[test]
    fn a_producers_batches_leave_what_tells_a_repeat(values in prop::collection::vec((0..3u8, any::<Option<u8>>()), 1..5)) {
        let mut log = Log::default();
        log.append(&values, true);
        let covering: Vec<(u8, Option<u8>)> = (0..3).map(|key| (key, Some(1))).collect();
        log.append(&covering, false);
        log.roll();
        log.pass(1000, 1000);
        let header = BatchHeader::parse(&log.closed[0][0]).unwrap();
        prop_assert_eq!((header.producer_id, header.base_sequence, header.record_count), (7, 3, 0));
        prop_assert_eq!(header.next_offset().0, values.len() as i64);
    }
}
