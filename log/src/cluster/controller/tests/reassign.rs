//! Reassignments, and nodes that are emptied.

use super::*;

fn reassign(lab: &mut Lab, index: u32, target: Option<&[i32]>) -> Result<(), Refusal> {
    let partitions = vec![Reassign { topic: TOPIC, index, target: target.map(ids) }];
    match lab.ask(Request::AlterReassignments { partitions }).unwrap() {
        Reply::Reassigned { mut partitions } => partitions.remove(0),
        other => panic!("{other:?}"),
    }
}

fn drain(lab: &mut Lab, id: i32, draining: bool) -> Result<Reply, Refusal> {
    lab.ask(Request::DrainNode { id: NodeId(id), draining })
}

/// Every replica that is there comes in sync.
fn catch_up(lab: &mut Lab) {
    let all: Vec<(u32, PartitionState)> = lab
        .controller
        .image()
        .topic(TOPIC)
        .unwrap()
        .partitions()
        .map(|(index, state)| (index, state.clone()))
        .collect();
    for (index, state) in all {
        let here: Vec<i32> = lab.here();
        let isr: Vec<i32> = state.replicas.iter().map(|id| id.0).filter(|id| here.contains(id)).collect();
        if state.leader.is_some() {
            lab.isr(index, &isr).unwrap();
        }
    }
}

#[test]
fn a_partition_moves_when_its_new_replicas_are_in_sync() {
    let mut lab = Lab::of(4);
    lab.topic(&[&[1, 2]]);
    reassign(&mut lab, 0, Some(&[3, 4])).unwrap();
    let state = lab.state(0);
    assert_eq!((state.replicas, state.adding, state.removing), (ids(&[3, 4, 1, 2]), ids(&[3, 4]), ids(&[1, 2])));
    assert_eq!(lab.controller.image().reassignments().count(), 1);
    assert_eq!(lab.at(), (1, vec![1, 2], 0, 1), "in the meantime it is led as before");
    lab.isr(0, &[1, 2, 3]).unwrap();
    assert_eq!(lab.at(), (1, vec![1, 2, 3], 0, 2));
    let after = lab.isr(0, &[1, 2, 3, 4]).unwrap();
    assert_eq!((after.replicas, after.adding, after.removing), (ids(&[3, 4]), vec![], vec![]));
    assert_eq!(lab.at(), (3, vec![3, 4], 1, 3));
    assert_eq!(lab.controller.image().reassignments().count(), 0);
}

#[test]
fn fewer_replicas_and_another_order_need_nobody_to_catch_up() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    reassign(&mut lab, 0, Some(&[3, 2, 1])).unwrap();
    assert_eq!((lab.state(0).replicas, lab.at()), (ids(&[3, 2, 1]), (1, vec![1, 2, 3], 0, 1)));
    reassign(&mut lab, 0, Some(&[3, 2])).unwrap();
    assert_eq!((lab.state(0).replicas, lab.at()), (ids(&[3, 2]), (3, vec![2, 3], 1, 2)));
}

#[test]
fn a_reassignment_can_be_cancelled_and_changed() {
    let mut lab = Lab::of(4);
    lab.topic(&[&[1, 2]]);
    assert_eq!(reassign(&mut lab, 0, None), Err(Refusal::NoReassignmentInProgress));
    reassign(&mut lab, 0, Some(&[1, 3])).unwrap();
    reassign(&mut lab, 0, None).unwrap();
    assert_eq!((lab.state(0).replicas, lab.state(0).is_reassigning()), (ids(&[1, 2]), false));

    reassign(&mut lab, 0, Some(&[3, 4])).unwrap();
    lab.isr(0, &[1, 2, 3]).unwrap();
    reassign(&mut lab, 0, Some(&[4, 2])).unwrap();
    let state = lab.state(0);
    assert_eq!((state.replicas, state.adding, state.removing), (ids(&[4, 2, 1]), ids(&[4]), ids(&[1])));
    assert_eq!(state.isr, ids(&[1, 2]), "node 3 is not wanted any more");
}

#[test]
fn what_only_new_replicas_have_is_not_cancelled() {
    let mut lab = Lab::of(4);
    lab.topic(&[&[1]]);
    reassign(&mut lab, 0, Some(&[3, 4])).unwrap();
    lab.isr(0, &[1, 3]).unwrap();
    lab.lose(1);
    assert_eq!(lab.at().1, [3]);
    assert_eq!(reassign(&mut lab, 0, None), Err(Refusal::ReassignmentInProgress));
    assert_eq!(reassign(&mut lab, 0, Some(&[2])), Err(Refusal::ReassignmentInProgress));
}

