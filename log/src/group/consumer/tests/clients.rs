//! A broker and clients that do what real ones do, with all that can go wrong between them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::records::RecordOf;
use super::super::{Catalog, ConsumerGroup, Effect, Heartbeat, Partition, Partitions, Phase, Shape, TopicId};
use crate::Millis;
use crate::group::{GroupError, Limits, Name};

pub(super) const CLIENTS: usize = 5;
const HEARTBEAT: i64 = 5_000;
const REBALANCE: i64 = 20_000;
const TOPICS: [&str; 3] = ["a", "b", "cc"];

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A client begins, or goes on, with what it has to do next.
    Act(usize),
    /// It lets go of what it has to.
    Revoke(usize),
    /// From now on it reads these, or by expression.
    Subscribe(usize, Vec<usize>, Option<&'static str>),
    Crash(usize),
    Leave(usize),
    /// The answer to what it waits for is lost.
    Lose(usize),
    /// The batch on its way becomes durable, or fails to.
    Store(bool),
    Pass(i64),
    /// The broker restarts with what is durable; the batch on its way may be.
    Restart(bool),
    /// A topic has so many partitions from now on; with 0 it is gone.
    Topic(usize, i32),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let reads = prop::collection::vec(0..TOPICS.len(), 0..3);
    let regex = prop_oneof![3 => Just(None), 1 => Just(Some("[ab]")), 1 => Just(Some("c+"))];
    let step = prop_oneof![
        24 => client.clone().prop_map(Step::Act),
        8 => client.clone().prop_map(Step::Revoke),
        1 => (client.clone(), reads, regex).prop_map(|(n, topics, regex)| Step::Subscribe(n, topics, regex)),
        1 => client.clone().prop_map(Step::Crash),
        1 => client.clone().prop_map(Step::Leave),
        2 => client.prop_map(Step::Lose),
        8 => prop::bool::weighted(0.9).prop_map(Step::Store),
        5 => (0..9000i64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => (0..TOPICS.len(), 0..9i32).prop_map(|(topic, count)| Step::Topic(topic, count)),
    ];
    prop::collection::vec(step, 0..200)
}

#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    id: Name,
    pub(super) instance: Option<Name>,
    topics: Vec<Name>,
    regex: Option<Name>,
    /// 0 until it is in.
    epoch: i32,
    /// The heartbeat that it waits for.
    pub(super) waits: Option<u64>,
    /// It has to say everything, for an answer was lost.
    full: bool,
    /// What it was told last.
    told: Partitions,
    /// What it has: more than it was told until it has let go.
    pub(super) holds: Partitions,
    /// What it said last that it has.
    said: Partitions,
    beat_at: Millis,
}

pub(super) struct World {
    group: ConsumerGroup<u64>,
    now: Millis,
    pub(super) clients: Vec<Client>,
    catalog: Catalog,
    token: u64,
    unstored: Option<Vec<(RecordOf, Option<Bytes>)>>,
    durable: BTreeMap<RecordOf, Bytes>,
    answered: BTreeSet<u64>,
    /// The highest epoch that each member was told.
    epochs: BTreeMap<Name, i32>,
    group_epoch: i32,
}

fn topic(number: usize, version: u8, partitions: i32) -> (Name, Shape) {
    let mut id = [number as u8; 16];
    id[0] = version;
    (TOPICS[number].into(), Shape { id: TopicId(id), partitions })
}

