//! A node: its disk, which outlives it, and its process with all that drives the machines.

mod apply;
mod control;
mod replicate;
mod serve;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use forebay_disk::sim::SimFiles;
use forebay_disk::{IsrProposal, Log, LogOptions, Observer, Partition, Watermarks};
use forebay_log::cluster::Image;
use forebay_log::replication::{Feed, PartitionId, Puller};
use forebay_log::{Epoch, Incarnation, Millis};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::queue::Event;
use crate::quorum::Active;
use crate::services::groups::Coordinator;
use crate::services::{Service, ServiceId};
use crate::world::{EPOCH_MS, World};

pub(crate) use apply::Role;
pub(crate) use control::{Asked, Proposal};
pub(crate) use tasks::{Done, Task};

/// How often a node looks at its timers, in milliseconds.
const TICK_MS: i64 = 100;

/// A node.
pub struct Node {
    pub place: usize,
    pub files: SimFiles,
    /// How wrong its wall clock is, in milliseconds.
    pub skew: i64,
    /// Which process of it this is.
    pub life: u64,
    pub live: Option<Box<Live>>,
    /// It does nothing before this.
    pub paused_until: Option<i64>,
    /// Its disk has only so much room now.
    pub full: bool,
    /// It hears of no metadata before this.
    pub deaf_until: i64,
    /// Entries of the metadata that it has applied, and the image that they make: durable.
    pub applied: usize,
    pub image: Image,
    /// Its data directory is lost with its disk only.
    pub directory: uuid::Uuid,
}

/// A node's process.
pub struct Live {
    pub log: Log,
    pub steps: forebay_disk::sim::Steps,
    pub incarnation: Incarnation,
    pub since: Option<forebay_log::MetadataVersion>,
    /// The highest term heard of, and who leads it.
    pub hint: (u64, Option<usize>),
    pub active: Option<Active>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) roles: BTreeMap<PartitionId, Role>,
    pub partitions: BTreeMap<PartitionId, Arc<Partition>>,
    pub(crate) pullers: BTreeMap<usize, Pulls>,
    pub(crate) feeds: BTreeMap<usize, Fed>,
    pub(crate) asks: BTreeMap<u64, Asked>,
    pub(crate) proposals: BTreeMap<PartitionId, Proposal>,
    pub(crate) proposed: UnboundedReceiver<IsrProposal>,
    pub(crate) moved: Arc<Moved>,
    pub(crate) services: BTreeMap<ServiceId, Service>,
    pub(crate) coordinator: Option<Box<Coordinator>>,
    pub(crate) turn_due: bool,
    pub(crate) heartbeat_at: i64,
    pub(crate) second_at: i64,
    pub(crate) keep_at: i64,
    pub(crate) wants_shutdown: bool,
    /// The epochs in which it was seen to lead.
    pub(crate) led: BTreeMap<PartitionId, Epoch>,
}

/// A session with a leader.
pub(crate) struct Pulls {
    pub(crate) puller: Puller,
    /// Pulls without an answer, by session and sequence: until when they are waited for, and whether their connection is gone.
    pub(crate) waiting: BTreeMap<(u64, u32), (i64, bool)>,
}

/// A follower's session with this node.
pub(crate) struct Fed {
    pub(crate) incarnation: Incarnation,
    pub(crate) feed: Feed,
    /// Pulls to answer, and when at the latest.
    pub(crate) waiting: VecDeque<(u64, u32, i64)>,
}

/// Partitions whose watermarks have moved.
#[derive(Default)]
pub(crate) struct Moved(Mutex<Vec<(String, u32)>>);

impl Moved {
    pub(crate) fn take(&self) -> Vec<(String, u32)> {
        self.0.lock().map(|mut moved| std::mem::take(&mut *moved)).unwrap_or_default()
    }
}

impl Observer for Moved {
    fn moved(&self, topic: &str, partition: u32, _: &Watermarks) {
        if let Ok(mut moved) = self.0.lock() {
            moved.push((topic.to_owned(), partition));
        }
    }
}

