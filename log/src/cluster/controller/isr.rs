//! In-sync replicas: leaders propose them, the controller commits them (KIP-497, KIP-841, KIP-903).

use super::Controller;
use super::change::{Change, Standing, standing};
use super::refusal::Refusal;
use super::request::{AlterPartition, IsrMember, Reply};
use crate::cluster::invariants::all_differ;
use crate::cluster::record::{PartitionState, Record};
use crate::units::{Millis, NodeId};

impl Controller {
    pub(super) fn alter_partitions(
        &mut self,
        now: Millis,
        from: NodeId,
        wanted: Vec<AlterPartition>,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        self.check_count(wanted.len())?;
        let partitions = wanted.into_iter().map(|wanted| self.alter_partition(now, from, wanted, records)).collect();
        Ok(Reply::Altered { partitions })
    }

    fn alter_partition(
        &mut self,
        now: Millis,
        from: NodeId,
        wanted: AlterPartition,
        records: &mut Vec<Record>,
    ) -> Result<PartitionState, Refusal> {
        let AlterPartition { topic, index, isr, fence, .. } = &wanted;
        let before = self.partition(*topic, *index)?;
        check_epochs(before, from, &wanted)?;
        self.check_isr(before, from, isr)?;
        let mut change = Change::of(before);
        change.wanted.isr = isr.iter().map(|member| member.id).collect();
        let after = match change.build(&self.image, &self.sessions) {
            Some(after) => after,
            None if *fence => PartitionState { partition_epoch: before.partition_epoch.next(), ..before.clone() },
            None => return Ok(before.clone()),
        };
        let ended = before.is_reassigning() && !after.is_reassigning();
        let preferred = after.replicas.first().copied();
        let is_back = preferred != after.leader && preferred.is_some_and(|id| after.isr.contains(&id));
        self.decide(Record::Partition { topic: *topic, index: *index, state: after.clone() }, records);
        if is_back {
            self.balance_soon(now);
        }
        if ended && self.drain_at.is_some() {
            self.drain_at = Some(now);
        }
        Ok(after)
    }

    fn check_isr(&self, before: &PartitionState, leader: NodeId, isr: &[IsrMember]) -> Result<(), Refusal> {
        let bad = |why: &str| Err(Refusal::InvalidRequest { why: why.to_owned() });
        let ids: Vec<NodeId> = isr.iter().map(|member| member.id).collect();
        if !ids.contains(&leader) {
            return bad("the leader is not in sync with itself");
        }
        if !all_differ(&ids) || ids.iter().any(|id| !before.replicas.contains(id)) {
            return bad("a node is in it twice, or has no replica");
        }
        for IsrMember { id, incarnation } in isr {
            let is_same = self.image.node(*id).and_then(|node| node.incarnation()) == Some(*incarnation);
            let stays = standing(&self.image, &self.sessions, *id) >= Standing::Full;
            // A leader that is about to end and that nobody can follow goes on as long as it is there.
            if !is_same || !(stays || *id == leader) {
                return Err(Refusal::IneligibleReplica { id: *id });
            }
        }
        Ok(())
    }

    /// Requests of many partitions are bounded by what a cluster can have.
    pub(super) fn check_count(&self, count: usize) -> Result<(), Refusal> {
        let most = self.limits.max_partitions;
        if count > most { Err(Refusal::RequestTooLarge { count, most }) } else { Ok(()) }
    }
}

/// A leader of the past, or one that does not know the newest state, changes nothing.
fn check_epochs(state: &PartitionState, from: NodeId, wanted: &AlterPartition) -> Result<(), Refusal> {
    if wanted.leader_epoch > state.leader_epoch || wanted.partition_epoch > state.partition_epoch {
        return Err(Refusal::NotController);
    }
    if wanted.leader_epoch < state.leader_epoch {
        return Err(Refusal::FencedLeaderEpoch);
    }
    if state.leader != Some(from) {
        return Err(Refusal::InvalidRequest { why: format!("node {from} does not lead this partition") });
    }
    if wanted.partition_epoch < state.partition_epoch {
        return Err(Refusal::InvalidUpdateVersion);
    }
    Ok(())
}