impl World {
    pub(super) fn new() -> World {
        let client = |n: usize| Client {
            id: format!("client {n}").into(),
            instance: n.is_multiple_of(2).then(|| format!("static {n}").into()),
            topics: vec!["a".into(), "b".into()],
            ..Client::default()
        };
        let topics = [topic(0, 0, 5), topic(1, 0, 4), topic(2, 0, 3)].into();
        World {
            group: ConsumerGroup::new(Limits::default()),
            now: Millis(0),
            clients: (0..CLIENTS).map(client).collect(),
            catalog: Catalog { version: 1, topics, hidden: BTreeSet::new() },
            token: 0,
            unstored: None,
            durable: BTreeMap::new(),
            answered: BTreeSet::new(),
            epochs: BTreeMap::new(),
            group_epoch: 0,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Act(n) => self.act(n),
            Step::Revoke(n) => {
                let client = &mut self.clients[n];
                client.holds = client.holds.intersection(&client.told).copied().collect();
            }
            Step::Subscribe(n, topics, regex) => {
                let client = &mut self.clients[n];
                client.topics = topics.into_iter().map(|topic| TOPICS[topic].into()).collect();
                client.regex = regex.map(Name::from);
                client.full = true;
            }
            Step::Crash(n) => self.begin_anew(n),
            Step::Leave(n) => {
                let client = &self.clients[n];
                let epoch = if client.instance.is_some() && self.token.is_multiple_of(2) { -2 } else { -1 };
                let beat = self.beat(n, epoch, false);
                self.send(beat);
                self.begin_anew(n);
            }
            Step::Lose(n) => {
                let client = &mut self.clients[n];
                client.full |= client.waits.take().is_some();
            }
            Step::Store(true) => {
                if self.persist() {
                    self.with(|group, _, _, effects| group.stored(effects));
                }
            }
            Step::Store(false) => {
                if self.unstored.take().is_some() {
                    let group = std::mem::replace(&mut self.group, ConsumerGroup::new(Limits::default()));
                    for to in group.abandon() {
                        self.answer(to, Err(GroupError::CoordinatorNotAvailable));
                    }
                    self.restore();
                }
            }
            Step::Pass(ms) => self.pass(ms),
            Step::Restart(durable) => {
                if durable {
                    self.persist();
                }
                self.unstored = None;
                self.restore();
                (0..CLIENTS).for_each(|n| self.step(Step::Lose(n)));
            }
            Step::Topic(number, partitions) => {
                self.catalog.version += 1;
                let before = self.catalog.topics.remove(TOPICS[number]);
                // A topic only grows; smaller, it is another one of the same name.
                let version = before.map_or(self.catalog.version as u8, |shape| {
                    if partitions < shape.partitions { self.catalog.version as u8 } else { shape.id.0[0] }
                });
                if partitions > 0 {
                    self.catalog.topics.extend([topic(number, version, partitions)]);
                }
            }
        }
        self.check();
    }

    pub(super) fn begin_anew(&mut self, n: usize) {
        self.token += 1;
        let Client { instance, topics, regex, .. } = self.clients[n].clone();
        let id = format!("client {n} {}", self.token).into();
        self.clients[n] = Client { id, instance, topics, regex, ..Client::default() };
    }

    /// What a heartbeat of the client would say.
    pub(super) fn beat(&mut self, n: usize, epoch: i32, full: bool) -> Heartbeat<u64> {
        self.token += 1;
        let client = &mut self.clients[n];
        let owned = (full || client.said != client.holds).then(|| client.holds.iter().copied().collect());
        if epoch >= 0 {
            client.said = client.holds.clone();
        }
        Heartbeat {
            to: self.token,
            id: client.id.clone(),
            epoch,
            instance: client.instance.clone(),
            rack: None,
            client_id: "client".into(),
            client_host: "host".into(),
            rebalance_timeout: full.then_some(REBALANCE),
            topics: full.then(|| client.topics.clone()),
            regex: full.then(|| client.regex.clone().unwrap_or_default()),
            assignor: None,
            owned,
        }
    }

    fn act(&mut self, n: usize) {
        let client = &self.clients[n];
        let news = client.epoch == 0 || client.full || client.said != client.holds;
        if client.waits.is_some() || (!news && self.now < client.beat_at) {
            return;
        }
        let (epoch, full) = (client.epoch, client.full || client.epoch == 0);
        let beat = self.beat(n, epoch, full);
        let client = &mut self.clients[n];
        client.waits = Some(beat.to);
        client.full = false;
        client.beat_at = self.now.after(HEARTBEAT);
        self.send(beat);
    }

    pub(super) fn send(&mut self, beat: Heartbeat<u64>) {
        self.with(|group, now, catalog, effects| group.heartbeat(now, beat, catalog, effects));
    }

    fn with(&mut self, call: impl FnOnce(&mut ConsumerGroup<u64>, Millis, &Catalog, &mut Vec<Effect<u64>>)) {
        let mut effects = Vec::new();
        call(&mut self.group, self.now, &self.catalog, &mut effects);
        for effect in effects {
            match effect {
                Effect::Persist(records) => {
                    assert!(self.unstored.replace(records).is_none(), "one batch at a time");
                }
                Effect::Answer { to, answer } => self.answer(to, answer.map(|beat| (beat.epoch, beat.assignment))),
            }
        }
    }

    fn answer(&mut self, to: u64, answer: Result<(i32, Option<Partitions>), GroupError>) {
        assert!(self.answered.insert(to), "one heartbeat, two answers");
        let Some(n) = self.clients.iter().position(|client| client.waits == Some(to)) else { return };
        let client = &mut self.clients[n];
        client.waits = None;
        match answer {
            Ok((epoch, assignment)) => {
                let highest = self.epochs.entry(client.id.clone()).or_default();
                assert!(epoch >= *highest, "{} was in epoch {highest}, now {epoch}", client.id);
                *highest = epoch;
                assert!(epoch <= self.group_epoch, "an epoch that is not stored");
                assert!(client.epoch > 0 || assignment.is_some(), "who joins learns what it has");
                client.epoch = epoch;
                if let Some(assignment) = assignment {
                    client.holds.extend(assignment.iter().copied());
                    client.told = assignment;
                }
            }
            Err(GroupError::UnknownMemberId | GroupError::FencedMemberEpoch) => {
                client.epoch = 0;
                client.holds.clear();
                client.told.clear();
                client.said.clear();
            }
            Err(GroupError::FencedInstanceId) => self.begin_anew(n),
            Err(GroupError::UnreleasedInstanceId) => {}
            Err(GroupError::CoordinatorNotAvailable) => client.full = true,
            Err(other) => panic!("{other}"),
        }
    }

