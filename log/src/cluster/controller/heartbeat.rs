//! Who is there: heartbeats, suspicions, fencing, and the controlled shutdown.

use super::Controller;
use super::change::Elect;
use super::request::HeartbeatReply;
use crate::cluster::node::{Liveness, Node};
use crate::cluster::record::{PartitionState, Record};
use crate::units::{MetadataVersion, Millis, NodeId};

impl Controller {
    /// Takes note that a node is there, whose incarnation is checked.
    pub(super) fn heartbeat(
        &mut self,
        now: Millis,
        id: NodeId,
        applied: MetadataVersion,
        wants_shutdown: bool,
        records: &mut Vec<Record>,
    ) -> HeartbeatReply {
        self.sessions.heard(id, now, applied);
        let liveness = self.image.node(id).map(|node| node.liveness).unwrap_or_default();
        match liveness {
            Liveness::Fenced if wants_shutdown => HeartbeatReply { fenced: true, stopping: true, may_shut_down: true },
            Liveness::Fenced => {
                let has_caught_up = self.registered_since(id).is_some_and(|since| applied >= since);
                if has_caught_up {
                    self.unfence(now, id, applied, records);
                }
                HeartbeatReply { fenced: !has_caught_up, stopping: false, may_shut_down: false }
            }
            Liveness::Unfenced if wants_shutdown => {
                self.decide(Record::NodeStopping { id }, records);
                self.follow_nodes(&[id], records);
                self.stopping(id, records)
            }
            Liveness::Unfenced => HeartbeatReply { fenced: false, stopping: false, may_shut_down: false },
            Liveness::Stopping => self.stopping(id, records),
        }
    }

    fn registered_since(&self, id: NodeId) -> Option<MetadataVersion> {
        self.image.node(id)?.registration.as_ref().map(|registration| registration.since)
    }

    fn unfence(&mut self, now: Millis, id: NodeId, applied: MetadataVersion, records: &mut Vec<Record>) {
        self.decide(Record::NodeUnfenced { id }, records);
        self.sessions.begin(id, now, applied);
        self.follow_nodes(&[id], records);
        if self.drain_at.is_some() || self.image.node(id).is_some_and(|node| node.draining) {
            self.drain_at = Some(now);
        }
    }

    /// A node that wants to end may do so when the others know that they lead what was its own: then no client is sent
    /// to it any more.
    fn stopping(&mut self, id: NodeId, records: &mut Vec<Record>) -> HeartbeatReply {
        let may_shut_down = self.sessions.is_handed_over(id, self.image.version());
        if may_shut_down {
            self.fence(&[id], records);
        }
        HeartbeatReply { fenced: may_shut_down, stopping: true, may_shut_down }
    }

    /// A node says whether its disk has room. Without, it leads only what nobody else can, until it has room again.
    pub(super) fn take_note_of_room(&mut self, now: Millis, id: NodeId, full: bool, records: &mut Vec<Record>) {
        let was = self.sessions.is_full(id);
        self.sessions.set_full(id, full);
        if full {
            let leads = |state: &PartitionState| state.leader == Some(id);
            self.change_partitions(usize::MAX, |state| leads(state).then_some(Elect::Keep), records);
        } else if was {
            self.balance_soon(now);
        }
    }

    /// Node `by` cannot reach a node, whose incarnation is checked. It is fenced unless it is heard of within a short
    /// time.
    pub(super) fn suspect(&mut self, now: Millis, id: NodeId, by: NodeId, records: &mut Vec<Record>) {
        if by == id || !self.image.is_active(by) {
            return;
        }
        self.sessions.suspect(id);
        if self.sessions.expired(now, &self.limits).contains(&id) {
            self.fence(&[id], records);
        }
    }

    /// Fences nodes: what they lead, others lead that are in sync, and they are in sync nowhere where others are.
    /// Nodes that are silent together are fenced together, so that none of them follows another as leader.
    pub(super) fn fence(&mut self, ids: &[NodeId], records: &mut Vec<Record>) {
        for id in ids {
            self.sessions.end(*id);
            if self.image.node(*id).is_some_and(|node: &Node| node.liveness != Liveness::Fenced) {
                self.decide(Record::NodeFenced { id: *id }, records);
            }
        }
        if !ids.is_empty() {
            self.follow_nodes(ids, records);
        }
    }
}
