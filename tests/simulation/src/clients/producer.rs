//! A producer: writes numbered records of one key to one partition, and sends each again until it is acknowledged.
//!
//! Some are eager, as librdkafka is: they go on with several batches at once after a failure, and when they are told that there is a gap
//! before one that is not their first, they begin a new epoch and send in it what is not acknowledged.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use forebay_log::AppendError;
use forebay_log::replication::PartitionId;

use super::build;
use crate::message::{Message, Peer, Produce, Refused};
use crate::queue::Event;
use crate::quorum::place_of;
use crate::world::World;

/// How long an answer is waited for, in milliseconds.
const WAIT_MS: i64 = 2500;
/// For so long after an attempt that was not answered, in milliseconds, no new epoch begins: it may still be on its way.
const DOUBT_MS: i64 = 3_000;

struct Batch {
    numbers: (u64, u64),
    bytes: Bytes,
    sent: bool,
    acked: bool,
}

/// A producer.
pub struct Producer {
    client: usize,
    topic: String,
    index: u32,
    idempotent: bool,
    all: bool,
    /// Batches from the first without an answer on, at most.
    window: usize,
    eager: bool,
    epoch: i16,
    /// The record whose sequence number is 0 in this epoch.
    base: u64,
    /// There is a gap in the log, as an answer has told.
    gap: bool,
    doubtful_until: i64,
    /// Raised when its topic was deleted: another key, beginning with record 0.
    generation: u64,
    target: Option<PartitionId>,
    next: u64,
    unacked: VecDeque<Batch>,
    /// By attempt: the first number of the batch, and until when its answer is waited for.
    in_flight: BTreeMap<u64, (u64, i64)>,
    leader: Option<usize>,
    /// An attempt failed: no other is made before all of them are over.
    failed: bool,
    /// One batch at a time: nothing was acknowledged since the last failure.
    careful: bool,
    again_at: i64,
    write_at: i64,
}

impl Producer {
    pub(super) fn new(client: usize, topic: String, index: u32, kind: (bool, bool), window: (usize, bool)) -> Producer {
        let (window, eager) = window;
        let (idempotent, all) = kind;
        Producer {
            client,
            topic,
            index,
            idempotent,
            all,
            window,
            eager,
            epoch: 0,
            base: 0,
            gap: false,
            doubtful_until: 0,
            generation: 0,
            target: None,
            next: 0,
            unacked: VecDeque::new(),
            in_flight: BTreeMap::new(),
            leader: None,
            failed: false,
            careful: true,
            again_at: 0,
            write_at: 0,
        }
    }

    /// The key of its records: `i` where each is stored once.
    fn key(&self) -> String {
        format!("{}{}.{}", if self.idempotent { "i" } else { "p" }, self.client, self.generation)
    }

    fn id(&self) -> i64 {
        i64::try_from(self.client as u64 * 1000 + self.generation).unwrap_or(0)
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.unacked.is_empty()
    }

    /// For a person who asks why it is not.
    #[must_use]
    pub fn state(&self) -> String {
        let Producer { target, leader, failed, careful, .. } = self;
        let numbers = self.unacked.front().map(|batch| batch.numbers);
        format!("producer {} waits for {numbers:?} of {target:?} at {leader:?}, {failed} {careful}", self.key())
    }

    fn write(&mut self, records: u64) {
        let numbers = (self.next, self.next + records - 1);
        self.next += records;
        self.unacked.push_back(Batch { numbers, bytes: self.batch(numbers), sent: false, acked: false });
    }

    fn batch(&self, numbers: (u64, u64)) -> Bytes {
        let values: Vec<String> = (numbers.0..=numbers.1).map(|number| format!("{number:06}")).collect();
        let sequence = i32::try_from(numbers.0 - self.base).unwrap_or(0);
        build(&self.key(), &values, self.idempotent.then(|| (self.id(), self.epoch, sequence)))
    }

    /// Begins a new epoch, when there is a gap and nothing that was sent can come late. What was acknowledged is not sent again.
    fn begin_epoch(&mut self, now: i64) {
        let gap = std::mem::take(&mut self.gap);
        let Some(first) = self.unacked.front().map(|batch| batch.numbers.0) else { return };
        if !gap || now < self.doubtful_until || self.unacked.iter().any(|batch| batch.acked) {
            return;
        }
        (self.epoch, self.base) = (self.epoch + 1, first);
        for at in 0..self.unacked.len() {
            let bytes = self.batch(self.unacked[at].numbers);
            self.unacked[at].bytes = bytes;
        }
    }

    /// Its topic is gone: another one of that name is begun with anew.
    fn forget(&mut self) {
        self.generation += 1;
        (self.epoch, self.base, self.gap) = (0, 0, false);
        self.target = None;
        self.next = 0;
        self.unacked.clear();
        self.in_flight.clear();
        self.leader = None;
        self.failed = false;
        self.careful = true;
    }
}

