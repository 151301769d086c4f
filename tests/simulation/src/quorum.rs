//! The metadata quorum as its library promises it: one log of entries in one order, a leader for each term, an entry committed only by
//! the leader of the highest term with a majority. A leader of the past may go on believing that it leads; an entry of
//! its last moments may be committed by its successor, so that nobody hears an answer.

use std::collections::BTreeSet;

use forebay_log::cluster::controller::{Controller, Limits};
use forebay_log::cluster::{Image, Record, Refusal, Reply, Request, invariants};
use forebay_log::units::MetadataVersion;
use forebay_log::{Millis, NodeId};
use uuid::Uuid;

use crate::message::{Message, Peer};
use crate::queue::Event;
use crate::world::World;

/// Records decided together.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The version of the image that they were decided on.
    pub base: MetadataVersion,
    pub records: Vec<Record>,
}

/// What is committed, and who leads.
#[derive(Default)]
pub struct Quorum {
    pub entries: Vec<Entry>,
    /// Made of all entries.
    pub image: Image,
    pub term: u64,
    pub leader: Option<usize>,
    /// Since when the leader has had no majority.
    pub lost_since: Option<i64>,
    /// Proposed by the last leader, and not committed when it was superseded.
    orphan: Option<Entry>,
}

/// Who asked, its number of the request, and what to answer.
pub type Owed = (Peer, u64, Result<Reply, Refusal>);

/// A batch on its way to the quorum, or gathering.
#[derive(Debug)]
pub struct Batch {
    pub entry: Entry,
    pub owed: Vec<Owed>,
}

/// A controller that believes that it is the active one.
pub struct Active {
    pub term: u64,
    pub controller: Controller,
    pub in_flight: Option<Batch>,
    pub gathering: Option<Batch>,
}

impl World {
    pub(crate) fn majority(&self, node: usize) -> bool {
        let reaches = |other: usize| {
            other == node
                || self.nodes[other].is_up(self.now) && self.network.joins(Peer::Node(node), Peer::Node(other))
        };
        self.nodes[node].is_up(self.now)
            && (0..self.nodes.len()).filter(|&other| reaches(other)).count() * 2 > self.nodes.len()
    }

    /// Looks after the leadership of the quorum.
    pub(crate) fn quorum_tick(&mut self) {
        self.queue.at(self.now + 100, Event::Quorum);
        let leads = |leader: usize| {
            let active = self.nodes[leader].live.as_ref().and_then(|live| live.active.as_ref());
            active.is_some_and(|active| active.term == self.quorum.term) && self.majority(leader)
        };
        let holds = self.quorum.leader.is_some_and(leads);
        if holds {
            self.quorum.lost_since = None;
            if self.random.chance(2) && !self.healing {
                // Now and then another node takes over for no reason.
                self.elect();
            }
            return;
        }
        let since = *self.quorum.lost_since.get_or_insert(self.now);
        let patience = 300 + i64::try_from(self.random.below(700)).unwrap_or(0);
        if self.now - since >= patience {
            self.elect();
        }
    }