impl Node {
    #[must_use]
    pub fn new(place: usize, seed: u64) -> Node {
        let disk_seed = seed.wrapping_mul(1_000_003).wrapping_add(place as u64);
        Node {
            place,
            files: SimFiles::new(disk_seed),
            skew: 0,
            life: 0,
            live: None,
            paused_until: None,
            full: false,
            deaf_until: 0,
            applied: 0,
            image: Image::default(),
            directory: uuid::Uuid::from_u128(0x1000 + place as u128),
        }
    }

    /// Whether its process is there and does something.
    #[must_use]
    pub fn is_up(&self, now: i64) -> bool {
        self.live.is_some() && self.paused_until.is_none_or(|until| until <= now)
    }

    #[must_use]
    pub fn wall(&self, now: i64) -> Millis {
        Millis(EPOCH_MS + now + self.skew)
    }
}

impl World {
    /// A process of the node starts.
    pub(crate) fn start(&mut self, place: usize) {
        let now = self.now;
        let image_back = self.draw(10);
        let node = &mut self.nodes[place];
        if node.live.is_some() {
            return;
        }
        node.life += 1;
        node.paused_until = None;
        node.files.set_clock(node.wall(now).0);
        // It has what it had stored of the metadata, but does not know how much of that is committed.
        let applied = node.applied.saturating_sub(image_back);
        if applied < node.applied {
            node.applied = applied;
            node.image = Image::default();
            for entry in &self.quorum.entries[..applied] {
                entry.records.iter().for_each(|record| node.image.apply(record));
            }
        }
        let options = LogOptions { shards: 2, fsync: true, alone: false };
        let number = u32::try_from(place).unwrap_or(0) + 1;
        let files = Arc::new(node.files.clone());
        let (log, steps) = match Log::open_stepped(number, files, options, node.wall(now)) {
            Ok(opened) => opened,
            Err(error) => {
                self.trace.tell(now, || format!("node {place} does not start: {error}"));
                let text = error.to_string();
                if !text.contains("os error 5") && !text.contains("disk full") && !text.contains("Input/output") {
                    self.fail(format!("node {place} does not start: {text}"));
                }
                let again = now + 500;
                return self.queue.at(again, Event::Start { node: place });
            }
        };
        let Some(proposed) = log.isr_proposals() else { return };
        let life = node.life;
        node.live = Some(Box::new(Live {
            log,
            steps,
            incarnation: Incarnation(life),
            since: None,
            hint: (0, None),
            active: None,
            tasks: Vec::new(),
            roles: BTreeMap::new(),
            partitions: BTreeMap::new(),
            pullers: BTreeMap::new(),
            feeds: BTreeMap::new(),
            asks: BTreeMap::new(),
            proposals: BTreeMap::new(),
            proposed,
            moved: Arc::default(),
            services: BTreeMap::new(),
            coordinator: None,
            turn_due: false,
            heartbeat_at: 0,
            second_at: now,
            keep_at: now,
            wants_shutdown: false,
            led: BTreeMap::new(),
        }));
        self.trace.tell(now, || format!("node {place} starts, life {life}"));
        self.take_partitions(place);
        self.wake(place);
        self.queue.at(now, Event::Tick { node: place, life });
    }

    /// The process ends at once, and what was not synced is lost.
    pub(crate) fn crash(&mut self, place: usize) {
        let now = self.now;
        if self.nodes[place].live.is_none() {
            return;
        }
        self.crashes += 1;
        if self.random.chance(500) {
            // In the middle of what its disk does; nobody hears of it.
            let stop_after = Some(self.random.below(12));
            let node = &mut self.nodes[place];
            node.files.set_faults(forebay_disk::sim::Faults { stop_after, ..Default::default() });
            let wall = node.wall(now);
            if let Some(live) = &mut node.live {
                tasks::poll(&mut live.tasks);
                live.steps.step(wall);
            }
        }
        self.trace.tell(now, || format!("node {place} crashes"));
        let node = &mut self.nodes[place];
        node.live = None;
        node.paused_until = None;
        node.files.crash();
    }