impl World {
    /// A producer's timer: there is something to write, or something was not answered.
    pub(crate) fn producer_goes_on(&mut self, client: usize) {
        let think = self.within(10, i64::try_from(self.profile.think_ms).unwrap_or(100));
        self.queue.at(self.now + think.min(200), Event::Producer { client });
        let (now, healing) = (self.now, self.healing);
        let records = 1 + self.random.below(3);
        let producer = &mut self.producers[client];
        let before = producer.in_flight.len();
        producer.in_flight.retain(|_, (_, until)| *until > now);
        if producer.in_flight.len() < before {
            producer.failed = true;
            producer.doubtful_until = now + DOUBT_MS;
        }
        if !healing && now >= producer.write_at && producer.unacked.len() < producer.window {
            producer.write_at = now + think;
            let first = producer.next;
            producer.write(records);
            self.truth.made(producer.key(), first);
        }
        self.pump(client);
    }

    /// Sends what is to be sent.
    fn pump(&mut self, client: usize) {
        let now = self.now;
        let producer = &mut self.producers[client];
        if producer.failed {
            if !producer.in_flight.is_empty() || now < producer.again_at {
                return;
            }
            producer.failed = false;
            producer.careful |= !producer.eager;
            producer.leader = None;
            producer.begin_epoch(now);
            producer.unacked.iter_mut().for_each(|batch| batch.sent = batch.acked);
        }
        if producer.leader.is_none() {
            self.find_leader(client);
        }
        let producer = &self.producers[client];
        let (Some(leader), Some(partition)) = (producer.leader, producer.target) else { return };
        let window = if producer.careful { 1 } else { producer.window };
        let (all, room) = (producer.all, window.saturating_sub(producer.in_flight.len()));
        for _ in 0..room {
            let attempt = self.number();
            let producer = &mut self.producers[client];
            let Some(batch) = producer.unacked.iter_mut().find(|batch| !batch.sent) else { return };
            batch.sent = true;
            let (numbers, batch) = (batch.numbers, batch.bytes.clone());
            producer.in_flight.insert(attempt, (numbers.0, now + WAIT_MS));
            let produce = Message::Produce(Produce { partition, batch, all, attempt, numbers });
            self.send(Peer::Producer(client), Peer::Node(leader), produce);
        }
    }

    /// Asks any node who leads: what it knows may be old.
    fn find_leader(&mut self, client: usize) {
        let asked = self.draw(self.nodes.len());
        let (me, now) = (Peer::Producer(client), self.now);
        if !self.nodes[asked].is_up(now) || !self.network.joins(me, Peer::Node(asked)) {
            return;
        }
        let image = &self.nodes[asked].image;
        let producer = &mut self.producers[client];
        let named = image.topic_named(&producer.topic);
        if let Some(target) = producer.target {
            let is_gone = self.quorum.image.topic(target.topic).is_none();
            if is_gone {
                producer.forget();
            }
        }
        let Some(topic) = named.filter(|topic| producer.target.is_none_or(|target| target.topic == topic.id)) else {
            return;
        };
        let count = u32::try_from(topic.partitions.len()).unwrap_or(1).max(1);
        let target = *producer.target.get_or_insert(PartitionId { topic: topic.id, index: producer.index % count });
        producer.leader = topic.partition(target.index).and_then(|state| state.leader).map(place_of);
    }

    pub(crate) fn producer_hears(&mut self, client: usize, message: Message) {
        let Message::Produced { attempt, outcome } = message else { return };
        let again_at = self.now + self.within(20, 200);
        let producer = &mut self.producers[client];
        let Some((first, _)) = producer.in_flight.remove(&attempt) else { return };
        match outcome {
            Ok(_) => {
                producer.careful = false;
                // No further ahead of one that is not acknowledged than the log remembers.
                if let Some(batch) = producer.unacked.iter_mut().find(|batch| batch.numbers.0 == first) {
                    batch.acked = true;
                }
                while producer.unacked.pop_front_if(|batch| batch.acked).is_some() {}
            }
            Err(Refused::By(
                error @ (AppendError::ProducerFenced | AppendError::Corrupt(_) | AppendError::Invalid(_)),
            )) => {
                let what = format!("{} was refused: {error}", producer.state());
                self.fail(what);
            }
            Err(error) => {
                let is_gap = matches!(error, Refused::By(AppendError::OutOfOrderSequence));
                let is_first = producer.unacked.front().is_some_and(|batch| batch.numbers.0 == first);
                producer.gap |= producer.eager && is_gap && !is_first;
                producer.failed = true;
                producer.again_at = again_at;
            }
        }
        self.pump(client);
    }
}
