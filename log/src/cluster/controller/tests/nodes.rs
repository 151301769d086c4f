//! Who may join, come back and leave; and the level that all support.

use super::*;
use crate::units::Level;

fn register(lab: &mut Lab, registration: Register) -> Result<(), Refusal> {
    lab.ask(Request::Register(registration)).map(|_| ())
}

#[test]
fn a_cluster_is_made_once() {
    let mut controller = Controller::new(Image::default(), Limits::default(), BTreeSet::new(), Millis(0));
    let mut records = Vec::new();
    let mut ask = |request| controller.handle(Millis(0), request, &mut records);
    assert_eq!(ask(Request::Register(registration(1, 1))), Err(Refusal::NoCluster));
    let create = |nodes: &[i32]| Request::CreateCluster { id: CLUSTER, nodes: ids(nodes) };
    for bad in [&[][..], &[1, 1], &[-1], &[1; 65]] {
        assert_eq!(ask(create(bad)), Err(Refusal::InvalidNodes { most: 64 }));
    }
    ask(create(&[1, 2, 3])).unwrap();
    assert_eq!(ask(create(&[1])), Err(Refusal::ClusterExists { id: CLUSTER }));
    assert_eq!((controller.image().cluster(), controller.image().nodes().len()), (Some(CLUSTER), 3));
}

#[test]
fn strangers_and_nodes_of_other_clusters_are_refused() {
    let mut lab = Lab::of(2);
    let theirs = Uuid::from_u128(7);
    let foreign = Register { cluster: Some(theirs), ..registration(2, 2) };
    let refusal = register(&mut lab, foreign).unwrap_err();
    assert_eq!(refusal, Refusal::WrongCluster { id: NodeId(2), ours: CLUSTER, theirs });
    assert!(refusal.to_string().contains("empty data directory"), "{refusal}");
    assert_eq!(register(&mut lab, registration(3, 1)), Err(Refusal::UnknownNode { id: NodeId(3) }));
    lab.ask(Request::AddNode { id: NodeId(3) }).unwrap();
    assert_eq!(lab.ask(Request::AddNode { id: NodeId(3) }), Err(Refusal::NodeExists { id: NodeId(3) }));
    lab.start(3, 1);
    assert_eq!(lab.here(), [1, 2, 3]);
    let long = Register { rack: Some("x".repeat(256)), ..registration(3, 2) };
    assert!(matches!(register(&mut lab, long), Err(Refusal::InvalidRegistration { .. })));
}

#[test]
fn the_number_of_nodes_is_bounded() {
    let mut lab = Lab::of(1);
    for id in 2..=64 {
        lab.ask(Request::AddNode { id: NodeId(id) }).unwrap();
    }
    assert_eq!(lab.ask(Request::AddNode { id: NodeId(65) }), Err(Refusal::TooManyNodes { most: 64 }));
}

#[test]
fn a_registration_that_is_sent_twice_is_the_same() {
    let mut lab = Lab::of(1);
    let records = lab.records.len();
    register(&mut lab, registration(1, 1)).unwrap();
    assert_eq!(lab.records.len(), records);
    assert_eq!(lab.here(), [1]);
    let moved = Register { rack: Some("a".to_owned()), ..registration(1, 1) };
    let stale = Refusal::StaleIncarnation { id: NodeId(1), known: Incarnation(1), got: Incarnation(1) };
    assert_eq!(register(&mut lab, moved), Err(stale.clone()), "two nodes with one id");
    // A disk that is put back from a backup counts up to a number that was there before, and has less than that process had.
    let other = Register { process: Uuid::from_u128(77), ..registration(1, 1) };
    assert_eq!(register(&mut lab, other), Err(stale));
}

#[test]
fn a_node_with_another_disk_does_not_pass_for_itself() {
    let mut lab = Lab::of(2);
    lab.topic(&[&[2, 1]]);
    let other = |id| Register { directory: Uuid::from_u128(99), ..registration(id, 2) };
    let known = Uuid::from_u128(2);
    let refusal = Refusal::OtherDirectory { id: NodeId(2), known, got: Uuid::from_u128(99) };
    assert_eq!(register(&mut lab, other(2)), Err(refusal), "it holds a replica");
    lab.ask(Request::DeleteTopic { topic: TOPIC }).unwrap();
    register(&mut lab, other(2)).unwrap();
    assert!(matches!(register(&mut lab, other(1)), Err(Refusal::OtherDirectory { .. })), "it votes");
}