    /// The batch on its way is durable. Whether there was one.
    fn persist(&mut self) -> bool {
        let Some(records) = self.unstored.take() else { return false };
        for (of, value) in records {
            match value {
                Some(value) => self.durable.insert(of, value),
                None => self.durable.remove(&of),
            };
        }
        let stored = self.stored();
        assert!(stored.epoch() >= self.group_epoch, "the group's epoch went back");
        self.group_epoch = stored.epoch();
        // Had two members the same partition, one would lose it on the way.
        for (of, value) in &self.durable {
            assert_eq!(stored.encode(of).as_ref(), Some(value), "{of:?} does not read back");
        }
        true
    }

    fn stored(&self) -> ConsumerGroup<u64> {
        let records = self.durable.iter().map(|(of, value)| (of.clone(), value.clone()));
        ConsumerGroup::restore(Limits::default(), records, self.now)
    }

    fn restore(&mut self) {
        self.group = self.stored();
    }

    fn pass(&mut self, ms: i64) {
        let end = self.now.after(ms);
        while let Some(next) = self.group.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.with(|group, now, catalog, effects| group.tick(now, catalog, effects));
            let still = self.group.next_deadline();
            assert!(still.is_none_or(|still| still > self.now), "a tick leaves nothing due behind");
        }
        self.now = end;
    }

    /// At any time: what a client has that is a member still is its own as the group sees it, which nobody else's is.
    fn check(&self) {
        let mut seen: BTreeMap<Partition, &Name> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.epoch > 0) {
            let may_commit = self.group.may_commit(client.epoch, &client.id, client.instance.as_deref()).is_ok();
            let Some(member) = self.group.members.get(&client.id) else {
                assert!(!may_commit, "who is no member may commit");
                continue;
            };
            let own = |part: &&Partition| member.assigned.contains(*part) || member.revoking.contains(*part);
            let lost: Vec<_> = client.holds.iter().filter(|part| !own(part)).collect();
            assert!(lost.is_empty(), "{} has {lost:?}, which may be given to others", client.id);
            for part in &client.holds {
                let other = seen.insert(*part, &client.id);
                assert_eq!(other, None, "{part:?} is {}'s, too", client.id);
            }
        }
    }

    /// Nothing fails any more and everyone does its part.
    pub(super) fn settle(&mut self) {
        for _ in 0..160 {
            for n in 0..CLIENTS {
                self.act(n);
                self.step(Step::Store(true));
                self.step(Step::Revoke(n));
            }
            self.step(Step::Pass(1000));
        }
    }

    fn reads(&self, n: usize, part: &Partition) -> bool {
        let client = &self.clients[n];
        let Some((name, _)) = self.catalog.topics.iter().find(|(_, shape)| shape.id == part.topic) else {
            return false;
        };
        let by_regex = client.regex.as_deref().is_some_and(|regex| {
            (regex == "[ab]" && matches!(&**name, "a" | "b")) || (regex == "c+" && &**name == "cc")
        });
        client.topics.contains(name) || by_regex
    }

    /// Everything that somebody reads is one reader's, and nobody reads what another has two more of.
    pub(super) fn check_settled(&self) {
        assert!(matches!(self.group.phase(), Phase::Stable), "{:?}", self.group.phase());
        let mut seen = Partitions::new();
        for (n, client) in self.clients.iter().enumerate() {
            assert_eq!(client.epoch, self.group.target_epoch(), "{}", client.id);
            for part in &client.holds {
                assert!(seen.insert(*part), "{part:?} twice");
                assert!(self.reads(n, part), "{} does not read {part:?}", client.id);
                for (other, poor) in self.clients.iter().enumerate() {
                    let even = client.holds.len() <= poor.holds.len() + 1;
                    assert!(even || !self.reads(other, part), "{part:?} is better with {}", poor.id);
                }
            }
        }
        let shapes = self.catalog.topics.values();
        let all = shapes.flat_map(|shape| (0..shape.partitions).map(|index| Partition { topic: shape.id, index }));
        let wanted: Partitions = all.filter(|part| (0..CLIENTS).any(|n| self.reads(n, part))).collect();
        assert_eq!(seen, wanted);
    }
}
