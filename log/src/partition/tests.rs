//! The machine against a model of a disk that fails: what is acknowledged is durable, offsets have no gap and one content.

use proptest::prelude::*;

use super::*;
use crate::error::AppendError;
use crate::record::{Batches, RecordChunk, RecordReader};
use crate::topic::TopicConfig;
use crate::units::{Epoch, Incarnation, Millis, NodeId, Offset, PartitionEpoch};

mod ages;
mod producers;
mod roles;
mod timestamps;

type Token = u32;

fn chunk(token: Token, count: usize) -> RecordChunk {
    let mut chunk = RecordChunk::new();
    for n in 0..count {
        chunk.push(Millis(0), None, Some(format!("{token}.{n}").as_bytes()), &[]);
    }
    chunk
}

fn append(token: Token, count: usize) -> Append<Token> {
    Append { data: AppendData::Chunk(chunk(token, count)), all: true, token }
}

fn lead(epoch: i32, followers: &[i32], in_sync: &[i32]) -> Leadership {
    let ids = |ids: &[i32]| ids.iter().map(|&id| NodeId(id)).collect();
    Leadership {
        epoch: Epoch(epoch),
        partition_epoch: PartitionEpoch(epoch),
        followers: ids(followers),
        in_sync: ids(in_sync),
        max_lag_ms: 10_000,
    }
}

fn replicated(epoch: i32, replica: i32, end: i64) -> Event<Token> {
    let (replica, incarnation) = (NodeId(replica), Incarnation(1));
    Event::Replicated { epoch: Epoch(epoch), replica, incarnation, end: Offset(end) }
}

/// A driver with a disk in memory: durable segments by base offset.
struct Model {
    machine: Partition<Token>,
    segments: Vec<(Offset, Vec<u8>)>,
    now: Millis,
    log_start: Offset,
    outcomes: Vec<(Token, Outcome)>,
    /// Persists and repairs that fail from now on, first first.
    failures: Vec<bool>,
    persists: usize,
    /// The starts on the disk, and the times of append that it was told of.
    saved: Starts,
    stamps: Vec<(Offset, Millis)>,
}

impl Model {
    fn new(config: TopicConfig) -> Model {
        Model::at(Millis(0), config)
    }

    fn at(now: Millis, config: TopicConfig) -> Model {
        let restored = Restored {
            segments: Vec::new(),
            log_end: Offset::ZERO,
            high_watermark: Offset::ZERO,
            starts: Starts::default(),
            epochs: EpochCache::default(),
            producers: Producers::default(),
        };
        let mut machine = Partition::new(config, now, restored);
        machine.handle(now, Event::Lead(lead(0, &[], &[])), &mut Vec::new());
        Model {
            machine,
            segments: vec![(Offset::ZERO, Vec::new())],
            now,
            log_start: Offset::ZERO,
            outcomes: Vec::new(),
            failures: Vec::new(),
            persists: 0,
            saved: Starts::default(),
            stamps: Vec::new(),
        }
    }

    fn fails(&mut self) -> bool {
        if self.failures.is_empty() { false } else { self.failures.remove(0) }
    }

