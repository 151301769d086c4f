//! The controller: decides how the cluster's metadata changes, as a pure state machine.
//!
//! It runs where the metadata quorum's leader is. [`Controller::handle`] takes a request and the time and gives records
//! and a reply; the records are applied to the controller's own image at once, so that the next decision rests on them.
//! The driver commits the records of one or several calls as one batch, and answers only then; those of one call in several where they
//! are too many. If a batch is not committed, this controller is done for: a new one starts from the committed image, and first
//! completes what it finds there ([`Controller::take_over`]).
//!
//! Who is alive is not in the records but here (`sessions`): a new controller gives every node a whole session.

mod change;
mod drain;
mod elections;
mod heartbeat;
mod isr;
mod nodes;
mod reassign;
mod refusal;
mod register;
mod request;
mod sessions;
mod settings;
mod topics;

use std::collections::BTreeSet;

pub use refusal::Refusal;
pub use request::{
    AlterPartition, Assignment, CreateTopic, Elected, ElectionType, HeartbeatReply, IsrMember, Reassign, Register,
    Reply, Request, SettingChange,
};

use self::change::{Change, Elect};
use self::sessions::Sessions;
use crate::cluster::image::Image;
use crate::cluster::record::{LevelRange, PartitionState, Record};
use crate::limits;
use crate::units::{Millis, NodeId};

/// What the controller allows and how long it waits; times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a node may be silent before it is fenced.
    pub session_timeout: i64,
    /// The same for a node whose connections others had refused or reset.
    pub suspicion_grace: i64,
    /// How often leaderships go back to the preferred leaders.
    pub balance_interval: i64,
    /// How soon they do after a node or a replica has come back.
    pub balance_after_return: i64,
    /// How long between two steps of balancing or draining.
    pub move_interval: i64,
    /// Most leaderships moved in one step.
    pub leadership_moves: usize,
    /// Most partitions whose replicas are moved at once to empty nodes.
    pub drain_moves: usize,
    pub max_nodes: usize,
    pub max_partitions: usize,
    pub max_settings_bytes: usize,
    /// What this release supports.
    pub levels: LevelRange,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            session_timeout: limits::SESSION_TIMEOUT_MS,
            suspicion_grace: limits::SUSPICION_GRACE_MS,
            balance_interval: limits::BALANCE_INTERVAL_MS,
            balance_after_return: limits::BALANCE_AFTER_RETURN_MS,
            move_interval: limits::MOVE_INTERVAL_MS,
            leadership_moves: limits::LEADERSHIP_MOVES,
            drain_moves: limits::DRAIN_MOVES,
            max_nodes: limits::MAX_NODES,
            max_partitions: limits::MAX_CLUSTER_PARTITIONS,
            max_settings_bytes: limits::MAX_SETTINGS_BYTES,
            levels: LevelRange::OURS,
        }
    }
}

/// The controller of a cluster.
#[derive(Debug)]
pub struct Controller {
    image: Image,
    limits: Limits,
    /// Who votes in the metadata quorum.
    voters: BTreeSet<NodeId>,
    sessions: Sessions,
    balance_at: Millis,
    /// When the next step of draining is due; none while no node is drained.
    drain_at: Option<Millis>,
}

impl Controller {
    /// A controller that becomes the active one now. The time is one that is never set.
    #[must_use]
    pub fn new(image: Image, limits: Limits, voters: BTreeSet<NodeId>, now: Millis) -> Controller {
        let sessions = Sessions::of(&image, now);
        let drain_at = image.nodes().any(|(_, node)| node.draining).then_some(now);
        let balance_at = now.after(limits.balance_after_return);
        Controller { image, limits, voters, sessions, balance_at, drain_at }
    }

    /// Completes what a controller before has left unfinished: what it decided at once may have been too much for one batch, and
    /// only a part of it is committed. To be committed before the first request is handled.
    pub fn take_over(&mut self, records: &mut Vec<Record>) {
        if self.image.cluster().is_some() {
            self.change_partitions(usize::MAX, |_| Some(Elect::Keep), records);
        }
    }

    /// The metadata with all that was decided, committed or not.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Who votes in the metadata quorum from now on: they cannot be removed.
    pub fn set_voters(&mut self, voters: BTreeSet<NodeId>) {
        self.voters = voters;
    }

