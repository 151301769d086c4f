//! Topics: made, given partitions and configs, deleted.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Controller;
use super::change::{Standing, standing};
use super::refusal::Refusal;
use super::request::{Assignment, CreateTopic, Reply};
use crate::cluster::invariants::all_differ;
use crate::cluster::placement::{Candidate, place};
use crate::cluster::record::{PartitionState, Record};
use crate::cluster::shared::Shared;
use crate::cluster::topic::Topic;
use crate::limits::{MAX_PARTITIONS_PER_TOPIC, MAX_REPLICAS, MAX_TOPIC_CONFIG_BYTES};
use crate::topic::check_topic_name;
use crate::units::{Epoch, NodeId};

impl Controller {
    pub(super) fn create_topic(&mut self, new: CreateTopic, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        let CreateTopic { id, name, replicas, config, validate_only } = new;
        check_topic_name(&name).map_err(|why| Refusal::InvalidTopic { name: name.clone(), why: why.to_owned() })?;
        if let Some(existing) = self.image.topic(id) {
            // Ids are drawn: the answer was lost, and it asks again.
            let replicas = existing.partitions().map(|(_, state)| state.replicas.clone()).collect();
            let is_same = existing.name == name;
            return if is_same { Ok(Reply::Placed { first: 0, replicas }) } else { Err(Refusal::TopicIdExists { id }) };
        }
        if self.image.topic_named(&name).is_some() {
            return Err(Refusal::TopicExists { name });
        }
        check_config(&name, &config)?;
        let replicas = match replicas {
            Assignment::Placed { partitions, replication_factor } => {
                self.check_partitions(0, u64::from(partitions))?;
                self.place(id, &[], partitions, replication_factor)?
            }
            Assignment::Explicit { replicas } => {
                self.check_partitions(0, replicas.len() as u64)?;
                let factor = replicas.first().map_or(0, Vec::len);
                replicas.iter().try_for_each(|replicas| self.check_new_replicas(replicas, factor))?;
                replicas
            }
        };
        if !validate_only {
            self.decide(Record::TopicCreated { id, name, config }, records);
            self.put_new_partitions(id, 0, &replicas, records);
        }
        Ok(Reply::Placed { first: 0, replicas })
    }

    /// Takes in a topic that lies on one node already. Done again, it changes nothing.
    pub(super) fn adopt_topic(
        &mut self,
        (id, name): (Uuid, String),
        config: BTreeMap<String, String>,
        node: NodeId,
        leader_epochs: &[Epoch],
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        if self.image.topic(id).is_some() {
            return Ok(Reply::Done);
        }
        check_topic_name(&name).map_err(|why| Refusal::InvalidTopic { name: name.clone(), why: why.to_owned() })?;
        if self.image.topic_named(&name).is_some() {
            return Err(Refusal::TopicExists { name });
        }
        self.node(node)?;
        self.check_partitions(0, leader_epochs.len() as u64)?;
        self.decide(Record::TopicCreated { id, name, config }, records);
        for (index, epoch) in (0..).zip(leader_epochs) {
            let leader = self.image.is_active(node).then_some(node);
            let (replicas, isr, leader_epoch) = (vec![node], vec![node], epoch.next());
            let state = PartitionState { replicas, isr, leader, leader_epoch, ..PartitionState::default() };
            self.decide(Record::Partition { topic: id, index, state }, records);
        }
        Ok(Reply::Done)
    }

    pub(super) fn create_partitions(
        &mut self,
        topic: Uuid,
        (had, count): (Option<u32>, u32),
        assignment: Option<Vec<Vec<NodeId>>>,
        validate_only: bool,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        let existing = self.topic(topic)?;
        let first = u32::try_from(existing.partitions.len()).unwrap_or(u32::MAX);
        if let Some(had) = had.filter(|had| count == first && *had < count) {
            let made = existing.partitions().skip(had as usize).map(|(_, state)| state.replicas.clone());
            return Ok(Reply::Placed { first: had, replicas: made.collect() });
        }
        if count <= first {
            let why = format!("topic {} has {first} already, and partitions are never taken away", existing.name);
            return Err(Refusal::InvalidPartitions { count: u64::from(count), why });
        }
        self.check_partitions(first, u64::from(count))?;
        let factor = existing.partition(0).map_or(1, |state| state.replicas.len() - state.adding.len());
        let replicas = match assignment {
            None => {
                let lists: Vec<&[NodeId]> = existing.partitions().map(|(_, state)| &*state.replicas).collect();
                self.place(topic, &lists, count - first, u16::try_from(factor).unwrap_or(u16::MAX))?
            }
            Some(replicas) => {
                if replicas.len() as u64 != u64::from(count - first) {
                    let why = format!("{} are given for {} new partitions", replicas.len(), count - first);
                    return Err(Refusal::InvalidReplicaAssignment { why });
                }
                replicas.iter().try_for_each(|replicas| self.check_new_replicas(replicas, factor))?;
                replicas
            }
        };
        if !validate_only {
            self.put_new_partitions(topic, first, &replicas, records);
        }
        Ok(Reply::Placed { first, replicas })
    }

