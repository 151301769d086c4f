//! Many clients at random: in no generation has a partition two owners, and in the end each has one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use crate::Millis;
use crate::group::classic::{ClassicGroup, Effect, Join, Leaver, Phase, Sync, Then};
use crate::group::{GroupError, Limits, Name};

const PARTITIONS: u8 = 7;
const SESSION: i64 = 10_000;
const HEARTBEAT: i64 = 3_000;

#[derive(Debug, Clone)]
enum Step {
    /// A client begins, or goes on, with what it has to do next.
    Act(usize),
    Crash(usize),
    Leave(usize),
    /// The answer to what the client waits for is lost; it asks again.
    Lose(usize),
    /// Records become durable, or fail to.
    Store(bool),
    Pass(i64),
    /// The broker restarts with what is durable.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..5usize;
    let step = prop_oneof![
        12 => client.clone().prop_map(Step::Act),
        1 => client.clone().prop_map(Step::Crash),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.prop_map(Step::Lose),
        4 => prop::bool::weighted(0.9).prop_map(Step::Store),
        3 => (0..8000i64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..120)
}

#[derive(Debug, Clone, Default)]
struct Client {
    id: Name,
    instance: Option<Name>,
    generation: i32,
    /// The request that it waits for.
    waits: Option<u64>,
    /// What it brings to its next sync, once it has joined.
    to_sync: Option<Vec<(Name, Bytes)>>,
    owns: Option<Bytes>,
    beat_at: Millis,
}

struct World {
    group: ClassicGroup<u64>,
    now: Millis,
    clients: Vec<Client>,
    token: u64,
    unstored: Vec<(crate::group::classic::GroupRecord, Then)>,
    durable: Option<crate::group::classic::GroupRecord>,
    answered: BTreeSet<u64>,
    /// Who got what in which generation.
    given: BTreeMap<(i32, u8), Name>,
}

impl World {
    fn new() -> World {
        let clients = (0..5)
            .map(|n| Client { instance: (n % 2 == 0).then(|| format!("static-{n}").into()), ..Client::default() });
        World {
            group: ClassicGroup::new(Limits::default()),
            now: Millis(0),
            clients: clients.collect(),
            token: 0,
            unstored: Vec::new(),
            durable: None,
            answered: BTreeSet::new(),
            given: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act(n) => self.act(n),
            Step::Crash(n) => {
                let instance = self.clients[n].instance.clone();
                self.clients[n] = Client { instance, ..Client::default() };
            }
            Step::Leave(n) => {
                let client = &self.clients[n];
                let leaver = Leaver { id: client.id.clone(), instance: client.instance.clone() };
                let mut effects = Vec::new();
                let _ = self.group.leave(self.now, leaver, &mut effects);
                self.perform(effects);
                self.step(Step::Crash(n));
            }
            Step::Lose(n) => self.clients[n].waits = None,
            Step::Store(stored) => {
                for (record, then) in std::mem::take(&mut self.unstored) {
                    if stored {
                        self.durable = Some(record);
                    }
                    let mut effects = Vec::new();
                    self.group.stored(self.now, then, stored, &mut effects);
                    self.perform(effects);
                }
            }
            Step::Pass(ms) => self.pass(ms),
            Step::Restart => {
                self.unstored.clear();
                self.group = match &self.durable {
                    Some(record) => ClassicGroup::restore(Limits::default(), record, self.now),
                    None => ClassicGroup::new(Limits::default()),
                };
                // Connections are cut: whoever waited asks again.
                self.clients.iter_mut().for_each(|client| client.waits = None);
            }
        }
    }

    fn pass(&mut self, ms: i64) {
        let end = self.now.after(ms);
        while let Some(next) = self.group.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            let mut effects = Vec::new();
            self.group.tick(self.now, &mut effects);
            self.perform(effects);
            let still = self.group.next_deadline();
            assert!(still.is_none_or(|still| still > self.now), "a tick leaves nothing due behind");
        }
        self.now = end;
    }