#[test]
fn reassignments_that_cannot_be_are_refused() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2]]);
    drain(&mut lab, 3, true).unwrap();
    for bad in [&[][..], &[1, 1], &[9], &[3]] {
        assert!(matches!(reassign(&mut lab, 0, Some(bad)), Err(Refusal::InvalidReplicaAssignment { .. })), "{bad:?}");
    }
    assert!(matches!(reassign(&mut lab, 5, None), Err(Refusal::UnknownPartition { .. })));
}

#[test]
fn a_drained_node_leads_nothing_at_once_and_holds_nothing_in_the_end() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2][..]; 5]);
    let at_once = lab.controller.limits;
    drain(&mut lab, 1, true).unwrap();
    let hosting = lab.controller.image().hosting(NodeId(1));
    assert_eq!((hosting.leaderships, hosting.leaving), (5 - at_once.leadership_moves, at_once.drain_moves));
    lab.pass(at_once.move_interval, &[1, 2, 3]);
    assert_eq!(lab.controller.image().hosting(NodeId(1)).leaderships, 0);
    let removed = |lab: &mut Lab| lab.ask(Request::RemoveNode { id: NodeId(1) });
    assert_eq!(removed(&mut lab), Err(Refusal::NodeHasReplicas { id: NodeId(1), replicas: 5 }));
    for _ in 0..5 {
        catch_up(&mut lab);
        lab.pass(1, &[1, 2, 3]);
        assert!(lab.controller.image().hosting(NodeId(1)).leaving <= at_once.drain_moves);
    }
    assert_eq!(lab.controller.image().hosting(NodeId(1)), Default::default());
    assert_eq!(lab.controller.drain_at, None);
    assert_eq!(lab.state(0).replicas, ids(&[3, 2]));
    let new = Assignment::Placed { partitions: 4, replication_factor: 2 };
    lab.create("more", Uuid::from_u128(0x71), new).unwrap();
    assert_eq!(lab.controller.image().hosting(NodeId(1)).replicas, 0, "it gets no new ones");
}

#[test]
fn a_drain_that_cannot_end_is_refused() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    let refusal =
        Refusal::NotEnoughNodes { id: NodeId(1), topic: "readings".to_owned(), index: 0, replicas: 3, left: 2 };
    assert_eq!(drain(&mut lab, 1, true), Err(refusal));
    assert_eq!(drain(&mut lab, 9, true), Err(Refusal::UnknownNode { id: NodeId(9) }));
    assert!(!lab.controller.image().node(NodeId(1)).unwrap().draining);
}

#[test]
fn a_drain_goes_on_elsewhere_when_its_target_is_drained_too() {
    let mut lab = Lab::of(4);
    lab.topic(&[&[1, 2]]);
    drain(&mut lab, 1, true).unwrap();
    assert_eq!(lab.state(0).adding, ids(&[3]));
    lab.lose(3);
    drain(&mut lab, 3, true).unwrap();
    assert_eq!(lab.state(0).adding, ids(&[4]));
    catch_up(&mut lab);
    assert_eq!(lab.state(0).replicas, ids(&[4, 2]));
}

#[test]
fn a_drain_ends_after_the_controller_has_moved_and_can_be_taken_back() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2][..]; 5]);
    drain(&mut lab, 1, true).unwrap();
    let image = lab.controller.image().clone();
    lab.controller = Controller::new(image, lab.controller.limits, BTreeSet::new(), lab.now);
    catch_up(&mut lab);
    lab.pass(2 * limits::BALANCE_AFTER_RETURN_MS, &[1, 2, 3]);
    assert_eq!(lab.controller.image().hosting(NodeId(1)).leaving, 2);
    drain(&mut lab, 1, false).unwrap();
    catch_up(&mut lab);
    lab.pass(limits::BALANCE_AFTER_RETURN_MS + limits::MOVE_INTERVAL_MS, &[1, 2, 3]);
    let hosting = lab.controller.image().hosting(NodeId(1));
    assert_eq!((hosting.replicas, hosting.leaderships), (1, 1), "what had not begun to move stays, and is led again");
}

#[test]
fn replicas_move_to_racks_that_a_partition_is_not_in() {
    let mut lab = Lab::of(4);
    for (id, rack) in [(1, "a"), (2, "b"), (3, "b"), (4, "a")] {
        lab.ask(Request::Register(Register { rack: Some(rack.to_owned()), ..registration(id, 2) })).unwrap();
        lab.beat(id, false);
    }
    lab.topic(&[&[1, 2]]);
    drain(&mut lab, 1, true).unwrap();
    assert_eq!(lab.state(0).adding, ids(&[4]));
}
