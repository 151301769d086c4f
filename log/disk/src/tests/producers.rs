//! Idempotent producers under a seeded simulation: answers are lost, batches sent again, the disk fails, the power goes, and each batch is in
//! the log once, in its producer's order, and acknowledged with the offset at which it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_log::partition::{Append, AppendData, Event};
use forebay_log::record::{BatchBuilder, Batches, Compression, RecordReader};
use forebay_log::{Epoch, Millis, Offset, TopicConfig};
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
const NOW: i64 = 1_767_225_600_000;
const PRODUCERS: i64 = 2;
/// How many batches a client goes on ahead of the oldest one without an answer.
const WINDOW: usize = 5;

/// A batch that was sent and has no answer yet.
struct InFlight {
    number: usize,
    sequence: i32,
    count: i32,
}

#[derive(Default)]
struct Producer {
    next: i32,
    /// Batches so far.
    batches: usize,
    in_flight: Vec<InFlight>,
    /// First sequence number of each acknowledged batch, and where it is.
    acked: BTreeMap<i32, Offset>,
}

struct World {
    random: Random,
    files: SimFiles,
    now: i64,
    producers: Vec<Producer>,
}

struct Node {
    engine: Engine,
    shared: Arc<Shared>,
    space: Arc<Space>,
}

/// A batch as a Kafka producer sends it; its records say who wrote them and which they are.
fn batch(producer: i64, sequence: i32, count: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..count {
        builder.push(n, Millis(NOW), None, Some(format!("{producer} {}", sequence + n).as_bytes()), &[]);
    }
    let mut batch = builder.build(Offset::ZERO, Epoch(-1)).unwrap().to_vec();
    batch[43..51].copy_from_slice(&producer.to_be_bytes());
    batch[51..53].copy_from_slice(&0i16.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

impl World {
    fn new(seed: u64) -> World {
        let files = SimFiles::new(seed);
        files.set_clock(NOW);
        files.create_dir_all(Path::new(LOG_DIR)).unwrap();
        files.sync_dir(Path::new("")).unwrap();
        dirs::create(&files, std::iter::once((TOPIC, ID, &[0][..]))).unwrap();
        let producers = (0..PRODUCERS).map(|_| Producer::default()).collect();
        World { random: Random::new(seed ^ 0x1de), files, now: NOW, producers }
    }

    fn start(&mut self) -> Node {
        self.files.set_faults(Faults::default());
        let files: Arc<dyn Files> = Arc::new(self.files.clone());
        let space = Arc::new(Space::with_reserve(Arc::clone(&files), 16 << 10, 2 << 10));
        let point = points::load(files.as_ref()).get(&(ID, 0)).copied().unwrap_or_default();
        let mut engine = Engine::new(SyncPool::inline(), Arc::clone(&space), Arc::default(), true);
        let shared = Arc::new(Shared::new((TOPIC, uuid::Uuid::nil()), 0, point, Arc::default(), super::outbox()));
        let config = TopicConfig { segment_bytes: 700, remote_storage_enable: false, ..TopicConfig::default() };
        let config = Arc::new(ArcSwap::from_pointee(config));
        let open =
            OpenPartition { files, space: Arc::clone(&space), shared: Arc::clone(&shared), config, point, alone: true };
        engine.add(0, open.run(Millis(self.now)).unwrap());
        Node { engine, shared, space }
    }

    /// Sends batches of one producer: perhaps a new one, and with it, in their order, those that it believes lost.
    fn send(&mut self, node: &mut Node, id: i64, new: bool) {
        let producer = &mut self.producers[id as usize];
        let oldest = producer.in_flight.first().map_or(producer.batches, |sent| sent.number);
        // Of a producer that the log does not know any batch may be the first (KIP-360): so the first one goes alone.
        let window = if producer.acked.is_empty() { 1 } else { WINDOW };
        if new && producer.batches - oldest < window {
            let count = 1 + self.random.below(3) as i32;
            producer.in_flight.push(InFlight { number: producer.batches, sequence: producer.next, count });
            producer.next += count;
            producer.batches += 1;
        }
        let from = self.random.below(producer.in_flight.len() as u64 + 1) as usize;
        let from = if new { from.saturating_sub(1) } else { 0 };
        let mut events = Vec::new();
        let mut answers = Vec::new();
        for sent in &producer.in_flight[from.min(producer.in_flight.len())..] {
            let (reply, answer) = oneshot::channel();
            let token = Token::Append { reply, permit: None, chain: None };
            let data = AppendData::Batches(batch(id, sent.sequence, sent.count));
            events.push((0, Event::Append(vec![Append { data, all: true, token }])));
            answers.push((sent.sequence, answer));
        }
        node.engine.turn(Millis(self.now), events);
        for (sequence, mut answer) in answers {
            // Some answers are lost on their way.
            let Ok(Ok(appended)) = answer.try_recv() else { continue };
            if self.random.chance(300) {
                continue;
            }
            let known = producer.acked.insert(sequence, appended.base_offset);
            assert!(known.is_none_or(|known| known == appended.base_offset), "one place for each batch");
            producer.in_flight.retain(|sent| sent.sequence != sequence);
        }
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
        let end = reader.watermarks().high_watermark;
        let (mut next, mut expected) = (Offset::ZERO, vec![0; self.producers.len()]);
        while next < end {
            for batch in Batches::new(reader.read(next, 1000).unwrap_or_else(|e| panic!("{context}: {e}")).batches) {
                let (header, batch) = batch.unwrap();
                let id = header.producer_id as usize;
                let acked = self.producers[id].acked.get(&header.base_sequence);
                assert!(acked.is_none_or(|at| *at == header.base_offset), "{context}: acknowledged at {acked:?}");
                for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    assert_eq!(value, format!("{id} {}", expected[id]), "{context}: once, and in order");
                    expected[id] += 1;
                }
                next = header.next_offset();
            }
        }
        for (id, producer) in self.producers.iter().enumerate() {
            let last = producer.acked.keys().next_back();
            assert!(last.is_none_or(|last| *last < expected[id]), "{context}: {last:?} of {id} was acknowledged");
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for life in 0..4 {
        let mut node = world.start();
        let context = format!("seed {seed}, life {life}");
        world.check(&node, &context);
        let faults = Faults {
            write_per_mille: [0, 50][world.random.below(2) as usize],
            sync_per_mille: [0, 50][world.random.below(2) as usize],
            ..Faults::default()
        };
        world.files.set_faults(faults);
        for _ in 0..world.random.below(40) {
            world.now += 10;
            world.files.set_clock(world.now);
            let (id, new) = (world.random.below(PRODUCERS as u64) as i64, world.random.chance(700));
            world.send(&mut node, id, new);
            if world.random.chance(100) {
                world.now += 1000;
                node.engine.tick(Millis(world.now));
            }
            if world.random.chance(100) {
                let points = Points::from([((ID, 0), node.shared.marks.borrow().log_end)]);
                let _ = points::save(&world.files, &points);
            }
        }
        world.files.set_faults(Faults { stop_after: Some(world.random.below(8)), ..faults });
        let id = world.random.below(PRODUCERS as u64) as i64;
        world.send(&mut node, id, true);
        drop(node);
        world.files.crash();
        if world.random.chance(300) {
            // The clock is set while the machine is down.
            world.now += i64::try_from(world.random.below(86_400_000)).unwrap();
        }
    }
    let mut node = world.start();
    for _ in 0..50 {
        (0..PRODUCERS).for_each(|id| world.send(&mut node, id, false));
    }
    world.check(&node, &format!("seed {seed}, at the end"));
    assert!(
        world.producers.iter().all(|producer| producer.in_flight.is_empty()),
        "seed {seed}: all is stored in the end"
    );
}

#[test]
fn simulation_of_producers_stores_each_batch_once_and_in_order() {
    let seeds = std::env::var("FOREBAY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    (0..seeds).for_each(run);
}