    fn event(&mut self, event: Event<Token>) {
        let mut effects = Vec::new();
        self.machine.handle(self.now, event, &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Persist(Persist { work, then }) => {
                        self.persists += 1;
                        let event = if self.fails() {
                            Event::PersistFailed(then, Fault::Io("broken".to_owned()))
                        } else {
                            self.write(work);
                            Event::Persisted(then)
                        };
                        self.machine.handle(self.now, event, &mut effects);
                    }
                    Effect::Repair(repair) => {
                        assert_eq!(self.segments.last().map(|(base, _)| *base), Some(repair.segment));
                        assert_eq!(self.segments.last().map(|(_, bytes)| bytes.len() as u64), Some(repair.len));
                        let broken = Event::RepairFailed(Fault::Io("broken".to_owned()));
                        let event = if self.fails() { broken } else { Event::Repaired };
                        self.machine.handle(self.now, event, &mut effects);
                    }
                    Effect::Truncate(_) | Effect::ProposeIsr(_) => {}
                    Effect::Stamp(stamps) => self.stamps = stamps,
                    Effect::Delete(bases) => self.segments.retain(|(base, _)| !bases.contains(base)),
                    Effect::Watermarks(marks) => {
                        assert!(marks.high_watermark <= self.durable_end(), "the high watermark is durable");
                        assert!(marks.log_start <= marks.local_start && marks.local_start <= marks.high_watermark);
                        self.log_start = marks.log_start;
                    }
                    Effect::Done(token, outcome) => {
                        if let Outcome::Appended(appended) = &outcome {
                            assert!(appended.last_offset < self.durable_end(), "acknowledged only when durable");
                        }
                        self.outcomes.push((token, outcome));
                    }
                }
            }
        }
    }

    fn write(&mut self, work: Work) {
        let write = match work {
            Work::Write(write) => write,
            Work::Starts(starts) => return self.saved = starts,
            // Of what compaction does to files the simulation on a disk knows.
            Work::Compact(_) => return,
        };
        if write.roll {
            self.segments.push((write.segment, Vec::new()));
        }
        let (base, bytes) = self.segments.last_mut().unwrap();
        assert_eq!((*base, bytes.len() as u64), (write.segment, write.position));
        write.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
    }

    fn records(&self) -> Vec<(Offset, String)> {
        let mut records = Vec::new();
        for (_, bytes) in &self.segments {
            for batch in Batches::new(bytes.clone().into()) {
                let (header, batch) = batch.unwrap();
                header.check_crc(&batch).unwrap();
                for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                    records.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
                }
            }
        }
        records
    }

    fn durable_end(&self) -> Offset {
        let base = self.segments.last().map_or(Offset::ZERO, |(base, _)| *base);
        self.records().last().map_or(base, |(offset, _)| offset.next())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    Fail(Vec<bool>),
    Pass(i64),
    SetClock(i64),
    Roll,
    LogStart(i64),
    Tiered(i64),
    Lead(i32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(1usize..5, 1..5).prop_map(Step::Append),
        2 => prop::collection::vec(any::<bool>(), 1..4).prop_map(Step::Fail),
        2 => (1i64..5000).prop_map(Step::Pass),
        1 => (-2_000_000_000_000i64..2_000_000_000_000).prop_map(Step::SetClock),
        1 => Just(Step::Roll),
        1 => (0i64..60).prop_map(Step::LogStart),
        1 => (0i64..60).prop_map(Step::Tiered),
        1 => (0i32..5).prop_map(Step::Lead),
    ];
    prop::collection::vec(step, 1..40)
}

fn config(remote: bool) -> TopicConfig {
    TopicConfig {
        segment_bytes: 400,
        segment_ms: 3000,
        retention_ms: Some(60_000),
        local_retention_ms: Some(2000),
        remote_storage_enable: remote,
        ..TopicConfig::default()
    }
}

