//! Reassignments: replicas move to other nodes while the partition is read and written (KIP-455).

use uuid::Uuid;

use super::Controller;
use super::change::Change;
use super::refusal::Refusal;
use super::request::{Reassign, Reply};
use crate::cluster::record::{PartitionState, Record};
use crate::units::NodeId;

impl Controller {
    pub(super) fn alter_reassignments(
        &mut self,
        wanted: Vec<Reassign>,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        self.check_count(wanted.len())?;
        let partitions = wanted.into_iter().map(|Reassign { topic, index, target }| {
            let target = match target {
                Some(target) => {
                    self.partition(topic, index)?;
                    self.check_replicas(&target)?;
                    target
                }
                None => {
                    let state = self.partition(topic, index)?;
                    if !state.is_reassigning() {
                        return Err(Refusal::NoReassignmentInProgress);
                    }
                    original(state)
                }
            };
            self.reassign(topic, index, &target, records)
        });
        Ok(Reply::Reassigned { partitions: partitions.collect() })
    }

    /// Begins to move the partition to other replicas, or changes where it moves to. What an earlier reassignment
    /// brought and this one does not want leaves at once.
    pub(super) fn reassign(
        &mut self,
        topic: Uuid,
        index: u32,
        target: &[NodeId],
        records: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        let before = self.partition(topic, index)?;
        let original = original(before);
        let mut change = Change::of(before);
        let PartitionState { replicas, isr, adding, removing, .. } = &mut change.wanted;
        isr.retain(|id| original.contains(id) || target.contains(id));
        if isr.is_empty() {
            return Err(Refusal::ReassignmentInProgress);
        }
        *adding = target.iter().copied().filter(|id| !original.contains(id)).collect();
        *removing = original.iter().copied().filter(|id| !target.contains(id)).collect();
        *replicas = target.iter().chain(&*removing).copied().collect();
        if let Some(state) = change.build(&self.image, &self.sessions) {
            self.decide(Record::Partition { topic, index, state }, records);
        }
        Ok(())
    }
}

/// The replicas without those that a reassignment brings.
fn original(state: &PartitionState) -> Vec<NodeId> {
    state.replicas.iter().copied().filter(|id| !state.adding.contains(id)).collect()
}
