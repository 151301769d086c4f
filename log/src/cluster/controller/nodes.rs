//! Nodes that are added to the cluster and taken out of it.

use super::Controller;
use super::refusal::Refusal;
use super::request::Reply;
use crate::cluster::node::{Liveness, Node};
use crate::cluster::record::Record;
use crate::units::{Millis, NodeId};

impl Controller {
    pub(super) fn add_node(&mut self, id: NodeId, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        let most = self.limits.max_nodes;
        if id.0 < 0 {
            return Err(Refusal::InvalidNodes { most });
        }
        if self.image.node(id).is_some() {
            return Err(Refusal::NodeExists { id });
        }
        if self.image.nodes().len() >= most {
            return Err(Refusal::TooManyNodes { most });
        }
        self.decide(Record::NodeAdded { id }, records);
        Ok(Reply::Done)
    }

    pub(super) fn drain_node(
        &mut self,
        now: Millis,
        id: NodeId,
        draining: bool,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        let node = self.node(id)?;
        if node.draining == draining {
            return Ok(Reply::Done);
        }
        if draining {
            self.check_drain(id)?;
        }
        self.decide(Record::NodeDraining { id, draining }, records);
        if draining {
            self.drain(now, records);
        } else {
            self.balance_soon(now);
        }
        Ok(Reply::Done)
    }

    /// Whether the other nodes can hold what this one holds.
    fn check_drain(&self, id: NodeId) -> Result<(), Refusal> {
        let can_hold = |node: &Node| node.registration.is_some() && !node.draining;
        let left = self.image.nodes().filter(|(other, node)| *other != id && can_hold(node)).count();
        for (topic, index, state) in self.image.partitions() {
            let replicas = state.replicas.len() - state.removing.len();
            let is_on_it = state.replicas.contains(&id) && !state.removing.contains(&id);
            if is_on_it && replicas > left {
                return Err(Refusal::NotEnoughNodes { id, topic: topic.name.clone(), index, replicas, left });
            }
        }
        Ok(())
    }

    pub(super) fn remove_node(&mut self, id: NodeId, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        let node = self.node(id)?;
        let replicas = self.image.hosting(id).replicas;
        if replicas > 0 {
            return Err(Refusal::NodeHasReplicas { id, replicas });
        }
        if self.voters.contains(&id) {
            return Err(Refusal::NodeVotes { id });
        }
        if node.liveness != Liveness::Fenced {
            return Err(Refusal::NodeAlive { id });
        }
        self.decide(Record::NodeRemoved { id }, records);
        self.raise_level(records);
        Ok(Reply::Done)
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node, Refusal> {
        self.image.node(id).ok_or(Refusal::UnknownNode { id })
    }
}