#[test]
fn a_node_leaves_when_it_is_empty_stopped_and_has_no_vote() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[2]]);
    let remove = |lab: &mut Lab, id| lab.ask(Request::RemoveNode { id: NodeId(id) });
    assert_eq!(remove(&mut lab, 2), Err(Refusal::NodeHasReplicas { id: NodeId(2), replicas: 1 }));
    assert_eq!(remove(&mut lab, 1), Err(Refusal::NodeVotes { id: NodeId(1) }));
    assert_eq!(remove(&mut lab, 3), Err(Refusal::NodeAlive { id: NodeId(3) }));
    lab.lose(3);
    remove(&mut lab, 3).unwrap();
    assert_eq!(remove(&mut lab, 3), Err(Refusal::UnknownNode { id: NodeId(3) }));
    assert_eq!(register(&mut lab, registration(3, 2)), Err(Refusal::UnknownNode { id: NodeId(3) }));
    lab.ask(Request::AddNode { id: NodeId(3) }).unwrap();
    register(&mut lab, Register { directory: Uuid::from_u128(99), ..registration(3, 1) }).unwrap();
    lab.controller.set_voters(BTreeSet::from([NodeId(3)]));
    assert_eq!(remove(&mut lab, 3), Err(Refusal::NodeVotes { id: NodeId(3) }));
}

#[test]
fn a_node_that_does_not_support_the_level_is_told_so() {
    let mut lab = Lab::of(1);
    let levels = LevelRange { least: Level(2), most: Level(3) };
    let refusal = register(&mut lab, Register { levels, ..registration(1, 2) }).unwrap_err();
    assert_eq!(refusal, Refusal::UnsupportedLevel { id: NodeId(1), level: Level(1), levels });
    assert!(refusal.to_string().contains("levels 2 to 3, the cluster runs at level 1"), "{refusal}");
}

/// A cluster at level 1 of nodes that are to be upgraded; this controller's release supports levels 1 to 3.
fn old_cluster(nodes: &[i32]) -> Lab {
    let mut lab = Lab::of(1);
    let mut image = Image::default();
    image.apply(&Record::ClusterCreated { id: CLUSTER, level: Level(1), nodes: ids(nodes) });
    let levels = LevelRange { least: Level(1), most: Level(3) };
    lab.controller = Controller::new(image, Limits { levels, ..Limits::default() }, BTreeSet::new(), lab.now);
    lab
}

fn register_at(lab: &mut Lab, id: i32, incarnation: u64, most: u16) {
    let levels = LevelRange { least: Level(1), most: Level(most) };
    register(lab, Register { levels, ..registration(id, incarnation) }).unwrap();
}

#[test]
fn the_level_rises_when_all_nodes_support_it() {
    let mut lab = old_cluster(&[1, 2, 3]);
    let level = |lab: &Lab| lab.controller.image().level().0;
    register_at(&mut lab, 1, 1, 3);
    register_at(&mut lab, 2, 1, 1);
    register_at(&mut lab, 2, 2, 3);
    assert_eq!(level(&lab), 1, "node 3 has not said yet what it supports");
    register_at(&mut lab, 3, 1, 1);
    assert_eq!(level(&lab), 1);
    register_at(&mut lab, 3, 2, 2);
    assert_eq!(level(&lab), 2);
    for id in 1..=3 {
        register_at(&mut lab, id, 4, 9);
    }
    assert_eq!(level(&lab), 3, "no further than this release knows");
    let older = Register { levels: LevelRange { least: Level(1), most: Level(2) }, ..registration(2, 5) };
    assert!(matches!(register(&mut lab, older), Err(Refusal::UnsupportedLevel { .. })));
}

#[test]
fn the_level_rises_when_the_last_old_node_is_removed() {
    let mut lab = old_cluster(&[1, 2]);
    register_at(&mut lab, 1, 1, 2);
    register_at(&mut lab, 2, 1, 1);
    lab.ask(Request::RemoveNode { id: NodeId(2) }).unwrap();
    assert_eq!(lab.records.last(), Some(&Record::LevelFinalised { level: Level(2) }));
}