proptest! {
    #[test]
    fn whatever_fails_acknowledged_records_are_there_once_and_refused_ones_nowhere(steps in steps(), remote: bool) {
        let mut model = Model::new(config(remote));
        let mut token = 0;
        let mut sent = Vec::new();
        for step in steps {
            match step {
                Step::Append(counts) => {
                    let appends = counts.iter().map(|&count| {
                        token += 1;
                        sent.push((token, count));
                        append(token, count)
                    });
                    let appends = appends.collect();
                    model.event(Event::Append(appends));
                }
                Step::Fail(failures) => model.failures = failures,
                Step::Pass(millis) => {
                    model.now.0 += millis;
                    model.event(Event::Tick);
                }
                Step::SetClock(by) => {
                    model.now.0 += by;
                    model.event(Event::ClockStepped { by });
                }
                Step::Roll => model.event(Event::Roll(0)),
                Step::LogStart(to) => model.event(Event::SetLogStart(Offset(to), 0)),
                Step::Tiered(end) => model.event(Event::SetTiered(Offset(end), 0)),
                Step::Lead(epoch) => model.event(Event::Lead(lead(epoch, &[], &[]))),
            }
        }
        // Whatever is offline comes back once the disk works.
        model.failures.clear();
        model.now.0 += REPAIR_RETRY_MS;
        model.event(Event::Tick);
        prop_assert_eq!(model.machine.offline(), None);
        let records = model.records();
        for pair in records.windows(2) {
            prop_assert_eq!(pair[0].0.next(), pair[1].0, "offsets are consecutive");
        }
        let marks = model.machine.watermarks();
        prop_assert_eq!(marks.log_end, model.durable_end());
        for (token, count) in sent {
            let answers: Vec<&Outcome> = model.outcomes.iter().filter(|(t, _)| *t == token).map(|(_, o)| o).collect();
            prop_assert_eq!(answers.len(), 1, "every append is answered once");
            for n in 0..count {
                let value = format!("{token}.{n}");
                let at: Vec<Offset> = records.iter().filter(|(_, v)| *v == value).map(|(o, _)| *o).collect();
                match answers[0] {
                    Outcome::Appended(appended) => {
                        let offset = appended.base_offset.plus(n as i64);
                        let kept = offset >= marks.local_start;
                        prop_assert!(at == [offset] || (!kept && at.is_empty()), "{} at {:?}", value, at);
                    }
                    _ => prop_assert!(at.is_empty(), "refused {} is there", value),
                }
            }
        }
        if remote {
            prop_assert!(marks.log_start == Offset::ZERO || marks.log_start <= marks.high_watermark);
        }
    }
}

#[test]
fn appends_that_wait_for_a_sync_share_the_next_one() {
    let mut machine = Model::new(config(false)).machine;
    let mut effects = Vec::new();
    machine.handle(Millis(0), Event::Append(vec![append(1, 1)]), &mut effects);
    let Some(Effect::Persist(first)) = effects.pop() else { panic!("a write") };
    for token in 2..5 {
        machine.handle(Millis(0), Event::Append(vec![append(token, 1)]), &mut effects);
        assert!(effects.is_empty(), "one write at a time");
    }
    machine.handle(Millis(0), Event::Persisted(first.then), &mut effects);
    let Some(Effect::Persist(second)) = effects.pop() else { panic!("the next write") };
    let Work::Write(write) = second.work else { panic!("batches") };
    assert_eq!(write.batches.len(), 1, "all three in one batch");
    assert_eq!(write.batches[0].header.record_count, 3);
}

#[test]
fn whoever_is_answered_finds_the_watermarks_moved() {
    let mut machine = Model::new(config(false)).machine;
    let mut effects = Vec::new();
    machine.handle(Millis(0), Event::Append(vec![Append { all: false, ..append(1, 1) }]), &mut effects);
    let Some(Effect::Persist(write)) = effects.pop() else { panic!("a write") };
    machine.handle(Millis(0), Event::Persisted(write.then), &mut effects);
    let marks = effects.iter().position(|e| matches!(e, Effect::Watermarks(marks) if marks.log_end == Offset(1)));
    let done = effects.iter().position(|e| matches!(e, Effect::Done(1, Outcome::Appended(_))));
    assert!(marks.is_some() && marks < done, "{marks:?} {done:?}");
}

#[test]
fn the_high_watermark_waits_for_the_slowest_in_sync_follower() {
    let mut model = Model::new(config(false));
    model.event(Event::Lead(lead(7, &[2, 3], &[2, 3])));
    model.event(Event::Append(vec![append(1, 3)]));
    assert!(model.outcomes.is_empty(), "durable here is not enough");
    model.event(replicated(7, 2, 3));
    assert_eq!(model.machine.watermarks().high_watermark, Offset(0));
    model.event(replicated(7, 3, 3));
    assert_eq!(model.machine.watermarks().high_watermark, Offset(3));
    assert_eq!(model.outcomes.len(), 1);
    assert_eq!(model.machine.epochs().latest(), Some(Epoch(7)), "the epoch is in the batches");
}

