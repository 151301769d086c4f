//! In-sync replicas and elections.

use super::*;
use crate::units::{Epoch, PartitionEpoch};

#[test]
fn leaders_shrink_and_grow_the_in_sync_replicas() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    let after = lab.isr(0, &[1, 3]).unwrap();
    assert_eq!((after.isr, after.leader_epoch.0, after.partition_epoch.0), (ids(&[1, 3]), 0, 1));
    lab.isr(0, &[1, 3, 2]).unwrap();
    assert_eq!(lab.at(), (1, vec![1, 3, 2], 0, 2));
    lab.isr(0, &[1, 3, 2]).unwrap();
    assert_eq!(lab.at(), (1, vec![1, 3, 2], 0, 2), "the same once more is no change");
}

#[test]
fn proposals_of_another_time_are_refused() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    let old = lab.proposal(0, &[1]);
    lab.isr(0, &[1, 2]).unwrap();
    assert_eq!(lab.propose(1, old.clone()), Err(Refusal::InvalidUpdateVersion));
    let ahead = AlterPartition { partition_epoch: PartitionEpoch(2), ..old.clone() };
    assert_eq!(lab.propose(1, ahead), Err(Refusal::NotController));
    let ahead = AlterPartition { leader_epoch: Epoch(1), partition_epoch: PartitionEpoch(1), ..old.clone() };
    assert_eq!(lab.propose(1, ahead), Err(Refusal::NotController));
    let foreign = lab.proposal(0, &[2]);
    assert!(matches!(lab.propose(2, foreign), Err(Refusal::InvalidRequest { .. })));

    lab.lose(1);
    lab.start(1, 2);
    assert_eq!(lab.propose(1, old), Err(Refusal::FencedLeaderEpoch));
    assert_eq!(lab.at(), (2, vec![2], 1, 2));
}

#[test]
fn who_is_not_there_does_not_come_in_sync() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    let mut of_an_old_process = lab.proposal(0, &[1, 2]);
    lab.lose(3);
    assert_eq!(lab.isr(0, &[1, 2, 3]), Err(Refusal::IneligibleReplica { id: NodeId(3) }));
    lab.start(2, 2);
    of_an_old_process.partition_epoch = lab.state(0).partition_epoch;
    assert_eq!(lab.propose(1, of_an_old_process), Err(Refusal::IneligibleReplica { id: NodeId(2) }));
    assert_eq!(lab.at().1, [1]);
}

#[test]
fn proposals_that_make_no_sense_are_refused() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2]]);
    for isr in [&[2][..], &[], &[1, 1], &[1, 3]] {
        assert!(matches!(lab.isr(0, isr), Err(Refusal::InvalidRequest { .. })), "{isr:?}");
    }
    let nowhere = AlterPartition { index: 7, ..lab.proposal(0, &[1]) };
    assert!(matches!(lab.propose(1, nowhere), Err(Refusal::UnknownPartition { index: 7, .. })));
    let nowhere = AlterPartition { topic: CLUSTER, ..lab.proposal(0, &[1]) };
    assert_eq!(lab.propose(1, nowhere), Err(Refusal::UnknownTopicId { id: CLUSTER }));
}

#[test]
fn one_bad_proposal_does_not_hold_up_the_others() {
    let mut lab = Lab::of(2);
    lab.topic(&[&[1, 2], &[1, 2]]);
    let partitions = vec![lab.proposal(0, &[2]), lab.proposal(1, &[1])];
    let request = Request::AlterPartitions { from: NodeId(1), incarnation: lab.incarnation(1), partitions };
    let Ok(Reply::Altered { partitions }) = lab.ask(request) else { panic!() };
    assert!(partitions[0].is_err() && partitions[1].is_ok());
    assert_eq!((lab.state(0).isr.len(), lab.state(1).isr.len()), (2, 1));
}

fn elect(lab: &mut Lab, election: ElectionType, partitions: Option<Vec<(Uuid, u32)>>) -> Result<Vec<Elected>, Refusal> {
    lab.ask(Request::ElectLeaders { election, partitions }).map(|reply| match reply {
        Reply::Elected { partitions } => partitions,
        other => panic!("{other:?}"),
    })
}

#[test]
fn preferred_leaders_are_elected_on_request() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2], &[2, 3], &[1, 3], &[1, 2]]);
    lab.lose(1);
    lab.start(1, 2);
    lab.isr(0, &[2, 1]).unwrap();
    lab.isr(3, &[2, 1]).unwrap();
    let of = |index, outcome| Elected { topic: TOPIC, index, outcome };
    let away = Refusal::PreferredLeaderNotAvailable { id: NodeId(1) };
    let asked = Some(vec![(TOPIC, 0), (TOPIC, 1), (TOPIC, 2)]);
    let elected = elect(&mut lab, ElectionType::Preferred, asked).unwrap();
    let needless = Err(Refusal::ElectionNotNeeded);
    assert_eq!(elected, [of(0, Ok(())), of(1, needless), of(2, Err(away.clone()))]);
    assert_eq!(lab.at(), (1, vec![2, 1], 2, 3));
    assert_eq!(lab.state(3).leader, Some(NodeId(2)), "it was not asked for");
    assert_eq!(elect(&mut lab, ElectionType::Preferred, None).unwrap(), [of(2, Err(away)), of(3, Ok(()))]);
    assert_eq!(elect(&mut lab, ElectionType::Unclean, None), Err(Refusal::UncleanElection));
}

#[test]
fn leaderships_go_back_by_themselves_a_few_at_a_time() {
    let mut lab = Lab::of(2);
    lab.topic(&[&[1, 2][..]; 5]);
    lab.pass(limits::BALANCE_AFTER_RETURN_MS, &[1, 2]);
    lab.lose(1);
    lab.start(1, 2);
    lab.pass(limits::BALANCE_AFTER_RETURN_MS, &[1, 2]);
    for index in 0..5 {
        lab.isr(index, &[2, 1]).unwrap();
    }
    let led = |lab: &Lab| lab.controller.image().hosting(NodeId(1)).leaderships;
    lab.pass(limits::BALANCE_AFTER_RETURN_MS - 1, &[1, 2]);
    assert_eq!(led(&lab), 0);
    lab.pass(1, &[1, 2]);
    assert_eq!(led(&lab), 3, "as many as may move at once");
    lab.pass(limits::MOVE_INTERVAL_MS, &[1, 2]);
    assert_eq!(led(&lab), 5);
}

#[test]
fn ten_thousand_partitions_follow_a_node_that_is_gone() {
    let mut lab = Lab::of(3);
    for topic in 0..10u128 {
        let replicas = Assignment::Placed { partitions: 1000, replication_factor: 3 };
        lab.create(&format!("t{topic}"), Uuid::from_u128(topic), replicas).unwrap();
    }
    let before = lab.controller.image().hosting(NodeId(1));
    assert_eq!((before.replicas, before.leaderships.abs_diff(3333) < 20), (10_000, true), "{before:?}");
    let records = lab.records.len();
    let (incarnation, mut out) = (Incarnation(2), Vec::new());
    let again = Request::Register(Register { incarnation, ..registration(1, 2) });
    lab.controller.handle(lab.now, again, &mut out).unwrap();
    assert_eq!(out.len(), 10_002, "fenced, each partition once, registered; before that {records}");
    check_settled(lab.controller.image()).unwrap();
    assert_eq!(lab.controller.image().hosting(NodeId(1)).leaderships, 0);
}
