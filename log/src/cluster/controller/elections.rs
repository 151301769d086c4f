//! Leaders by request and by the clock: back to the preferred ones (KIP-183, KIP-460).

use uuid::Uuid;

use super::Controller;
use super::change::{Change, Elect};
use super::refusal::Refusal;
use super::request::{Elected, ElectionType, Reply};
use crate::cluster::record::{PartitionState, Record};
use crate::units::Millis;

impl Controller {
    pub(super) fn elect_leaders(
        &mut self,
        election: ElectionType,
        partitions: Option<Vec<(Uuid, u32)>>,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        if election == ElectionType::Unclean {
            return Err(Refusal::UncleanElection);
        }
        let is_asked = partitions.is_some();
        let all = || self.image.partitions().map(|(topic, index, _)| (topic.id, index)).collect();
        let partitions: Vec<(Uuid, u32)> = partitions.unwrap_or_else(all);
        self.check_count(partitions.len())?;
        let mut elected = Vec::new();
        for (topic, index) in partitions {
            let outcome = self.elect_preferred(topic, index, records);
            // Who asks for all wants to know of those that are not as they should be.
            if is_asked || outcome != Err(Refusal::ElectionNotNeeded) {
                elected.push(Elected { topic, index, outcome });
            }
        }
        Ok(Reply::Elected { partitions: elected })
    }

    fn elect_preferred(&mut self, topic: Uuid, index: u32, records: &mut Vec<Record>) -> Result<(), Refusal> {
        let before = self.partition(topic, index)?;
        let Some(preferred) = before.replicas.first().copied() else { return Err(Refusal::ElectionNotNeeded) };
        if before.leader == Some(preferred) {
            return Err(Refusal::ElectionNotNeeded);
        }
        match Change::electing(before, Elect::Preferred).build(&self.image, &self.sessions) {
            Some(state) if state.leader == Some(preferred) => {
                self.decide(Record::Partition { topic, index, state }, records);
                Ok(())
            }
            _ => Err(Refusal::PreferredLeaderNotAvailable { id: preferred }),
        }
    }

    /// Balances once more within a short time, unless that is due before.
    pub(super) fn balance_soon(&mut self, now: Millis) {
        self.balance_at = self.balance_at.min(now.after(self.limits.balance_after_return));
    }

    /// Moves leaderships to their preferred leaders, a bounded number of them.
    pub(super) fn balance(&mut self, now: Millis, records: &mut Vec<Record>) {
        let most = self.limits.leadership_moves;
        let elsewhere = |state: &PartitionState| state.leader.as_ref() != state.replicas.first();
        let moved = self.change_partitions(most, |state| elsewhere(state).then_some(Elect::Preferred), records);
        let limits = &self.limits;
        self.balance_at = now.after(if moved == most { limits.move_interval } else { limits.balance_interval });
    }
}