#[test]
fn a_segment_never_holds_records_of_two_days() {
    let mut model = Model::new(TopicConfig { segment_ms: i64::MAX, ..config(false) });
    model.now = Millis(Millis::DAY - 1);
    model.event(Event::Append(vec![append(1, 1)]));
    model.now = Millis(Millis::DAY);
    assert_eq!(model.machine.next_deadline(), Some(Millis(Millis::DAY)));
    model.event(Event::Append(vec![append(2, 1)]));
    let closed = model.machine.closed_segments();
    assert_eq!(closed.iter().map(|s| (s.end_offset, s.append_day)).collect::<Vec<_>>(), [(Offset(1), 0)]);
}

#[test]
fn segments_stay_within_segment_bytes() {
    let mut model = Model::new(config(false));
    for token in 1..40 {
        model.event(Event::Append(vec![append(token, 2)]));
    }
    assert!(model.segments.len() > 2);
    assert!(model.segments.iter().all(|(_, bytes)| bytes.len() <= 400));
}

#[test]
fn batches_of_a_producer_are_stored_as_they_are_but_for_offset_and_epoch() {
    let mut builder = crate::record::BatchBuilder::new(crate::record::Compression::Lz4);
    builder.push_chunk(&chunk(9, 4));
    let batch = builder.build(Offset(1234), Epoch(99)).unwrap();
    let limit = |bytes| TopicConfig { max_message_bytes: bytes, ..TopicConfig::default() };
    check_batches(&batch, &limit(10_000)).unwrap();
    assert!(matches!(check_batches(&batch, &limit(10)), Err(AppendError::TooLarge { .. })));
    assert!(matches!(check_batches(&batch.slice(..batch.len() - 1), &limit(10_000)), Err(AppendError::Corrupt(_))));

    let mut model = Model::new(config(false));
    model.event(Event::Lead(lead(3, &[], &[])));
    model.event(Event::Append(vec![
        append(1, 2),
        Append { data: AppendData::Batches(batch.clone()), all: true, token: 2 },
    ]));
    assert_eq!(model.records().len(), 6);
    let stored: Vec<_> = Batches::new(model.segments[0].1.clone().into()).map(Result::unwrap).collect();
    let (header, bytes) = &stored[1];
    assert_eq!((header.base_offset, header.leader_epoch, &bytes[16..]), (Offset(2), Epoch(3), &batch[16..]));
    let last = model.outcomes.last().unwrap();
    let appended = Appended { base_offset: Offset(2), last_offset: Offset(5), append_time: None };
    assert_eq!(*last, (2, Outcome::Appended(appended)));
}

#[test]
fn an_offline_partition_refuses_and_comes_back_by_itself() {
    let mut model = Model::new(config(false));
    model.failures = vec![true, true, true];
    model.event(Event::Append(vec![append(1, 1)]));
    assert!(model.machine.offline().is_some());
    assert!(model.outcomes.is_empty(), "not refused before it is sure to be gone");
    model.event(Event::Append(vec![append(2, 1)]));
    assert!(matches!(model.outcomes[0], (2, Outcome::Refused(AppendError::Offline(_)))));
    for _ in 0..2 {
        model.now = model.machine.next_deadline().unwrap();
        model.event(Event::Tick);
    }
    assert_eq!(model.machine.offline(), None);
    assert!(matches!(model.outcomes[1], (1, Outcome::Refused(AppendError::Storage(_)))));
    model.event(Event::Append(vec![append(3, 1)]));
    assert_eq!(model.records(), [(Offset(0), "3.0".to_owned())]);
}
