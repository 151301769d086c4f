//! One change of a partition: who is in sync, who leads, whether a reassignment has ended, and the epochs that follow.

use super::sessions::Sessions;
use crate::cluster::image::Image;
use crate::cluster::node::Liveness;
use crate::cluster::record::PartitionState;
use crate::units::NodeId;

/// How much a replica is worth as a leader, and as one in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Away,
    /// It ends soon: only where nobody else can.
    Stopping,
    /// It has no room for more: in sync as long as it keeps up, but what it leads nobody can write to.
    Full,
    /// It is being emptied: as good as others for what it has, not to be given more.
    Draining,
    Here,
}

pub(super) fn standing(image: &Image, sessions: &Sessions, id: NodeId) -> Standing {
    match image.node(id) {
        Some(node) if node.liveness == Liveness::Stopping => Standing::Stopping,
        Some(node) if node.is_active() && node.draining => Standing::Draining,
        Some(node) if node.is_active() && sessions.is_full(id) => Standing::Full,
        Some(node) if node.is_active() => Standing::Here,
        _ => Standing::Away,
    }
}

/// Which leader a change looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elect {
    /// The one there is, as long as it can go on.
    Keep,
    /// The first replica if it can, else as above.
    Preferred,
    /// The one of the best standing: away from nodes that are being emptied.
    Best,
}

/// A change of one partition, to be completed from what the image says of its nodes.
pub(super) struct Change<'a> {
    before: &'a PartitionState,
    /// The state wanted, the leader and the epochs still as they were.
    pub(super) wanted: PartitionState,
    elect: Elect,
}

