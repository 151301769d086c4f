//! Nodes that write, copy, die, come back and see the metadata late, at random: whatever was acknowledged stays.
//!
//! Each node acts on the image that it has seen last, as a real one does. What a partition holds is a list of values:
//! leaders append, replicas that follow the same leader epoch copy, and a value is acknowledged when all replicas that
//! are in sync, or proposed to be, have it.

use super::*;
use crate::units::Epoch;

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }
}

type Key = (Uuid, u32);

#[derive(Default)]
struct SimNode {
    is_up: bool,
    incarnation: u64,
    /// The metadata that it has seen.
    seen: Image,
    logs: BTreeMap<Key, Vec<u64>>,
    /// Proposals whose answer was lost: whoever is in them counts until newer metadata is seen.
    proposed: BTreeMap<Key, PartitionState>,
    wants_shutdown: bool,
    full: bool,
}

struct World {
    random: Random,
    lab: Lab,
    nodes: BTreeMap<i32, SimNode>,
    acked: BTreeMap<Key, Vec<u64>>,
    next_value: u64,
    next_topic: u128,
    snapshot: (Vec<u8>, usize),
    /// Proposals that come to the controller a second time.
    late: Vec<Request>,
}

const NODES: i32 = 5;

impl World {
    fn new(seed: u64) -> World {
        let mut lab = Lab::of(NODES);
        lab.controller.limits.max_partitions = 12;
        let mut nodes = BTreeMap::new();
        for id in 1..=NODES {
            let seen = lab.controller.image().clone();
            nodes.insert(id, SimNode { is_up: true, incarnation: 1, seen, ..SimNode::default() });
        }
        let snapshot = (serde_json::to_vec(&Image::default()).unwrap(), 0);
        let (acked, next_value, next_topic) = (BTreeMap::new(), 1, 1);
        World { random: Random(seed), lab, nodes, acked, next_value, next_topic, snapshot, late: Vec::new() }
    }

    /// Asks the controller; sometimes what it decides is not committed and another controller goes on.
    fn ask(&mut self, request: Request) -> Option<Result<Reply, Refusal>> {
        let before = self.lab.controller.image().clone();
        let records = self.lab.records.len();
        let may_grow = matches!(request, Request::AlterPartitions { .. });
        let reply = self.lab.ask(request);
        self.check_decision(&before, may_grow);
        if self.random.chance(2) {
            self.lab.records.truncate(records);
            let (limits, voters) = (self.lab.controller.limits, self.lab.controller.voters.clone());
            self.lab.controller = Controller::new(before, limits, voters, self.lab.now);
            return None;
        }
        (!self.random.chance(5)).then_some(reply)
    }

    /// Only a leader's proposal brings replicas in sync, and nobody leads who was not.
    fn check_decision(&self, before: &Image, may_grow: bool) {
        let after = self.lab.controller.image();
        for (topic, index, new) in after.partitions() {
            let key = (topic.id, index);
            if let Some(old) = before.partition(topic.id, index).filter(|_| !may_grow) {
                assert!(new.isr.iter().all(|id| old.isr.contains(id)), "{old:?} to {new:?}");
                assert!(new.leader.is_none_or(|id| old.isr.contains(&id)), "{old:?} to {new:?}");
            }
            let acked = self.acked.get(&key).map(Vec::as_slice).unwrap_or_default();
            for id in &new.isr {
                let log = self.nodes[&id.0].logs.get(&key).map(Vec::as_slice).unwrap_or_default();
                assert!(log.starts_with(acked), "{key:?}: node {id} in sync has {log:?}, acknowledged are {acked:?}");
            }
        }
    }

    fn step(&mut self) {
        let id = 1 + self.random.below(NODES as usize) as i32;
        match self.random.below(100) {
            0..20 => self.write(id),
            20..40 => self.copy(id),
            40..55 => self.propose(id),
            55..70 => self.beat(id),
            70..76 => self.see(id),
            76..80 => self.pass(),
            80..83 => self.kill_or_start(id),
            83..85 => self.suspect(id),
            85 => self.nodes.get_mut(&id).unwrap().full ^= true,
            86 => self.controller_moves(),
            87..90 => {
                if let Some(late) = self.random.pick(&self.late) {
                    self.ask(late);
                }
            }
            _ => self.operate(id),
        }
    }

    fn see(&mut self, id: i32) {
        let image = self.lab.controller.image().clone();
        let node = self.nodes.get_mut(&id).unwrap();
        node.proposed.retain(|(topic, index), proposed| {
            image.partition(*topic, *index).is_some_and(|now| now.partition_epoch == proposed.partition_epoch)
        });
        node.logs.retain(|(topic, index), _| {
            image.partition(*topic, *index).is_some_and(|now| now.replicas.contains(&NodeId(id)))
        });
        node.seen = image;
    }

    /// A partition that the node believes to lead.
    fn led(&mut self, id: i32) -> Option<(Key, PartitionState)> {
        let node = self.nodes.get(&id).filter(|node| node.is_up)?;
        let of = node.seen.partitions().filter(|(_, _, state)| state.leader == Some(NodeId(id)));
        let led: Vec<(Key, PartitionState)> =
            of.map(|(topic, index, state)| ((topic.id, index), state.clone())).collect();
        self.random.pick(&led)
    }