    fn elect(&mut self) {
        let able: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.majority(node)).collect();
        let Some(&node) = able.get(usize::try_from(self.random.below(able.len() as u64)).unwrap_or(0)) else { return };
        let before = self.quorum.leader;
        if before == Some(node) && self.nodes[node].live.as_ref().is_some_and(|live| live.active.is_some()) {
            return;
        }
        if let Some(in_flight) = before
            .and_then(|before| self.nodes[before].live.as_ref())
            .and_then(|live| live.active.as_ref())
            .filter(|active| active.term == self.quorum.term)
            .and_then(|active| active.in_flight.as_ref())
        {
            self.quorum.orphan = Some(in_flight.entry.clone());
        }
        self.quorum.term += 1;
        self.quorum.leader = Some(node);
        self.quorum.lost_since = None;
        let (term, now) = (self.quorum.term, self.now);
        self.trace.tell(now, || format!("quorum: node {node} leads term {term}"));
        if let Some(orphan) = self.quorum.orphan.take().filter(|_| self.random.chance(500)) {
            self.commit(orphan);
        }
        self.learn(node, term, self.quorum.entries.len(), node);
        self.begin_controller(node);
    }

    /// The leader of the quorum runs the controller.
    fn begin_controller(&mut self, node: usize) {
        let limits = Limits {
            session_timeout: self.profile.session_timeout,
            balance_interval: 20_000,
            balance_after_return: 5000,
            drain_moves: 3,
            ..Limits::default()
        };
        let voters: BTreeSet<NodeId> = (0..self.nodes.len()).map(id_of).collect();
        let steady = self.steady(node);
        let controller = Controller::new(self.quorum.image.clone(), limits, voters, steady);
        let term = self.quorum.term;
        if let Some(live) = &mut self.nodes[node].live {
            live.active = Some(Active { term, controller, in_flight: None, gathering: None });
        }
        if self.quorum.image.cluster().is_none() {
            let nodes = (0..self.nodes.len()).map(id_of).collect();
            let request = Request::CreateCluster { id: Uuid::from_u128(7), nodes };
            self.ask_controller(node, Peer::Admin, 0, request);
        }
        self.announce(node);
    }

    /// Tells every node who leads and what is committed.
    pub(crate) fn announce(&mut self, node: usize) {
        let Some(active) = self.nodes[node].live.as_ref().and_then(|live| live.active.as_ref()) else { return };
        let term = active.term;
        let is_leader = self.quorum.term == term && self.quorum.leader == Some(node);
        let commit = if is_leader { self.quorum.entries.len() } else { self.nodes[node].applied };
        for other in 0..self.nodes.len() {
            self.send(Peer::Node(node), Peer::Node(other), Message::Lead { term, commit });
        }
    }

    /// The node's own steady clock: every machine has begun to count at another time.
    pub(crate) fn steady(&self, node: usize) -> Millis {
        Millis(self.now + 1_000_000 * i64::try_from(node).unwrap_or(0))
    }

    /// Has this node's controller decide on a request.
    pub(crate) fn ask_controller(&mut self, node: usize, from: Peer, id: u64, request: Request) {
        let steady = self.steady(node);
        let Some(active) = self.nodes[node].live.as_mut().and_then(|live| live.active.as_mut()) else {
            return self.send(Peer::Node(node), from, Message::Answer { id, answer: None });
        };
        let base = active.controller.image().version();
        let mut records = Vec::new();
        let reply = active.controller.handle(steady, request, &mut records);
        self.decided(node, base, records, Some((from, id, reply)));
    }

    /// Lets this node's controller see that time has passed.
    pub(crate) fn tick_controller(&mut self, node: usize) {
        let steady = self.steady(node);
        let Some(active) = self.nodes[node].live.as_mut().and_then(|live| live.active.as_mut()) else { return };
        let base = active.controller.image().version();
        let mut records = Vec::new();
        active.controller.tick(steady, &mut records);
        self.decided(node, base, records, None);
    }

    fn decided(&mut self, node: usize, base: MetadataVersion, records: Vec<Record>, owed: Option<Owed>) {
        let Some(active) = self.nodes[node].live.as_mut().and_then(|live| live.active.as_mut()) else { return };
        if records.is_empty() && active.in_flight.is_none() && active.gathering.is_none() {
            if let Some((to, id, reply)) = owed {
                self.send(Peer::Node(node), to, Message::Answer { id, answer: Some(Box::new(reply)) });
            }
            return;
        }
        let empty = || Batch { entry: Entry { base, records: Vec::new() }, owed: Vec::new() };
        let batch = active.gathering.get_or_insert_with(empty);
        batch.entry.records.extend(records);
        batch.owed.extend(owed);
        self.propose(node);
    }

    /// Sends what has gathered to the quorum, when nothing is on its way.
    fn propose(&mut self, node: usize) {
        let Some(active) = self.nodes[node].live.as_mut().and_then(|live| live.active.as_mut()) else { return };
        if active.in_flight.is_none() && active.gathering.is_some() {
            active.in_flight = active.gathering.take();
            let term = active.term;
            let trip = 1 + i64::try_from(self.random.below(2 * self.network.delay_ms + 2)).unwrap_or(0);
            self.queue.at(self.now + trip, Event::Commit { node, term });
        }
    }

    /// The proposal of a controller has come to the quorum.
    pub(crate) fn commit_proposed(&mut self, node: usize, term: u64) {
        let is_asked = |active: &&mut Active| active.term == term && active.in_flight.is_some();
        let is_leader = self.quorum.term == term && self.quorum.leader == Some(node);
        let majority = self.majority(node);
        let Some(active) = self.nodes[node].live.as_mut().and_then(|live| live.active.as_mut()).filter(is_asked) else {
            return;
        };
        if !is_leader {
            // Its last proposals get no answer.
            self.step_down(node);
            return;
        }
        if !majority {
            self.queue.at(self.now + 50, Event::Commit { node, term });
            return;
        }
        let Some(Batch { entry, owed }) = active.in_flight.take() else { return };
        self.commit(entry);
        for (to, id, reply) in owed {
            self.send(Peer::Node(node), to, Message::Answer { id, answer: Some(Box::new(reply)) });
        }
        self.announce(node);
        self.propose(node);
    }

    pub(crate) fn step_down(&mut self, node: usize) {
        if let Some(live) = &mut self.nodes[node].live {
            live.active = None;
        }
    }

    fn commit(&mut self, entry: Entry) {
        let before = self.quorum.image.clone();
        let now = self.now;
        if entry.records.is_empty() {
            return;
        }
        if entry.base != before.version() {
            // Decided on another image: applies as nothing.
            self.trace.tell(now, || format!("quorum: an entry on {} is void", entry.base));
            return;
        }
        self.trace.tell(now, || format!("quorum: entry {} {:?}", self.quorum.entries.len(), entry.records));
        for record in &entry.records {
            self.quorum.image.apply(record);
        }
        let after = &self.quorum.image;
        let checked = invariants::check_settled(after)
            .and_then(|()| if before.cluster().is_some() { invariants::check_step(&before, after) } else { Ok(()) });
        if let Err(what) = checked {
            self.fail(format!("the image is broken: {what}"));
        }
        let changed: Vec<_> = entry
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Partition { topic, index, .. } => Some((*topic, *index)),
                _ => None,
            })
            .collect();
        self.quorum.entries.push(entry);
        for (topic, index) in changed {
            self.check_in_sync(forebay_log::replication::PartitionId { topic, index });
        }
    }
}

/// The cluster's id of the node at this place.
#[must_use]
pub fn id_of(node: usize) -> NodeId {
    NodeId(i32::try_from(node).unwrap_or(0))
}

/// The place of a node.
#[must_use]
pub fn place_of(id: NodeId) -> usize {
    usize::try_from(id.0).unwrap_or(0)
}
