//! Draining: empties nodes step by step, leaderships first, then a few replicas at once.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Controller;
use super::change::{Elect, Standing, standing};
use crate::cluster::record::{PartitionState, Record};
use crate::units::{Millis, NodeId};

impl Controller {
    /// One step: leaderships go to others that are in sync, and as many partitions move as may at once.
    pub(super) fn drain(&mut self, now: Millis, records: &mut Vec<Record>) {
        let draining: BTreeSet<NodeId> =
            self.image.nodes().filter(|(_, node)| node.draining).map(|(id, _)| id).collect();
        let leads = |state: &PartitionState| state.leader.is_some_and(|leader| draining.contains(&leader));
        self.change_partitions(self.limits.leadership_moves, |state| leads(state).then_some(Elect::Best), records);

        for (topic, index, target) in self.next_moves(&draining) {
            // What cannot be moved now, because a reassignment is about to end, can be in the next step.
            let _ = self.reassign(topic, index, &target, records);
        }
        let is_left = |state: &PartitionState| state.replicas.iter().any(|id| draining.contains(id));
        let more = self.image.partitions().any(|(_, _, state)| is_left(state));
        self.drain_at = more.then(|| now.after(self.limits.move_interval));
    }

    /// Which partitions move next, and where to.
    fn next_moves(&self, draining: &BTreeSet<NodeId>) -> Vec<(Uuid, u32, Vec<NodeId>)> {
        let mut loads: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut moving = 0;
        for (_, _, state) in self.image.partitions() {
            staying(state).for_each(|id| *loads.entry(id).or_default() += 1);
            moving += usize::from(state.removing.iter().any(|id| draining.contains(id)));
        }
        let mut moves = Vec::new();
        for (topic, index, state) in self.image.partitions() {
            if moving >= self.limits.drain_moves {
                break;
            }
            if !staying(state).any(|id| draining.contains(&id)) {
                continue;
            }
            if let Some(target) = self.target(state, draining, &mut loads) {
                moving += usize::from(!state.removing.iter().any(|id| draining.contains(id)));
                moves.push((topic.id, index, target));
            }
        }
        moves
    }

    /// The partition's replicas with others in the places of those being drained: in racks that it is not in yet, if
    /// there are any, and where the fewest replicas are. None when there is no place.
    fn target(
        &self,
        state: &PartitionState,
        draining: &BTreeSet<NodeId>,
        loads: &mut BTreeMap<NodeId, usize>,
    ) -> Option<Vec<NodeId>> {
        let rack = |id: NodeId| self.image.node(id).and_then(|node| node.rack());
        let mut target: Vec<NodeId> = staying(state).collect();
        for place in 0..target.len() {
            let leaving = target[place];
            if !draining.contains(&leaving) {
                continue;
            }
            let stay = || target.iter().filter(|id| **id != leaving);
            let can =
                |id: &NodeId| standing(&self.image, &self.sessions, *id) == Standing::Here && !target.contains(id);
            let next = self.image.nodes().map(|(id, _)| id).filter(can).min_by_key(|id| {
                let shares = rack(*id).is_some_and(|site| stay().any(|other| rack(*other) == Some(site)));
                (shares, loads.get(id).copied().unwrap_or_default())
            })?;
            target[place] = next;
        }
        for id in &target {
            *loads.entry(*id).or_default() += usize::from(!state.replicas.contains(id));
        }
        Some(target)
    }
}

/// The replicas that stay when what is under way has ended.
fn staying(state: &PartitionState) -> impl Iterator<Item = NodeId> {
    state.replicas.iter().copied().filter(|id| !state.removing.contains(id))
}