impl<'a> Change<'a> {
    pub(super) fn of(before: &'a PartitionState) -> Change<'a> {
        Change::electing(before, Elect::Keep)
    }

    pub(super) fn electing(before: &'a PartitionState, elect: Elect) -> Change<'a> {
        Change { before, wanted: before.clone(), elect }
    }

    /// The partition's new state; `None` when it is the same.
    pub(super) fn build(self, image: &Image, sessions: &Sessions) -> Option<PartitionState> {
        let standing = |id| standing(image, sessions, id);
        let Change { before, wanted: mut state, elect } = self;
        keep_the_best_in_sync(&mut state.isr, standing);
        end_reassignment(&mut state);
        state.leader = choose_leader(&state, elect, standing);
        if state == *before {
            return None;
        }
        // A replica that leaves and comes back has nothing: what is said of it from before must not count then.
        let leaves = before.replicas.iter().any(|id| !state.replicas.contains(id));
        if state.leader != before.leader || leaves {
            state.leader_epoch = state.leader_epoch.next();
        }
        state.partition_epoch = state.partition_epoch.next();
        Some(state)
    }
}

/// Fenced replicas leave the in-sync ones as long as one stays that is not; those about to end as well. If none is
/// there all of them stay, since each has every acknowledged record.
fn keep_the_best_in_sync(isr: &mut Vec<NodeId>, standing: impl Fn(NodeId) -> Standing) {
    for least in [Standing::Full, Standing::Stopping] {
        if isr.iter().any(|id| standing(*id) >= least) {
            isr.retain(|id| standing(*id) >= least);
            return;
        }
    }
}

/// Ends the reassignment when all replicas that it brings are in sync (KIP-455).
fn end_reassignment(state: &mut PartitionState) {
    let PartitionState { replicas, isr, adding, removing, .. } = state;
    let stays = |id: &NodeId| !removing.contains(id);
    if adding.iter().all(|id| isr.contains(id)) && isr.iter().any(stays) {
        isr.retain(stays);
        replicas.retain(stays);
        adding.clear();
        removing.clear();
    }
}

fn choose_leader(state: &PartitionState, elect: Elect, standing: impl Fn(NodeId) -> Standing) -> Option<NodeId> {
    let worth = |id: NodeId| {
        let in_sync = state.isr.contains(&id) && state.replicas.contains(&id);
        if in_sync { standing(id) } else { Standing::Away }
    };
    if let Some(preferred) =
        state.replicas.first().filter(|id| elect == Elect::Preferred && worth(**id) == Standing::Here)
    {
        return Some(*preferred);
    }
    let good_enough = if elect == Elect::Best { Standing::Here } else { Standing::Draining };
    if let Some(leader) = state.leader.filter(|leader| worth(*leader) >= good_enough) {
        return Some(leader);
    }
    // In the replicas' order, the leader there is before its equals; `max_by_key` takes the last of equals.
    let rank = |id: &&NodeId| (worth(**id), state.leader == Some(**id));
    state.replicas.iter().rev().max_by_key(rank).copied().filter(|id| worth(*id) > Standing::Away)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cluster::record::Record;
    use crate::units::Millis;

    /// Nodes 1 to 4: 1 and 2 are here, 3 is fenced, 4 is about to end.
    fn image() -> Image {
        let mut image = Image::default();
        let nodes = (1..=4).map(NodeId).collect();
        image.apply(&Record::ClusterCreated { id: Uuid::from_u128(1), level: crate::Level(1), nodes });
        for id in [1, 2] {
            image.apply(&Record::NodeUnfenced { id: NodeId(id) });
        }
        image.apply(&Record::NodeStopping { id: NodeId(4) });
        image
    }

    fn heard() -> Sessions {
        Sessions::of(&image(), Millis(0))
    }

    fn ids(of: &[i32]) -> Vec<NodeId> {
        of.iter().copied().map(NodeId).collect()
    }

    fn state(replicas: &[i32], isr: &[i32], leader: Option<i32>) -> PartitionState {
        PartitionState {
            replicas: ids(replicas),
            isr: ids(isr),
            leader: leader.map(NodeId),
            ..PartitionState::default()
        }
    }

    #[test]
    fn a_fenced_leader_is_followed_by_the_first_replica_in_sync() {
        let after = Change::of(&state(&[3, 2, 1], &[1, 2, 3], Some(3))).build(&image(), &heard()).unwrap();
        assert_eq!((after.leader, &after.isr), (Some(NodeId(2)), &ids(&[1, 2])));
        assert_eq!((after.leader_epoch.0, after.partition_epoch.0), (1, 1));
    }

    #[test]
    fn the_last_one_in_sync_stays_so_and_nobody_else_leads() {
        let after = Change::of(&state(&[3, 2, 1], &[3], Some(3))).build(&image(), &heard()).unwrap();
        assert_eq!((after.leader, &after.isr), (None, &ids(&[3])));
        assert_eq!(Change::of(&after).build(&image(), &heard()), None, "nothing more to change");
    }

    #[test]
    fn one_about_to_end_leads_only_what_nobody_else_can() {
        let after = Change::of(&state(&[4, 1], &[4, 1], Some(4))).build(&image(), &heard()).unwrap();
        assert_eq!((after.leader, &after.isr), (Some(NodeId(1)), &ids(&[1])));
        assert_eq!(Change::of(&state(&[4, 1], &[4], Some(4))).build(&image(), &heard()), None);
    }

    #[test]
    fn a_reassignment_ends_when_all_that_it_brings_are_in_sync() {
        let mut before = state(&[1, 2], &[2], Some(2));
        (before.adding, before.removing) = (ids(&[1]), ids(&[2]));
        assert_eq!(Change::of(&before).build(&image(), &heard()), None);
        let mut change = Change::of(&before);
        change.wanted.isr = ids(&[2, 1]);
        let after = change.build(&image(), &heard()).unwrap();
        assert_eq!((&after.replicas, &after.isr, after.leader), (&ids(&[1]), &ids(&[1]), Some(NodeId(1))));
        assert!(!after.is_reassigning());
        assert_eq!((after.leader_epoch.0, after.partition_epoch.0), (1, 1));
    }

    #[test]
    fn a_replica_that_leaves_ends_the_epoch() {
        let mut before = state(&[1, 2], &[1, 2], Some(1));
        before.removing = ids(&[2]);
        let after = Change::of(&before).build(&image(), &heard()).unwrap();
        assert_eq!((&after.replicas, after.leader, after.leader_epoch.0), (&ids(&[1]), Some(NodeId(1)), 1));
    }

    #[test]
    fn among_equals_the_leader_stays() {
        let mut image = image();
        for id in [1, 2] {
            image.apply(&Record::NodeDraining { id: NodeId(id), draining: true });
        }
        let state = state(&[1, 2], &[1, 2], Some(2));
        assert_eq!(Change::electing(&state, Elect::Best).build(&image, &heard()), None);
    }

    #[test]
    fn the_preferred_leader_is_taken_only_when_it_is_wanted_there_and_in_sync() {
        let elect = |state: &PartitionState| {
            Change::electing(state, Elect::Preferred).build(&image(), &heard()).map(|after| after.leader)
        };
        assert_eq!(Change::of(&state(&[1, 2], &[1, 2], Some(2))).build(&image(), &heard()), None);
        assert_eq!(elect(&state(&[1, 2], &[1, 2], Some(2))), Some(Some(NodeId(1))));
        assert_eq!(elect(&state(&[1, 2], &[2], Some(2))), None);
    }

    #[test]
    fn one_without_room_leads_only_what_nobody_else_can_and_stays_in_sync() {
        let mut heard = heard();
        heard.set_full(NodeId(1), true);
        let both = state(&[1, 2], &[1, 2], Some(1));
        let after = Change::of(&both).build(&image(), &heard).unwrap();
        assert_eq!((after.leader, &after.isr), (Some(NodeId(2)), &ids(&[1, 2])));
        assert_eq!(Change::electing(&after, Elect::Preferred).build(&image(), &heard), None);
        assert_eq!(Change::of(&state(&[1, 2], &[1], Some(1))).build(&image(), &heard), None);
        heard.set_full(NodeId(2), true);
        assert_eq!(Change::of(&both).build(&image(), &heard), None, "among equals the leader stays");
    }
}