    /// The process ends in order.
    pub(crate) fn stop(&mut self, place: usize) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let wall = node.wall(now);
        let Some(live) = &mut node.live else { return };
        while live.steps.step(wall) {}
        if live.steps.flush().is_ok() {
            live.steps.keep();
        }
        node.live = None;
        // And then the power goes.
        node.files.crash();
        self.trace.tell(now, || format!("node {place} has shut down"));
        let back = now + self.within(200, 4000);
        self.queue.at(back, Event::Start { node: place });
    }

    /// The node's shards have something to do.
    pub(crate) fn wake(&mut self, place: usize) {
        let disk = 1 + i64::try_from(self.random.below(self.profile.disk_ms)).unwrap_or(0);
        let at = self.now + disk;
        let node = &mut self.nodes[place];
        let life = node.life;
        if let Some(live) = node.live.as_mut().filter(|live| !live.turn_due) {
            live.turn_due = true;
            self.queue.at(at, Event::Turn { node: place, life });
        }
    }

    /// What has gathered is given to the shards, and what they answer goes where it belongs.
    pub(crate) fn turn(&mut self, place: usize) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let wall = node.wall(now);
        node.files.set_clock(wall.0);
        let Some(live) = &mut node.live else { return };
        live.turn_due = false;
        let mut done = tasks::poll(&mut live.tasks);
        let worked = live.steps.step(wall);
        done.extend(tasks::poll(&mut live.tasks));
        let more = worked || !done.is_empty();
        for done in done {
            self.task_done(place, done);
        }
        self.follow_moves(place);
        self.take_proposals(place);
        if more {
            self.wake(place);
        }
    }

    /// Timers.
    pub(crate) fn tick(&mut self, place: usize) {
        let now = self.now;
        let life = self.nodes[place].life;
        self.queue.at(now + TICK_MS, Event::Tick { node: place, life });
        let node = &mut self.nodes[place];
        let wall = node.wall(now);
        node.files.set_clock(wall.0);
        if let Some(live) = &mut node.live {
            if now >= live.second_at {
                live.second_at = now + 1000;
                live.steps.tick(wall);
            }
            if now >= live.keep_at {
                live.keep_at = now + 3000;
                live.steps.step(wall);
                live.steps.keep();
            }
        }
        self.tick_control(place);
        self.reconcile(place);
        self.tick_pulls(place);
        self.tick_controller(place);
        self.tick_services(place);
        self.tick_coordinator(place);
        if self.nodes[place].live.as_ref().is_some_and(|live| live.active.is_some()) && now % 300 < TICK_MS {
            self.announce(place);
        }
        self.follow_moves(place);
        self.take_proposals(place);
        self.wake(place);
    }

    pub(crate) fn live(&mut self, place: usize) -> Option<&mut Live> {
        self.nodes[place].live.as_deref_mut()
    }

    pub(crate) fn spawn(&mut self, place: usize, task: impl Future<Output = Done> + 'static) {
        if let Some(live) = self.live(place) {
            live.tasks.push(Box::pin(task));
        }
        self.wake(place);
    }

    /// What has moved in the node's partitions is looked at, and those that follow it hear of it.
    pub(crate) fn follow_moves(&mut self, place: usize) {
        let Some(live) = self.live(place) else { return };
        let moved = live.moved.take();
        if moved.is_empty() {
            return;
        }
        let mut ids = Vec::new();
        for (topic, index) in moved {
            if let Some(id) = live.log.topic(&topic).map(|topic| PartitionId { topic: topic.id, index }) {
                ids.push(id);
            }
        }
        for id in &ids {
            for fed in live.feeds.values_mut() {
                fed.feed.moved(*id);
            }
        }
        self.touched.extend(ids.iter().map(|id| (*id, ())));
        for id in ids {
            self.check_reader(place, id);
        }
        self.answer_pulls(place);
    }
}
