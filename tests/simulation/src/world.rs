//! The world: everything that is, and the loop that takes one event after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forebay_disk::sim::Random;
use forebay_log::flaws::Flaw;
use forebay_log::replication::PartitionId;

use crate::check::Truth;
use crate::clients::{Admin, Consumer, Member, Producer};
use crate::message::{Message, Peer};
use crate::network::Network;
use crate::node::Node;
use crate::options::{Options, Profile};
use crate::queue::{Event, Mend, Queue};
use crate::quorum::Quorum;
use crate::services::store::Store;
use crate::trace::Trace;

/// What the wall clocks show when everything begins: 2026-01-01.
pub const EPOCH_MS: i64 = 1_767_225_600_000;
/// How long the cluster has to become whole after the last fault, in milliseconds.
const HEAL_MS: i64 = 200_000;
/// Most events of one run: more is a circle.
const MOST_EVENTS: u64 = 2_000_000;

/// What a run leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    /// Records that were acknowledged by all in-sync replicas.
    pub acked: usize,
    pub elections: u64,
    pub crashes: u64,
    /// When everything was whole again, after the last fault, in milliseconds.
    pub healed_in: i64,
    /// Every file of every disk.
    pub disks: Vec<(PathBuf, Vec<u8>)>,
}

/// The world.
pub struct World {
    pub now: i64,
    pub random: Random,
    pub queue: Queue,
    pub network: Network,
    pub quorum: Quorum,
    pub nodes: Vec<Node>,
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    pub members: Vec<Member>,
    /// The group's offsets that were acknowledged, by partition.
    pub group_acked: BTreeMap<u32, i64>,
    pub admin: Admin,
    pub truth: Truth,
    pub store: Store,
    pub profile: Profile,
    pub flaw: Option<Flaw>,
    pub trace: Trace,
    /// Faults have ended.
    pub healing: bool,
    pub crashes: u64,
    /// Of requests, sessions and attempts.
    pub numbers: u64,
    /// Partitions to look at when the event is over.
    pub touched: BTreeMap<PartitionId, ()>,
    failure: Option<String>,
}

impl World {
    #[must_use]
    pub fn new(options: &Options) -> World {
        let mut random = Random::new(options.seed.wrapping_mul(0x9e37_79b9).wrapping_add(11));
        let profile = Profile::draw(options, &mut random);
        let network = Network::of(&profile);
        let nodes = (0..profile.nodes).map(|place| Node::new(place, options.seed)).collect();
        let mut world = World {
            now: 0,
            random,
            queue: Queue::default(),
            network,
            quorum: Quorum::default(),
            nodes,
            producers: Vec::new(),
            consumers: Vec::new(),
            members: Vec::new(),
            group_acked: BTreeMap::new(),
            admin: Admin::default(),
            truth: Truth::default(),
            store: Store::default(),
            flaw: options.flaw,
            trace: Trace { on: options.trace },
            healing: false,
            crashes: 0,
            numbers: 0,
            touched: BTreeMap::new(),
            failure: None,
            profile,
        };
        let profile = world.profile.clone();
        world.trace.tell(0, || format!("{profile:?}"));
        for node in 0..world.nodes.len() {
            world.queue.at(0, Event::Start { node });
        }
        world.queue.at(10, Event::Quorum);
        world.begin_clients();
        world.begin_members();
        world.queue.at(4000, Event::Trouble);
        world
    }