    fn follows(&self, id: i32, key: Key, epoch: Epoch) -> bool {
        let node = &self.nodes[&id];
        node.is_up && node.seen.partition(key.0, key.1).is_some_and(|state| state.leader_epoch == epoch)
    }

    fn write(&mut self, id: i32) {
        let Some((key, state)) = self.led(id) else { return };
        let value = self.next_value;
        self.next_value += 1;
        self.nodes.get_mut(&id).unwrap().logs.entry(key).or_default().push(value);
        let mut needed = state.isr.clone();
        needed.extend(self.nodes[&id].proposed.get(&key).into_iter().flat_map(|proposed| proposed.isr.clone()));
        let log = self.nodes[&id].logs[&key].clone();
        let mut is_acked = true;
        for other in needed {
            if self.follows(other.0, key, state.leader_epoch) {
                self.nodes.get_mut(&other.0).unwrap().logs.insert(key, log.clone());
            } else {
                is_acked = false;
            }
        }
        if is_acked {
            let acked = self.acked.entry(key).or_default();
            assert!(log.starts_with(acked), "acknowledged values are lost: {acked:?}, now {log:?}");
            *acked = log;
        }
    }

    fn copy(&mut self, id: i32) {
        let Some((key, state)) = self.led(id) else { return };
        let log = self.nodes[&id].logs.get(&key).cloned().unwrap_or_default();
        for other in &state.replicas {
            if self.follows(other.0, key, state.leader_epoch) {
                self.nodes.get_mut(&other.0).unwrap().logs.insert(key, log.clone());
            }
        }
    }

    fn propose(&mut self, id: i32) {
        let Some((key, state)) = self.led(id) else { return };
        // Without an answer it proposes the same again: it may be committed by now.
        let isr = match self.nodes[&id].proposed.get(&key) {
            Some(proposed) => proposed.isr.clone(),
            None => self.in_sync(id, key, &state),
        };
        let seen = &self.nodes[&id].seen;
        let member = |id: &NodeId| Some(IsrMember { id: *id, incarnation: seen.node(*id)?.incarnation()? });
        let proposal = AlterPartition {
            topic: key.0,
            index: key.1,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: isr.iter().filter_map(member).collect(),
            fence: false,
        };
        let incarnation = Incarnation(self.nodes[&id].incarnation);
        let from = NodeId(id);
        self.nodes.get_mut(&id).unwrap().proposed.insert(key, PartitionState { isr, ..state });
        let request = Request::AlterPartitions { from, incarnation, partitions: vec![proposal] };
        let Some(Ok(Reply::Altered { partitions })) = self.ask(request.clone()) else { return };
        if matches!(partitions[0], Ok(_) | Err(Refusal::IneligibleReplica { .. })) {
            self.nodes.get_mut(&id).unwrap().proposed.remove(&key);
        }
        if partitions[0].is_ok() {
            self.late.push(request);
            self.see(id);
        }
    }

    /// The replicas that have what the leader has, as it has heard.
    fn in_sync(&self, id: i32, key: Key, state: &PartitionState) -> Vec<NodeId> {
        let log = |of: &NodeId| self.nodes[&of.0].logs.get(&key).cloned().unwrap_or_default();
        let own = log(&NodeId(id));
        let is_in_sync = |other: &NodeId| self.follows(other.0, key, state.leader_epoch) && log(other) == own;
        state.replicas.iter().copied().filter(is_in_sync).collect()
    }

    fn beat(&mut self, id: i32) {
        let SimNode { is_up: true, full, wants_shutdown, incarnation, ref seen, .. } = self.nodes[&id] else { return };
        let (applied, incarnation) = (seen.version(), Incarnation(incarnation));
        let beat = Request::Heartbeat { id: NodeId(id), incarnation, applied, full, wants_shutdown };
        if let Some(Ok(Reply::Heartbeat(HeartbeatReply { may_shut_down: true, .. }))) = self.ask(beat) {
            self.nodes.get_mut(&id).unwrap().is_up = false;
        }
    }

    fn pass(&mut self) {
        let before = self.lab.controller.image().clone();
        let ms = self.random.below(1200) as i64;
        self.lab.pass(ms, &[]);
        self.check_decision(&before, false);
    }

    fn kill_or_start(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.is_up && self.random.chance(30) {
            node.wants_shutdown = true;
        } else if node.is_up {
            node.is_up = false;
        } else {
            self.start_up(id);
        }
    }

    fn start_up(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.incarnation += 1;
        (node.is_up, node.wants_shutdown) = (true, false);
        // A process that starts does not go on with what it led.
        node.seen = Image::default();
        node.proposed.clear();
        let incarnation = node.incarnation;
        self.ask(Request::Register(registration(id, incarnation)));
    }

    fn suspect(&mut self, id: i32) {
        let by = NodeId(1 + self.random.below(NODES as usize) as i32);
        let incarnation = Incarnation(self.nodes[&id].incarnation);
        self.ask(Request::Suspect { id: NodeId(id), incarnation, by });
    }