    /// Decides on a request. The records are to be committed, in their order and with any that a reply of an earlier
    /// call rests upon, before the reply is given.
    ///
    /// # Errors
    /// Why the request changes nothing.
    pub fn handle(&mut self, now: Millis, request: Request, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        if let Request::CreateCluster { id, nodes } = request {
            return self.create_cluster(id, nodes, records);
        }
        if self.image.cluster().is_none() {
            return Err(Refusal::NoCluster);
        }
        match request {
            Request::CreateCluster { id, .. } => Err(Refusal::ClusterExists { id }),
            Request::Register(register) => self.register(register, records),
            Request::Heartbeat { id, incarnation, applied, full, wants_shutdown } => {
                self.check_incarnation(id, incarnation)?;
                let reply = self.heartbeat(now, id, applied, wants_shutdown, records);
                self.take_note_of_room(now, id, full, records);
                Ok(Reply::Heartbeat(reply))
            }
            Request::Suspect { id, incarnation, by } => {
                self.check_incarnation(id, incarnation)?;
                self.suspect(now, id, by, records);
                Ok(Reply::Done)
            }
            Request::CreateTopic(topic) => self.create_topic(topic, records),
            Request::AdoptTopic { id, name, config, node, leader_epochs } => {
                self.adopt_topic((id, name), config, node, &leader_epochs, records)
            }
            Request::CreatePartitions { topic, count, had, assignment, validate_only } => {
                self.create_partitions(topic, (had, count), assignment, validate_only, records)
            }
            Request::DeleteTopic { topic } => self.delete_topic(topic, records),
            Request::AlterConfigs { topic, config, validate_only } => {
                self.alter_configs(topic, config, validate_only, records)
            }
            Request::AlterPartitions { from, incarnation, partitions } => {
                self.check_incarnation(from, incarnation)?;
                self.alter_partitions(now, from, partitions, records)
            }
            Request::ElectLeaders { election, partitions } => self.elect_leaders(election, partitions, records),
            Request::AlterReassignments { partitions } => self.alter_reassignments(partitions, records),
            Request::AddNode { id } => self.add_node(id, records),
            Request::DrainNode { id, draining } => self.drain_node(now, id, draining, records),
            Request::RemoveNode { id } => self.remove_node(id, records),
            Request::PutSettings { changes, expected } => self.put_settings(changes, &expected, records),
            Request::AllocateProducerIds { count } => self.allocate_producer_ids(count, records),
        }
    }

    /// Does what is due: fences nodes that are silent, moves leaderships and replicas, raises the level.
    pub fn tick(&mut self, now: Millis, records: &mut Vec<Record>) {
        let silent = self.sessions.expired(now, &self.limits);
        self.fence(&silent, records);
        self.raise_level(records);
        if self.balance_at <= now {
            self.balance(now, records);
        }
        if self.drain_at.is_some_and(|at| at <= now) {
            self.drain(now, records);
        }
    }

    /// When [`Controller::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Millis {
        let silent = self.sessions.next_expiry(&self.limits);
        [silent, self.drain_at].into_iter().flatten().fold(self.balance_at, Millis::min)
    }

    fn decide(&mut self, record: Record, records: &mut Vec<Record>) {
        debug_assert!(
            record.since() <= self.image.level() || matches!(record, Record::ClusterCreated { .. }),
            "a record that not every node knows"
        );
        self.image.apply(&record);
        records.push(record);
    }

    /// Takes up the partitions for which the selection says what leader to look for, and changes at most `most` of them
    /// where there is something to change. Returns how many were changed.
    fn change_partitions(
        &mut self,
        most: usize,
        select: impl Fn(&PartitionState) -> Option<Elect>,
        records: &mut Vec<Record>,
    ) -> usize {
        let change = |before| Change::electing(before, select(before)?).build(&self.image, &self.sessions);
        let changed: Vec<Record> = self
            .image
            .partitions()
            .filter_map(|(topic, index, before)| {
                change(before).map(|state| Record::Partition { topic: topic.id, index, state })
            })
            .take(most)
            .collect();
        let count = changed.len();
        changed.into_iter().for_each(|record| self.decide(record, records));
        count
    }

    /// Takes up what has become of nodes: who of them is in sync and leads, and who elects another leader.
    fn follow_nodes(&mut self, ids: &[NodeId], records: &mut Vec<Record>) {
        let touched = |state: &PartitionState| state.isr.iter().any(|id| ids.contains(id));
        self.change_partitions(usize::MAX, |state| touched(state).then_some(Elect::Keep), records);
    }
}

#[cfg(test)]
mod tests;
