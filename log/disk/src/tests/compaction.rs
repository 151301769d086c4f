//! Compaction under a seeded simulation: the disk fails and the power goes at any step of a pass, and after each restart every key
//! has its last acknowledged value.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::compaction::plan;
use forebay_log::partition::{Append, AppendData, Appended, Event};
use forebay_log::record::{Batches, RecordChunk, RecordReader};
use forebay_log::topic::Ratio;
use forebay_log::{AppendError, Millis, Offset, TopicConfig};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use crate::cleaner::{Pass, compacted_to};
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
const NOW: i64 = 1_767_225_600_000;
const KEYS: u64 = 5;

fn config() -> TopicConfig {
    TopicConfig {
        compact: true,
        delete: false,
        segment_bytes: 1500,
        remote_storage_enable: false,
        min_cleanable_dirty_ratio: Ratio::percent(1),
        delete_retention_ms: 300,
        ..TopicConfig::default()
    }
}

/// What was sent: its key and value; the offset if that is known.
struct Sent {
    key: u64,
    value: Option<String>,
    at: Option<Offset>,
}

struct World {
    random: Random,
    files: SimFiles,
    now: i64,
    /// Acknowledged or without an answer, in the order of sending.
    sent: Vec<Sent>,
    passes: usize,
}

struct Node {
    engine: Engine,
    shared: Arc<Shared>,
    space: Arc<Space>,
}

impl World {
    fn new(seed: u64) -> World {
        let files = SimFiles::new(seed);
        files.set_clock(NOW);
        files.create_dir_all(Path::new(LOG_DIR)).unwrap();
        files.sync_dir(Path::new("")).unwrap();
        dirs::create(&files, std::iter::once((TOPIC, ID, &[0][..]))).unwrap();
        World { random: Random::new(seed ^ 0xc1ea), files, now: NOW, sent: Vec::new(), passes: 0 }
    }

    fn start(&mut self) -> Node {
        self.files.set_faults(Faults::default());
        let files: Arc<dyn Files> = Arc::new(self.files.clone());
        let space = Arc::new(Space::with_reserve(Arc::clone(&files), 16 << 10, 2 << 10));
        let point = points::load(files.as_ref()).get(&(ID, 0)).copied().unwrap_or_default();
        let mut engine = Engine::new(SyncPool::inline(), Arc::clone(&space), Arc::default(), true);
        let shared = Arc::new(Shared::new((TOPIC, uuid::Uuid::nil()), 0, point, Arc::default(), super::outbox()));
        let config = Arc::new(ArcSwap::from_pointee(config()));
        let open =
            OpenPartition { files, space: Arc::clone(&space), shared: Arc::clone(&shared), config, point, alone: true };
        engine.add(0, open.run(Millis(self.now)).unwrap());
        Node { engine, shared, space }
    }