    /// Runs until the end.
    ///
    /// # Errors
    /// What did not hold, and when.
    pub fn run(mut self) -> Result<Report, String> {
        let mut events = 0;
        let chaos_ends = 4000 + self.profile.chaos_ms;
        let mut looked_at = 0;
        while let Some((time, event)) = self.queue.pop() {
            self.now = self.now.max(time);
            events += 1;
            if !self.healing && self.now >= chaos_ends {
                self.heal();
                looked_at = self.now;
            }
            self.happen(event);
            self.check_touched();
            if let Some(what) = self.failed() {
                return Err(format!("at {} ms: {what}", self.now));
            }
            if self.healing && self.now >= looked_at + 1000 {
                looked_at = self.now;
                let whole = self.check_whole();
                if let Some(what) = self.failed() {
                    return Err(format!("at {} ms: {what}", self.now));
                }
                match whole {
                    Ok(()) => {
                        self.check_end().map_err(|what| format!("at the end: {what}"))?;
                        return Ok(self.report(events, self.now - chaos_ends));
                    }
                    Err(why) if self.now > chaos_ends + HEAL_MS => {
                        return Err(format!("not whole {HEAL_MS} ms after the last fault: {why}"));
                    }
                    Err(_) => {}
                }
            }
            if events > MOST_EVENTS {
                return Err(format!("at {} ms: more than {MOST_EVENTS} events", self.now));
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn report(&self, events: u64, healed_in: i64) -> Report {
        let disk = |(place, node): (usize, &Node)| {
            let files = node.files.contents().into_iter();
            files.map(move |(path, bytes)| (PathBuf::from(place.to_string()).join(path), bytes)).collect::<Vec<_>>()
        };
        Report {
            events,
            acked: self.truth.acked_count(),
            elections: self.quorum.term,
            crashes: self.crashes,
            healed_in,
            disks: self.nodes.iter().enumerate().flat_map(disk).collect(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, life, message } => self.deliver(from, to, life, message),
            Event::Turn { node, life } => self.on_node((node, life), Event::Turn { node, life }, World::turn),
            Event::Tick { node, life } => self.on_node((node, life), Event::Tick { node, life }, World::tick),
            Event::Start { node } => self.start(node),
            Event::Quorum => self.quorum_tick(),
            Event::Commit { node, term } => {
                if let Some(until) = self.nodes[node].paused_until.filter(|until| *until > self.now) {
                    return self.queue.at(until, Event::Commit { node, term });
                }
                self.commit_proposed(node, term);
            }
            Event::Producer { client } => self.producer_goes_on(client),
            Event::Consumer { client } => self.consumer_goes_on(client),
            Event::Member { client } => self.member_goes_on(client),
            Event::Store { asker, work } => self.store_works(asker, *work),
            Event::Stored { asker, work, result } => self.store_answers(asker, *work, result),
            Event::Trouble => self.trouble(),
            Event::Mend(Mend::Cut(cut)) => self.network.mend(cut),
            Event::Mend(Mend::Disk(node)) => self.mend_disk(node),
            Event::Mend(Mend::Drain(id)) => self.end_drain(id),
        }
    }

    /// An event of a node's process: later when that is paused, never when it is not there any more.
    fn on_node(&mut self, (node, life): (usize, u64), event: Event, act: fn(&mut World, usize)) {
        let known = &self.nodes[node];
        if known.life != life || known.live.is_none() {
            return;
        }
        match known.paused_until.filter(|until| *until > self.now) {
            Some(until) => self.queue.at(until, event),
            None => act(self, node),
        }
    }

    fn deliver(&mut self, from: Peer, to: Peer, life: u64, message: Message) {
        if self.network.is_cut(from, to) {
            return self.lost(from, to, &message);
        }
        if let Peer::Node(node) = to {
            if self.nodes[node].life != life || self.nodes[node].live.is_none() {
                return;
            }
            if let Some(until) = self.nodes[node].paused_until.filter(|until| *until > self.now) {
                return self.queue.at(until, Event::Deliver { from, to, life, message });
            }
        }
        let now = self.now;
        self.trace.tell(now, || format!("{from:?} -> {to:?}: {}", message.told()));
        match to {
            Peer::Node(node) => self.node_hears(node, from, message),
            Peer::Producer(client) => self.producer_hears(client, message),
            Peer::Consumer(client) => self.consumer_hears(client, message),
            Peer::Member(client) => self.member_hears(client, message),
            Peer::Admin => {}
        }
    }

    pub(crate) fn send(&mut self, from: Peer, to: Peer, message: Message) {
        if self.network.is_cut(from, to) {
            return self.lost(from, to, &message);
        }
        let life = match to {
            Peer::Node(node) => self.nodes[node].life,
            _ => 0,
        };
        if from == to {
            return self.queue.at(self.now, Event::Deliver { from, to, life, message });
        }
        let arrivals = self.network.arrivals(&mut self.random, self.now, (from, to), message.is_ordered());
        if arrivals.is_empty() {
            self.lost(from, to, &message);
        }
        for at in arrivals {
            self.queue.at(at, Event::Deliver { from, to, life, message: message.clone() });
        }
    }

    /// A message does not arrive. One that nobody answers is lost with its connection only, and the pulls on that with it.
    fn lost(&mut self, from: Peer, to: Peer, message: &Message) {
        if let (Peer::Node(follower), Peer::Node(leader), Message::Ends { .. }) = (from, to, message) {
            self.lose_pulls(follower, leader);
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// What was found to be wrong, if anything.
    pub(crate) fn failed(&mut self) -> Option<String> {
        self.failure.take()
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A number below `limit`.
    pub(crate) fn draw(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap_or(0)
    }

    /// A time from now, in milliseconds.
    pub(crate) fn within(&mut self, least: i64, most: i64) -> i64 {
        least + i64::try_from(self.random.below((most - least).max(0).unsigned_abs() + 1)).unwrap_or(0)
    }
}