    /// Another controller goes on, with an image from a snapshot and the records since, or from the records alone.
    fn controller_moves(&mut self) {
        let (bytes, from) = &self.snapshot;
        let mut image: Image = serde_json::from_slice(bytes).unwrap();
        self.lab.records[*from..].iter().for_each(|record| image.apply(record));
        assert_eq!(&image, self.lab.controller.image());
        let mut anew = Image::default();
        self.lab.records.iter().for_each(|record| anew.apply(record));
        assert_eq!(&anew, self.lab.controller.image());
        let (limits, voters) = (self.lab.controller.limits, self.lab.controller.voters.clone());
        self.lab.controller = Controller::new(image, limits, voters, self.lab.now);
        let bytes = serde_json::to_vec(&anew).unwrap();
        self.snapshot = (bytes, self.lab.records.len());
    }

    fn operate(&mut self, id: i32) {
        let partitions = self.lab.controller.image().partitions().map(|(topic, index, _)| (topic.id, index));
        let partitions: Vec<Key> = partitions.collect();
        let key = self.random.pick(&partitions).unwrap_or_default();
        let mut some: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
        (0..NODES as usize - 1).for_each(|n| some.swap(n, n + self.random.below(NODES as usize - n)));
        some.truncate(1 + self.random.below(3));
        let request = match self.random.below(14) {
            0..3 => {
                self.next_topic += 1;
                let replication_factor = 1 + self.random.below(3) as u16;
                let partitions = 1 + self.random.below(3) as u32;
                Request::CreateTopic(CreateTopic {
                    id: Uuid::from_u128(self.next_topic),
                    name: format!("t{}", self.random.below(6)),
                    replicas: Assignment::Placed { partitions, replication_factor },
                    config: BTreeMap::new(),
                    validate_only: self.random.chance(10),
                })
            }
            3 => Request::CreatePartitions {
                topic: key.0,
                count: key.1 + 2,
                had: None,
                assignment: None,
                validate_only: false,
            },
            4 => Request::DeleteTopic { topic: key.0 },
            5..8 => {
                let target = (!self.random.chance(25)).then_some(some);
                Request::AlterReassignments { partitions: vec![Reassign { topic: key.0, index: key.1, target }] }
            }
            8 => Request::ElectLeaders { election: ElectionType::Preferred, partitions: None },
            9 => Request::DrainNode { id: NodeId(id), draining: true },
            10 => Request::DrainNode { id: NodeId(id), draining: false },
            11 => Request::AllocateProducerIds { count: 10 },
            12 => {
                let (namespace, key) = ("users".to_owned(), format!("u{}", self.random.below(5)));
                let value = self.random.chance(70).then(|| self.random.below(9).to_string());
                Request::PutSettings { changes: vec![SettingChange { namespace, key, value }], expected: Vec::new() }
            }
            _ => Request::AlterConfigs { topic: key.0, config: BTreeMap::new(), validate_only: false },
        };
        self.ask(request);
    }

    /// Everything is well again: all partitions come to be led and in sync, and all drains end.
    fn heal(&mut self) {
        for id in 1..=NODES {
            let node = self.nodes.get_mut(&id).unwrap();
            (node.wants_shutdown, node.full) = (false, false);
            self.start_up(id);
            let draining = self.random.chance(20) && id == NODES;
            self.ask(Request::DrainNode { id: NodeId(id), draining });
        }
        for _ in 0..600 {
            let is_well = |(_, _, state): (_, _, &PartitionState)| {
                let drained = state.replicas.iter().any(|id| self.lab.controller.image().node(*id).unwrap().draining);
                state.leader.is_some() && state.isr.len() == state.replicas.len() && !state.is_reassigning() && !drained
            };
            if self.lab.controller.image().partitions().all(is_well) {
                return;
            }
            for id in 1..=NODES {
                if self.nodes[&id].incarnation > self.lab.incarnation(id).0 {
                    self.start_up(id);
                }
                self.see(id);
                self.beat(id);
            }
            let before = self.lab.controller.image().clone();
            self.lab.pass(250, &[]);
            self.check_decision(&before, false);
            for id in 1..=NODES {
                for _ in 0..10 {
                    self.see(id);
                    self.copy(id);
                    self.propose(id);
                }
            }
        }
        panic!("it does not become well: {:#?}", self.lab.controller.image());
    }
}

/// Runs a seed; returns all records as they would be stored.
fn run(seed: u64, steps: usize) -> Vec<u8> {
    let mut world = World::new(seed);
    (0..steps).for_each(|_| world.step());
    world.heal();
    world.controller_moves();
    serde_json::to_vec(&world.lab.records).unwrap()
}

#[test]
fn a_seed_gives_the_same_bytes_each_time() {
    for seed in 0..5 {
        assert!(run(seed, 300) == run(seed, 300), "seed {seed}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_all_becomes_well() {
    for seed in 0..300 {
        let ran = std::panic::catch_unwind(|| run(seed, 500));
        assert!(ran.is_ok(), "seed {seed} fails, run({seed}, 500) replays it");
    }
}