    fn append(&mut self, node: &mut Node) {
        let (key, n) = (self.random.below(KEYS), self.sent.len());
        let padding = "x".repeat(self.random.below(200) as usize);
        let value = (!self.random.chance(300)).then(|| format!("{n} {padding}"));
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(self.now), Some(&[key as u8]), value.as_deref().map(str::as_bytes), &[]);
        let (reply, mut answer): (_, oneshot::Receiver<Result<Appended, AppendError>>) = oneshot::channel();
        let token = Token::Append { reply, permit: None, chain: None };
        let append = Append { data: AppendData::Chunk(chunk), all: true, token };
        node.engine.turn(Millis(self.now), vec![(0, Event::Append(vec![append]))]);
        match answer.try_recv() {
            Ok(Ok(appended)) => self.sent.push(Sent { key, value, at: Some(appended.base_offset) }),
            Ok(Err(_)) => {}
            Err(_) => self.sent.push(Sent { key, value, at: None }),
        }
    }

    /// A pass, if one is due, as far as the disk lets it.
    fn compact(&mut self, node: &mut Node) {
        let (config, shared) = (config(), Arc::clone(&node.shared));
        let now = Millis(self.now);
        let Some(due) = plan(&config, &shared.closed.load(), compacted_to(&shared), now) else { return };
        let engine = &mut node.engine;
        let mut pass = Pass {
            files: &self.files,
            shared: &shared,
            config: &config,
            now,
            ask: &mut |what| {
                let (reply, mut answer) = oneshot::channel();
                engine.turn(now, vec![(0, what.event(Token::Control(reply)))]);
                answer.try_recv().unwrap_or(Err(AppendError::Closed))
            },
            is_stopped: &|| false,
        };
        self.passes += usize::from(pass.run(&due).is_ok());
    }

    fn check(&self, node: &Node, context: &str) {
        let reader = Partition {
            key: 0,
            shared: Arc::clone(&node.shared),
            mailbox: Mailbox::closed(),
            admission: Arc::new(Semaphore::new(0)),
            space: Arc::clone(&node.space),
            config: Arc::new(ArcSwap::default()),
        };
        let marks = reader.watermarks();
        let acked: BTreeMap<Offset, &Sent> = self.sent.iter().filter_map(|sent| Some((sent.at?, sent))).collect();
        let mut last: BTreeMap<u64, (Offset, Option<String>)> = BTreeMap::new();
        let mut next = marks.log_start;
        while next < marks.high_watermark {
            for batch in Batches::new(reader.read(next, 1000).unwrap_or_else(|e| panic!("{context}: {e}")).batches) {
                let (header, batch) = batch.unwrap();
                assert_eq!(header.base_offset, next, "{context}: batches follow each other");
                for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                    let key = u64::from(record.key.unwrap()[0]);
                    let value = record.value.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    if let Some(sent) = acked.get(&record.offset) {
                        assert_eq!((sent.key, &sent.value), (key, &value), "{context}: {}", record.offset);
                    }
                    last.insert(key, (record.offset, value));
                }
                next = header.next_offset();
            }
        }
        for key in 0..KEYS {
            let of_key: Vec<&Sent> = self.sent.iter().filter(|sent| sent.key == key).collect();
            let Some(newest) = of_key.iter().rposition(|sent| sent.at.is_some()) else { continue };
            // What came after it without an answer may be there as well.
            let possible: Vec<&Option<String>> = of_key[newest..].iter().map(|sent| &sent.value).collect();
            let gone = (Offset(-1), None);
            let (offset, value) = last.get(&key).unwrap_or(&gone);
            assert!(possible.contains(&value), "{context}: key {key} has {value:?} at {offset}, not {possible:?}");
        }
    }
}

/// A few lives of a node, each ended by a crash; returns what is on the disk and how many passes came to their end.
fn run(seed: u64) -> (Vec<(std::path::PathBuf, Vec<u8>)>, usize) {
    let mut world = World::new(seed);
    for life in 0..5 {
        let mut node = world.start();
        let context = format!("seed {seed}, life {life}");
        world.check(&node, &context);
        let faults = Faults {
            write_per_mille: [0, 0, 30][world.random.below(3) as usize],
            sync_per_mille: [0, 0, 30][world.random.below(3) as usize],
            ..Faults::default()
        };
        world.files.set_faults(faults);
        for _ in 0..world.random.below(60) {
            world.now += 10;
            world.files.set_clock(world.now);
            world.append(&mut node);
            if world.random.chance(150) {
                world.compact(&mut node);
                world.check(&node, &context);
            }
            if world.random.chance(100) {
                world.now += 1000;
                node.engine.tick(Millis(world.now));
            }
            if world.random.chance(100) {
                let points = Points::from([((ID, 0), node.shared.marks.borrow().log_end)]);
                let _ = points::save(&world.files, &points);
            }
        }
        world.files.set_faults(Faults { stop_after: Some(world.random.below(20)), ..faults });
        world.compact(&mut node);
        world.append(&mut node);
        drop(node);
        world.files.crash();
    }
    let node = world.start();
    world.check(&node, &format!("seed {seed}, at the end"));
    (world.files.contents(), world.passes)
}

#[test]
fn simulation_of_compaction_keeps_the_last_value_of_every_key() {
    let seeds = std::env::var("FOREBAY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let passes: usize = (0..seeds).map(|seed| run(seed).1).sum();
    assert!(passes as u64 > seeds, "{passes} passes in {seeds} seeds");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..5 {
        assert!(run(seed).0 == run(seed).0, "seed {seed}");
    }
}
