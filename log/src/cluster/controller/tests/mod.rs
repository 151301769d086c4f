//! Tests of the controller: what each request does, and many nodes at random.

mod liveness;
mod nodes;
mod partitions;
mod reassign;
mod settings;
mod simulation;
mod topics;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::*;
use crate::cluster::invariants::{check, check_settled, check_step};
use crate::cluster::record::LevelRange;
use crate::limits::HEARTBEAT_INTERVAL_MS;
use crate::units::{Incarnation, MetadataVersion};

const CLUSTER: Uuid = Uuid::from_u128(0xc1);
const TOPIC: Uuid = Uuid::from_u128(0x70);

fn ids(of: &[i32]) -> Vec<NodeId> {
    of.iter().copied().map(NodeId).collect()
}

fn registration(id: i32, incarnation: u64) -> Register {
    Register {
        id: NodeId(id),
        incarnation: Incarnation(incarnation),
        process: Uuid::from_u128(incarnation.into()),
        directory: Uuid::from_u128(id as u128),
        addresses: BTreeMap::from([("kafka".to_owned(), format!("10.0.0.{id}:9092"))]),
        rack: None,
        levels: LevelRange::OURS,
        cluster: Some(CLUSTER),
    }
}

/// A controller and the nodes that it knows, with a time that passes when it is told to.
struct Lab {
    controller: Controller,
    now: Millis,
    records: Vec<Record>,
}

impl Lab {
    /// A cluster of the nodes 1 to `count`, all there; `voters` are its quorum.
    fn of(count: i32) -> Lab {
        let limits = Limits { drain_moves: 2, leadership_moves: 3, max_partitions: 12_000, ..Limits::default() };
        let voters = BTreeSet::from([NodeId(1)]);
        let controller = Controller::new(Image::default(), limits, voters, Millis(0));
        let mut lab = Lab { controller, now: Millis(0), records: Vec::new() };
        let nodes = (1..=count).map(NodeId).collect();
        lab.ask(Request::CreateCluster { id: CLUSTER, nodes }).unwrap();
        (1..=count).for_each(|id| lab.start(id, 1));
        lab
    }

    /// Asks, and checks what holds after every record and after the decision.
    fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        let mut image = self.controller.image().clone();
        let from = self.records.len();
        let reply = self.controller.handle(self.now, request, &mut self.records);
        self.settle(&mut image, from);
        reply
    }

    fn settle(&mut self, image: &mut Image, from: usize) {
        for record in &self.records[from..] {
            let before = image.clone();
            image.apply(record);
            if image.partition_count() < 100 {
                check(image).unwrap();
                check_step(&before, image).unwrap();
            }
        }
        check_settled(image).unwrap();
        assert_eq!(image, self.controller.image());
    }

    /// Time passes; the nodes of `there` are heard of all the while.
    fn pass(&mut self, ms: i64, there: &[i32]) {
        let end = self.now.after(ms);
        let mut beat_at = self.now;
        while self.now < end {
            if beat_at <= self.now {
                there.iter().for_each(|id| {
                    self.beat(*id, false);
                });
                beat_at = self.now.after(HEARTBEAT_INTERVAL_MS);
            }
            self.now = self.controller.next_deadline().min(beat_at).min(end);
            let mut image = self.controller.image().clone();
            let from = self.records.len();
            self.controller.tick(self.now, &mut self.records);
            self.settle(&mut image, from);
            assert!(self.controller.next_deadline() > self.now, "a tick leaves nothing due behind");
        }
    }

    fn incarnation(&self, id: i32) -> Incarnation {
        self.controller.image().node(NodeId(id)).and_then(|node| node.incarnation()).unwrap_or_default()
    }

    fn try_beat(&mut self, id: i32, applied: MetadataVersion, wants_shutdown: bool) -> Result<Reply, Refusal> {
        let incarnation = self.incarnation(id);
        self.ask(Request::Heartbeat { id: NodeId(id), incarnation, applied, full: false, wants_shutdown })
    }

    fn beat(&mut self, id: i32, wants_shutdown: bool) -> HeartbeatReply {
        match self.try_beat(id, self.controller.image().version(), wants_shutdown).unwrap() {
            Reply::Heartbeat(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// A process of the node starts and catches up.
    fn start(&mut self, id: i32, incarnation: u64) {
        self.ask(Request::Register(registration(id, incarnation))).unwrap();
        assert!(!self.beat(id, false).fenced);
    }

    /// The node is not heard of any more until its session is over; the others are.
    fn lose(&mut self, id: i32) {
        let others: Vec<i32> = self.here().into_iter().filter(|other| *other != id).collect();
        self.pass(limits::SESSION_TIMEOUT_MS, &others);
        assert!(!self.controller.image().is_active(NodeId(id)));
    }

    fn here(&self) -> Vec<i32> {
        self.controller.image().nodes().filter(|(_, node)| node.is_active()).map(|(id, _)| id.0).collect()
    }

    /// The topic of these replicas, one list for each partition.
    fn topic(&mut self, replicas: &[&[i32]]) {
        let replicas = Assignment::Explicit { replicas: replicas.iter().map(|replicas| ids(replicas)).collect() };
        self.create("readings", TOPIC, replicas).unwrap();
    }

    fn create(&mut self, name: &str, id: Uuid, replicas: Assignment) -> Result<Reply, Refusal> {
        let name = name.to_owned();
        self.ask(Request::CreateTopic(CreateTopic {
            id,
            name,
            replicas,
            config: BTreeMap::new(),
            validate_only: false,
        }))
    }

    fn state(&self, index: u32) -> PartitionState {
        self.controller.image().partition(TOPIC, index).unwrap().clone()
    }

    /// Leader, in-sync replicas, leader epoch and partition epoch of partition 0.
    fn at(&self) -> (i32, Vec<i32>, i32, i32) {
        let state = self.state(0);
        let isr = state.isr.iter().map(|id| id.0).collect();
        (state.leader.map_or(-1, |id| id.0), isr, state.leader_epoch.0, state.partition_epoch.0)
    }

    /// What the leader of a partition would propose.
    fn proposal(&self, index: u32, isr: &[i32]) -> AlterPartition {
        let PartitionState { leader_epoch, partition_epoch, .. } = self.state(index);
        let isr = isr.iter().map(|id| IsrMember { id: NodeId(*id), incarnation: self.incarnation(*id) }).collect();
        AlterPartition { topic: TOPIC, index, leader_epoch, partition_epoch, isr, fence: false }
    }

    fn propose(&mut self, from: i32, proposal: AlterPartition) -> Result<PartitionState, Refusal> {
        let (incarnation, partitions) = (self.incarnation(from), vec![proposal]);
        match self.ask(Request::AlterPartitions { from: NodeId(from), incarnation, partitions }).unwrap() {
            Reply::Altered { mut partitions } => partitions.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// The leader of the partition proposes these in-sync replicas.
    fn isr(&mut self, index: u32, isr: &[i32]) -> Result<PartitionState, Refusal> {
        let leader = self.state(index).leader.unwrap().0;
        self.propose(leader, self.proposal(index, isr))
    }
}