    /// What a real client would do next.
    fn act(&mut self, n: usize) {
        if self.clients[n].waits.is_some() {
            return;
        }
        self.token += 1;
        let (token, now) = (self.token, self.now);
        let client = &mut self.clients[n];
        let mut effects = Vec::new();
        if client.owns.is_some() {
            if now < client.beat_at {
                return;
            }
            client.beat_at = now.after(HEARTBEAT);
            match self.group.heartbeat(now, client.generation, &client.id, client.instance.as_deref()) {
                Ok(()) => {}
                Err(GroupError::RebalanceInProgress | GroupError::IllegalGeneration) => client.owns = None,
                Err(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => {
                    (client.owns, client.id) = (None, Name::default());
                }
                Err(other) => panic!("{other}"),
            }
            return;
        }
        client.waits = Some(token);
        if let Some(assignments) = client.to_sync.clone() {
            let sync = Sync {
                to: token,
                id: client.id.clone(),
                instance: client.instance.clone(),
                generation: client.generation,
                protocol_type: Some("consumer".into()),
                protocol: Some("range".into()),
                assignments,
            };
            self.group.sync(now, sync, &mut effects);
        } else {
            let join = Join {
                to: token,
                id: client.id.clone(),
                new_id: format!("member-{token}").into(),
                instance: client.instance.clone(),
                client_id: "client".into(),
                client_host: "host".into(),
                session_timeout: SESSION,
                rebalance_timeout: 30_000,
                protocol_type: "consumer".into(),
                protocols: vec![("range".into(), Bytes::from_static(b"topic"))],
                takes_id_first: true,
                may_skip_assignment: token % 2 == 0,
            };
            self.group.join(now, join, &mut effects);
        }
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect<u64>>) {
        for effect in effects {
            match effect {
                Effect::Persist { record, then } => self.unstored.push((record, then)),
                Effect::Joined { to, id, answer } => {
                    assert!(self.answered.insert(to), "one request, two answers");
                    let Some(client) = self.clients.iter_mut().find(|client| client.waits == Some(to)) else {
                        continue;
                    };
                    client.waits = None;
                    match answer {
                        Ok(joined) => {
                            client.id = id;
                            client.generation = joined.generation;
                            let ids: Vec<Name> = joined.members.iter().map(|member| member.id.clone()).collect();
                            let share =
                                |n: usize| (0..PARTITIONS).filter(|p| usize::from(*p) % ids.len() == n).collect();
                            let assignments = match joined.skip_assignment {
                                true => Vec::new(),
                                false => ids.iter().enumerate().map(|(n, id)| (id.clone(), share(n))).collect(),
                            };
                            client.to_sync = Some(assignments);
                        }
                        Err(GroupError::MemberIdRequired) => client.id = id,
                        Err(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => client.id = Name::default(),
                        Err(_) => {}
                    }
                }
                Effect::Synced { to, answer } => {
                    assert!(self.answered.insert(to), "one request, two answers");
                    let Some(client) = self.clients.iter_mut().find(|client| client.waits == Some(to)) else {
                        continue;
                    };
                    client.waits = None;
                    client.to_sync = None;
                    match answer {
                        Ok(synced) => {
                            let who = client.instance.clone().unwrap_or_else(|| client.id.clone());
                            for partition in &synced.assignment {
                                let owner =
                                    self.given.entry((client.generation, *partition)).or_insert_with(|| who.clone());
                                assert_eq!(*owner, who, "partition {partition} in generation {}", client.generation);
                            }
                            client.owns = Some(synced.assignment);
                            client.beat_at = self.now.after(HEARTBEAT);
                        }
                        Err(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => client.id = Name::default(),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Nothing fails any more and everyone does its part.
    fn settle(&mut self) {
        for _ in 0..200 {
            (0..self.clients.len()).for_each(|n| self.act(n));
            self.step(Step::Store(true));
            self.pass(1000);
        }
    }
}

proptest! {

    #[test]
    fn no_partition_has_two_owners_in_a_generation_and_each_has_one_in_the_end(steps in steps()) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        prop_assert_eq!(world.group.phase(), Phase::Stable);
        let mut owned: Vec<u8> = world.clients.iter().flat_map(|client| client.owns.clone().unwrap_or_default()).collect();
        owned.sort_unstable();
        prop_assert_eq!(owned, (0..PARTITIONS).collect::<Vec<u8>>());
        let generation = world.group.generation();
        prop_assert!(world.clients.iter().all(|client| client.generation == generation));
    }
}
