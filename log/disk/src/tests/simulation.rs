//! The log under a seeded simulation: clients append, the disk fails, clocks are wrong, the machine loses power at a random moment, and
//! after each restart every acknowledged record is there once, in order, and none that was refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::partition::{Append, AppendData, Appended, Event};
use forebay_log::record::{Batches, RecordChunk, RecordReader};
use forebay_log::{AppendError, Millis, Offset, TopicConfig};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use crate::dirs;
use crate::engine::Engine;
use crate::files::Files;
use crate::layout::LOG_DIR;
use crate::machine::Token;
use crate::open::OpenPartition;
use crate::partition::Partition;
use crate::points::{self, Points};
use crate::pool::SyncPool;
use crate::shard::Mailbox;
use crate::shared::Shared;
use crate::sim::{Faults, Random, SimFiles};
use crate::space::Space;

const TOPIC: &str = "t";
const ID: Uuid = Uuid::from_u128(1);
const PARTITIONS: u32 = 2;
const CLIENTS: u64 = 3;
/// The time at which the simulation begins, of a clock that is right.
const NOW: i64 = 1_767_225_600_000;

/// What is known of one record that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acked(Offset),
    Refused,
    /// The machine stopped before an answer: both are right, once.
    Unknown,
}

type Answer = oneshot::Receiver<Result<Appended, AppendError>>;

struct World {
    random: Random,
    files: SimFiles,
    /// What the machine's clock shows, and by how much that is wrong.
    now: i64,
    skew: i64,
    sent: u64,
    /// By partition and value.
    fates: BTreeMap<(u32, String), Fate>,
    /// Log starts that were asked for, and those of them that were acknowledged.
    asked_starts: BTreeMap<u32, Offset>,
    kept_starts: BTreeMap<u32, Offset>,
}

struct Node {
    engine: Engine,
    shared: Vec<Arc<Shared>>,
    space: Arc<Space>,
}

impl World {
    fn new(seed: u64) -> World {
        let files = SimFiles::new(seed);
        files.set_clock(NOW);
        files.create_dir_all(Path::new(LOG_DIR)).unwrap();
        files.sync_dir(Path::new("")).unwrap();
        dirs::create(&files, std::iter::once((TOPIC, ID, &[0, 1][..]))).unwrap();
        World {
            random: Random::new(seed ^ 0xfeed),
            files,
            now: NOW,
            skew: 0,
            sent: 0,
            fates: BTreeMap::new(),
            asked_starts: BTreeMap::new(),
            kept_starts: BTreeMap::new(),
        }
    }

    /// Sets the clock wrong by `skew`; returns by how much that moved it.
    fn set_clock(&mut self, skew: i64) -> i64 {
        let by = skew - self.skew;
        (self.now, self.skew) = (self.now + by, skew);
        self.files.set_clock(self.now);
        by
    }

    fn start(&mut self) -> Node {
        // Without a battery, off for a month with the hour of the shutdown, wrongly ahead.
        let skew = [0, 0, 0, -NOW, -30 * Millis::DAY, 70 * 365 * Millis::DAY][self.random.below(6) as usize];
        self.set_clock(skew);
        let sync_per_mille = if self.random.chance(300) { 100 } else { 0 };
        self.files.set_faults(Faults { sync_per_mille, ..Faults::default() });
        let files: Arc<dyn Files> = Arc::new(self.files.clone());
        let space = Arc::new(Space::with_reserve(Arc::clone(&files), 16 << 10, 2 << 10));
        let known = points::load(files.as_ref());
        let mut engine = Engine::new(SyncPool::inline(), Arc::clone(&space), Arc::default(), true);
        let config = TopicConfig { segment_bytes: 1500, remote_storage_enable: false, ..TopicConfig::default() };
        let config = Arc::new(ArcSwap::from_pointee(config));
        let mut all = Vec::new();
        for index in 0..PARTITIONS {
            let point = known.get(&(ID, index)).copied().unwrap_or_default();
            let shared = Arc::new(Shared::new((TOPIC, ID), index, point, Arc::default(), super::outbox()));
            let (files, space, config) = (Arc::clone(&files), Arc::clone(&space), Arc::clone(&config));
            let open = OpenPartition { files, space, shared: Arc::clone(&shared), config, point, alone: true };
            // A start that fails is tried again, as the keeper does.
            let driver = open.run(Millis(self.now)).or_else(|_| {
                self.files.set_faults(Faults::default());
                open.run(Millis(self.now))
            });
            engine.add(u64::from(index), driver.unwrap());
            all.push(shared);
        }
        Node { engine, shared: all, space }
    }

