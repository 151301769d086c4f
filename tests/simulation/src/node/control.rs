//! What a node has to do with the controller: it registers, says that it is there, and proposes in-sync replicas.

use std::collections::BTreeMap;

use forebay_log::cluster::controller::{AlterPartition, IsrMember, Register};
use forebay_log::cluster::{LevelRange, Refusal, Reply, Request};
use forebay_log::partition::IsrChange;
use forebay_log::replication::PartitionId;
use forebay_log::{Incarnation, NodeId, PartitionEpoch};

use super::Done;
use crate::message::{Message, Peer};
use crate::quorum::id_of;
use crate::world::World;

/// How long an answer of the controller is waited for, in milliseconds.
const ASK_MS: i64 = 1000;

/// A request without an answer yet.
pub(crate) struct Asked {
    until: i64,
    what: Question,
}

enum Question {
    Register,
    Heartbeat,
    /// The proposal made at this partition epoch.
    InSync(PartitionId, PartitionEpoch),
    Suspect,
}

/// A change of in-sync replicas that the machine wants.
pub(crate) struct Proposal {
    pub(crate) change: IsrChange,
    /// Asked; the next time that it is due when the answer does not come.
    again_at: i64,
}

impl World {
    pub(crate) fn tick_control(&mut self, place: usize) {
        let now = self.now;
        let Some(live) = self.live(place) else { return };
        live.asks.retain(|_, asked| asked.until > now);
        if now >= live.heartbeat_at {
            live.heartbeat_at = now + 300;
            self.say_here(place);
        }
        let Some(live) = self.live(place) else { return };
        let due: Vec<PartitionId> =
            live.proposals.iter().filter(|(_, proposal)| proposal.again_at <= now).map(|(id, _)| *id).collect();
        for partition in due {
            self.propose_in_sync(place, partition);
        }
        self.suspect(place);
    }

    fn ask(&mut self, place: usize, what: Question, request: Request) {
        let id = self.number();
        let until = self.now + ASK_MS;
        let Some(live) = self.live(place) else { return };
        let Some(controller) = live.hint.1 else { return };
        live.asks.insert(id, Asked { until, what });
        self.send(Peer::Node(place), Peer::Node(controller), Message::Ask { id, request: Box::new(request) });
    }

    fn say_here(&mut self, place: usize) {
        let id = id_of(place);
        let node = &self.nodes[place];
        let Some(live) = &node.live else { return };
        let incarnation = live.incarnation;
        if live.since.is_none() {
            let request = Request::Register(Register {
                id,
                incarnation,
                process: uuid::Uuid::from_u128(incarnation.0.into()),
                directory: node.directory,
                addresses: BTreeMap::new(),
                rack: None,
                levels: LevelRange::OURS,
                cluster: node.image.cluster(),
            });
            return self.ask(place, Question::Register, request);
        }
        let (applied, full, wants_shutdown) = (node.image.version(), node.full, live.wants_shutdown);
        self.ask(place, Question::Heartbeat, Request::Heartbeat { id, incarnation, applied, full, wants_shutdown });
    }

    /// A leader whose process is gone refuses connections: whoever follows it says so.
    fn suspect(&mut self, place: usize) {
        if !self.random.chance(100) {
            return;
        }
        let Some(live) = &self.nodes[place].live else { return };
        let gone = live.pullers.keys().copied().find(|&leader| {
            self.nodes[leader].live.is_none() && self.network.joins(Peer::Node(place), Peer::Node(leader))
        });
        let Some(gone) = gone else { return };
        let known = self.nodes[place].image.node(id_of(gone)).and_then(|node| node.incarnation());
        if let Some(incarnation) = known {
            let request = Request::Suspect { id: id_of(gone), incarnation, by: id_of(place) };
            self.ask(place, Question::Suspect, request);
        }
    }

    /// Takes the changes of in-sync replicas that the machines propose.
    pub(crate) fn take_proposals(&mut self, place: usize) {
        let Some(live) = self.live(place) else { return };
        let mut fresh = Vec::new();
        while let Ok(proposal) = live.proposed.try_recv() {
            let partition = proposal.partition;
            if !live.partitions.contains_key(&partition) {
                continue;
            }
            live.proposals.insert(partition, Proposal { change: proposal.change, again_at: 0 });
            fresh.push(partition);
        }
        for partition in fresh {
            self.propose_in_sync(place, partition);
        }
    }

    fn propose_in_sync(&mut self, place: usize, partition: PartitionId) {
        let (now, me) = (self.now, id_of(place));
        let node = &mut self.nodes[place];
        let known = |id: NodeId| node.image.node(id).and_then(|node| node.incarnation()).unwrap_or(Incarnation(0));
        let Some(live) = &mut node.live else { return };
        let own = live.incarnation;
        let Some(proposal) = live.proposals.get_mut(&partition) else { return };
        proposal.again_at = now + ASK_MS + 200;
        let member = |&(id, incarnation): &(NodeId, Incarnation)| {
            // The machine has not heard from it since it leads: the process that the controller has seen.
            IsrMember { id, incarnation: if incarnation.0 == 0 { known(id) } else { incarnation } }
        };
        let at = proposal.change.partition_epoch;
        let mut isr = vec![IsrMember { id: me, incarnation: own }];
        isr.extend(proposal.change.in_sync.iter().map(member));
        let wanted = AlterPartition {
            topic: partition.topic,
            index: partition.index,
            leader_epoch: proposal.change.epoch,
            partition_epoch: proposal.change.partition_epoch,
            isr,
            fence: false,
        };
        let request = Request::AlterPartitions { from: me, incarnation: own, partitions: vec![wanted] };
        self.ask(place, Question::InSync(partition, at), request);
    }

    pub(crate) fn answered(&mut self, place: usize, id: u64, answer: Option<Box<Result<Reply, Refusal>>>) {
        let Some(live) = self.live(place) else { return };
        let Some(Asked { what, .. }) = live.asks.remove(&id) else { return };
        let Some(answer) = answer else { return };
        match (what, *answer) {
            (Question::Register, Ok(Reply::Registered { since })) => {
                live.since = Some(since);
                live.heartbeat_at = 0;
            }
            (Question::Heartbeat, Ok(Reply::Heartbeat(reply))) if live.wants_shutdown && reply.may_shut_down => {
                self.stop(place);
            }
            (Question::Heartbeat, Err(Refusal::NotRegistered { .. })) => live.since = None,
            (Question::InSync(partition, at), Ok(Reply::Altered { partitions })) => {
                // The answer to an earlier proposal says nothing of this one.
                if live.proposals.get(&partition).is_none_or(|known| known.change.partition_epoch != at) {
                    return;
                }
                let is_refused = match partitions.first() {
                    // As it was: there is nothing to wait for.
                    Some(Ok(state)) => state.partition_epoch == at,
                    Some(Err(Refusal::IneligibleReplica { .. } | Refusal::InvalidRequest { .. })) => true,
                    // Another state is committed, maybe this very change: it comes with the image.
                    _ => false,
                };
                if !is_refused {
                    return;
                }
                live.proposals.remove(&partition);
                if let Some(handle) = live.partitions.get(&partition).cloned() {
                    self.spawn(place, async move {
                        let _ = handle.isr_refused(at).await;
                        Done::Quietly
                    });
                }
            }
            _ => {}
        }
    }
}