    pub(super) fn delete_topic(&mut self, topic: Uuid, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        self.topic(topic)?;
        self.decide(Record::TopicDeleted { id: topic }, records);
        Ok(Reply::Done)
    }

    pub(super) fn alter_configs(
        &mut self,
        topic: Uuid,
        config: BTreeMap<String, String>,
        validate_only: bool,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        let existing = self.topic(topic)?;
        check_config(&existing.name, &config)?;
        if existing.config != config && !validate_only {
            self.decide(Record::TopicConfigChanged { id: topic, config }, records);
        }
        Ok(Reply::Done)
    }

    pub(super) fn topic(&self, id: Uuid) -> Result<&Shared<Topic>, Refusal> {
        self.image.topic(id).ok_or(Refusal::UnknownTopicId { id })
    }

    pub(super) fn partition(&self, topic: Uuid, index: u32) -> Result<&PartitionState, Refusal> {
        let topic = self.topic(topic)?;
        topic.partition(index).ok_or_else(|| Refusal::UnknownPartition { topic: topic.name.clone(), index })
    }

    /// Whether a topic of `first` partitions may come to have `count`.
    fn check_partitions(&self, first: u32, count: u64) -> Result<(), Refusal> {
        if !(1..=u64::from(MAX_PARTITIONS_PER_TOPIC)).contains(&count) {
            let why = format!("a topic has 1 to {MAX_PARTITIONS_PER_TOPIC}");
            return Err(Refusal::InvalidPartitions { count, why });
        }
        let more = usize::try_from(count.saturating_sub(u64::from(first))).unwrap_or(usize::MAX);
        let partitions = self.image.partition_count().saturating_add(more);
        let most = self.limits.max_partitions;
        if partitions > most { Err(Refusal::TooManyPartitions { partitions, most }) } else { Ok(()) }
    }

    fn place(
        &self,
        topic: Uuid,
        existing: &[&[NodeId]],
        count: u32,
        replication_factor: u16,
    ) -> Result<Vec<Vec<NodeId>>, Refusal> {
        let here = |id: &NodeId| matches!(standing(&self.image, &self.sessions, *id), Standing::Here | Standing::Full);
        let nodes = self.image.nodes().filter(|(id, _)| here(id));
        let nodes: Vec<_> = nodes.map(|(id, node)| Candidate { id, rack: node.rack() }).collect();
        let (seed, wanted) = (topic.as_u64_pair().1, usize::from(replication_factor));
        let placed = if wanted > MAX_REPLICAS { None } else { place(&nodes, existing, count, wanted, seed) };
        placed.ok_or(Refusal::InvalidReplicationFactor { wanted: replication_factor, available: nodes.len() })
    }

    /// Checks replicas that somebody has chosen.
    pub(super) fn check_replicas(&self, replicas: &[NodeId]) -> Result<(), Refusal> {
        let bad = |why: String| Err(Refusal::InvalidReplicaAssignment { why });
        if !(1..=MAX_REPLICAS).contains(&replicas.len()) {
            return bad(format!("a partition has 1 to {MAX_REPLICAS} replicas, not {}", replicas.len()));
        }
        if !all_differ(replicas) {
            return bad(format!("a node is there twice in {}", list(replicas)));
        }
        for id in replicas {
            match self.image.node(*id) {
                None => return bad(format!("there is no node {id}")),
                Some(node) if node.registration.is_none() => return bad(format!("node {id} has never registered")),
                Some(node) if node.draining => return bad(format!("node {id} is being drained")),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn check_new_replicas(&self, replicas: &[NodeId], factor: usize) -> Result<(), Refusal> {
        self.check_replicas(replicas)?;
        let bad = |why: String| Err(Refusal::InvalidReplicaAssignment { why });
        if replicas.len() != factor {
            return bad(format!("one partition has {factor} replicas, another {}", replicas.len()));
        }
        if !replicas.iter().any(|id| self.image.is_active(*id)) {
            return bad(format!("none of the nodes {} is running", list(replicas)));
        }
        Ok(())
    }

    fn put_new_partitions(&mut self, topic: Uuid, first: u32, replicas: &[Vec<NodeId>], records: &mut Vec<Record>) {
        for (index, replicas) in (first..).zip(replicas) {
            // A new partition is empty, so whoever is there is in sync.
            let isr: Vec<NodeId> = replicas.iter().copied().filter(|id| self.image.is_active(*id)).collect();
            let leader = isr.first().copied();
            let state = PartitionState { replicas: replicas.clone(), isr, leader, ..PartitionState::default() };
            self.decide(Record::Partition { topic, index, state }, records);
        }
    }
}

fn check_config(name: &str, config: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let bytes = config.iter().map(|(name, value)| name.len() + value.len()).sum();
    let most = MAX_TOPIC_CONFIG_BYTES;
    if bytes > most { Err(Refusal::ConfigTooLarge { name: name.to_owned(), bytes, most }) } else { Ok(()) }
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}