    /// One turn with random appends; the answers are what the clients know.
    fn turn(&mut self, node: &mut Node, admission: &Arc<Semaphore>) {
        let mut answers: Vec<(u32, Vec<String>, Answer)> = Vec::new();
        let mut events = Vec::new();
        for _ in 0..self.random.below(6) {
            let client = self.random.below(CLIENTS);
            // A client's records stay in one partition, as a meter's do.
            let index = u32::try_from(client).unwrap() % PARTITIONS;
            let mut chunk = RecordChunk::new();
            let mut values = Vec::new();
            for _ in 0..=self.random.below(3) {
                let padding = "x".repeat(usize::try_from(self.random.below(300)).unwrap());
                let value = format!("{client} {:09} {padding}", self.sent);
                self.sent += 1;
                chunk.push(Millis(self.now), None, Some(value.as_bytes()), &[]);
                values.push(value);
            }
            let (reply, answer) = oneshot::channel();
            let permit = Arc::clone(admission).try_acquire_owned().unwrap();
            let append = Append {
                data: AppendData::Chunk(chunk),
                all: true,
                token: Token::Append { reply, permit: Some(permit), chain: None },
            };
            events.push((u64::from(index), Event::Append(vec![append])));
            answers.push((index, values, answer));
        }
        let (reply, mut start_kept) = oneshot::channel();
        let index = u32::try_from(self.random.below(u64::from(PARTITIONS))).unwrap();
        let token = Token::Control(reply);
        let end = node.shared[index as usize].marks.borrow().high_watermark;
        let mut start = None;
        match self.random.below(30) {
            0 => events.push((u64::from(index), Event::Roll(token))),
            1 => {
                let to = Offset(i64::try_from(self.random.below(end.0.unsigned_abs() + 1)).unwrap());
                let asked = self.asked_starts.entry(index).or_default();
                *asked = to.max(*asked);
                start = Some(to);
                events.push((u64::from(index), Event::SetLogStart(to, token)));
            }
            2 => node.space.probe(),
            _ => {}
        }
        node.engine.turn(Millis(self.now), events);
        if let (Some(to), Ok(Ok(()))) = (start, start_kept.try_recv()) {
            let kept = self.kept_starts.entry(index).or_default();
            *kept = to.max(*kept);
        }
        if self.random.chance(200) {
            self.now += 1000;
            node.engine.tick(Millis(self.now));
        }
        for (index, values, mut answer) in answers {
            let answer = answer.try_recv().ok();
            for (n, value) in values.into_iter().enumerate() {
                let fate = match &answer {
                    Some(Ok(appended)) => Fate::Acked(appended.base_offset.plus(n as i64)),
                    Some(Err(_)) => Fate::Refused,
                    None => Fate::Unknown,
                };
                self.fates.insert((index, value), fate);
            }
        }
    }

    fn checkpoint(&self, node: &Node) {
        let point = |shared: &Arc<Shared>| ((ID, shared.index), shared.marks.borrow().log_end);
        let points: Points = node.shared.iter().map(point).collect();
        // On a disk that fails it stays as it was.
        let _ = points::save(&self.files, &points);
    }

    /// Refusals of a turn in which the machine stopped never reached anyone.
    fn forget_refusals(&mut self, before: &BTreeMap<(u32, String), Fate>) {
        for (record, fate) in &mut self.fates {
            if *fate == Fate::Refused && !before.contains_key(record) {
                *fate = Fate::Unknown;
            }
        }
    }

    /// Reads everything as a client would and compares it with what the clients were told.
    fn check(&self, node: &Node, context: &str) {
        for shared in &node.shared {
            let mut seen = BTreeSet::new();
            let mut last_of_client: BTreeMap<String, String> = BTreeMap::new();
            let marks = *shared.marks.borrow();
            let reader = reader(node, shared);
            let start_of = |starts: &BTreeMap<u32, Offset>| starts.get(&shared.index).copied().unwrap_or_default();
            assert!(marks.log_start >= start_of(&self.kept_starts), "{context}: an acknowledged log start holds");
            assert!(marks.log_start <= start_of(&self.asked_starts), "{context}: the log start moves by request only");
            let mut next = marks.local_start;
            while next < marks.high_watermark {
                let batches = reader.read(next, 1000).unwrap().batches;
                for batch in Batches::new(batches) {
                    let (header, batch) = batch.unwrap();
                    for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                        if record.offset < marks.local_start {
                            // The log start may be inside a batch, which is served whole.
                            continue;
                        }
                        assert_eq!(record.offset, next, "{context}: offsets are consecutive");
                        next = next.next();
                        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                        match self.fates.get(&(shared.index, value.clone())) {
                            Some(Fate::Acked(offset)) => assert_eq!(*offset, record.offset, "{context}: {value}"),
                            Some(Fate::Unknown) => {}
                            Some(Fate::Refused) => panic!("{context}: refused {value} is visible at {}", record.offset),
                            None => panic!("{context}: {value} was never sent"),
                        }
                        assert!(seen.insert(value.clone()), "{context}: {value} is there twice");
                        let client = value.split(' ').next().unwrap().to_owned();
                        let previous = last_of_client.insert(client, value.clone());
                        assert!(previous.is_none_or(|previous| previous < value), "{context}: {value} is out of order");
                    }
                }
            }
            for ((index, value), fate) in &self.fates {
                let kept = matches!(fate, Fate::Acked(offset) if *offset >= marks.log_start);
                let lost = *index == shared.index && kept && !seen.contains(value);
                assert!(!lost, "{context}: acknowledged {value} is lost");
            }
        }
    }
}

fn reader(node: &Node, shared: &Arc<Shared>) -> Partition {
    Partition {
        key: 0,
        shared: Arc::clone(shared),
        mailbox: Mailbox::closed(),
        admission: Arc::new(Semaphore::new(0)),
        space: Arc::clone(&node.space),
        config: Arc::new(ArcSwap::default()),
    }
}

/// Runs one seed: a few lives of the node, each ended by a crash. Returns what is on the disk.
fn run(seed: u64) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut world = World::new(seed);
    for life in 0..4 {
        let mut node = world.start();
        let context = format!("seed {seed}, life {life}");
        world.check(&node, &context);
        let faults = Faults {
            write_per_mille: [0, 20, 100][world.random.below(3) as usize],
            sync_per_mille: [0, 20, 100][world.random.below(3) as usize],
            capacity: [None, Some((20 << 10) + world.random.below(40 << 10))][world.random.below(2) as usize],
            ..Faults::default()
        };
        world.files.set_faults(faults);
        let admission = Arc::new(Semaphore::new(1000));
        for _ in 0..world.random.below(30) {
            world.now += 10;
            world.files.set_clock(world.now);
            if world.skew != 0 && world.random.chance(50) {
                let by = world.set_clock(0);
                node.engine.clock_stepped(Millis(world.now), by);
            }
            world.turn(&mut node, &admission);
            if world.random.chance(100) {
                world.checkpoint(&node);
            }
        }
        if world.random.chance(250) {
            // A clean stop, and the power goes after it.
            if node.engine.flush().is_ok() {
                world.checkpoint(&node);
            }
            world.files.crash();
            continue;
        }
        let stop_after = Some(world.random.below(12));
        world.files.set_faults(Faults { stop_after, ..faults });
        let before = world.fates.clone();
        world.turn(&mut node, &admission);
        world.forget_refusals(&before);
        drop(node);
        world.files.crash();
    }
    let node = world.start();
    world.check(&node, &format!("seed {seed}, at the end"));
    world.files.contents()
}

#[test]
fn acknowledged_records_survive_any_crash_and_refused_ones_never_appear() {
    let seeds = std::env::var("FOREBAY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    for seed in 0..seeds {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..5 {
        assert!(run(seed) == run(seed), "seed {seed}");
    }
}
