//! Heartbeats, silence, suspicion, and controlled shutdown.

use super::*;

#[test]
fn a_node_that_has_registered_counts_when_it_knows_of_it() {
    let mut lab = Lab::of(2);
    let reply = lab.ask(Request::Register(registration(2, 2))).unwrap();
    let Reply::Registered { since } = reply else { panic!("{reply:?}") };
    let fenced = |reply| matches!(reply, Reply::Heartbeat(HeartbeatReply { fenced: true, .. }));
    assert!(fenced(lab.try_beat(2, MetadataVersion(since.0 - 1), false).unwrap()));
    assert!(!fenced(lab.try_beat(2, since, false).unwrap()));
}

#[test]
fn a_silent_node_is_fenced_when_its_session_is_over_and_others_lead() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    lab.pass(limits::SESSION_TIMEOUT_MS - 1, &[2, 3]);
    assert_eq!(lab.at(), (1, vec![1, 2, 3], 0, 0));
    lab.pass(1, &[2, 3]);
    assert_eq!(lab.at(), (2, vec![2, 3], 1, 1));
}

#[test]
fn the_last_one_in_sync_stays_so_and_leads_again_when_it_returns() {
    let mut lab = Lab::of(2);
    lab.topic(&[&[1, 2]]);
    lab.lose(2);
    assert_eq!(lab.at(), (1, vec![1], 0, 1));
    lab.start(2, 2);
    lab.lose(1);
    assert_eq!(lab.at(), (-1, vec![1], 1, 2), "node 2 is there and has not everything");
    lab.start(1, 2);
    assert_eq!(lab.at(), (1, vec![1], 2, 3));
}

#[test]
fn nodes_that_are_silent_together_stay_in_sync_together() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3]]);
    lab.pass(limits::SESSION_TIMEOUT_MS, &[]);
    assert_eq!(lab.at(), (-1, vec![1, 2, 3], 1, 1));
    lab.beat(3, false);
    assert_eq!(lab.at(), (3, vec![3], 2, 2), "any of them may lead; who is not there is out of sync");
}

#[test]
fn a_suspect_is_fenced_only_when_it_is_not_heard_of() {
    let suspect = |lab: &mut Lab, by: i32| {
        let incarnation = lab.incarnation(1);
        lab.ask(Request::Suspect { id: NodeId(1), incarnation, by: NodeId(by) }).unwrap();
    };
    let is_active = |lab: &Lab| lab.controller.image().is_active(NodeId(1));
    let mut lab = Lab::of(3);
    lab.pass(1000, &[1, 2, 3]);
    suspect(&mut lab, 2);
    assert!(is_active(&lab), "it was heard of a moment ago");
    lab.beat(1, false);
    lab.pass(limits::SESSION_TIMEOUT_MS - 1, &[2, 3]);
    assert!(is_active(&lab), "it was heard of since, and its session is not over");

    lab.beat(1, false);
    suspect(&mut lab, 1);
    suspect(&mut lab, 9);
    lab.pass(limits::SUSPICION_GRACE_MS, &[2, 3]);
    assert!(is_active(&lab), "nodes suspect others, and only those count that are there");

    lab.beat(1, false);
    suspect(&mut lab, 2);
    lab.pass(limits::SUSPICION_GRACE_MS - 1, &[2, 3]);
    assert!(is_active(&lab));
    lab.pass(1, &[2, 3]);
    assert!(!is_active(&lab), "silent, and somebody has found it gone");

    lab.start(1, 2);
    lab.pass(limits::SUSPICION_GRACE_MS, &[2, 3]);
    suspect(&mut lab, 2);
    assert!(!is_active(&lab), "silent for long enough already");
}

#[test]
fn a_process_of_the_past_is_not_heard() {
    let mut lab = Lab::of(2);
    lab.topic(&[&[1, 2]]);
    let old = lab.incarnation(1);
    lab.ask(Request::Register(registration(1, 2))).unwrap();
    assert_eq!(lab.at(), (2, vec![2], 1, 1), "what the old process led, node 2 leads");
    let applied = lab.controller.image().version();
    let beat = Request::Heartbeat { id: NodeId(1), incarnation: old, applied, full: false, wants_shutdown: false };
    let known = Incarnation(2);
    assert_eq!(lab.ask(beat), Err(Refusal::StaleIncarnation { id: NodeId(1), known, got: old }));
    let stranger = Request::Heartbeat { id: NodeId(9), incarnation: old, applied, full: false, wants_shutdown: false };
    assert_eq!(lab.ask(stranger), Err(Refusal::NotRegistered { id: NodeId(9) }));
}

#[test]
fn a_new_controller_gives_every_node_a_whole_session() {
    let mut lab = Lab::of(2);
    lab.pass(limits::SESSION_TIMEOUT_MS - 1, &[2]);
    let image = lab.controller.image().clone();
    lab.controller = Controller::new(image, Limits::default(), BTreeSet::new(), lab.now);
    lab.pass(limits::SESSION_TIMEOUT_MS - 1, &[2]);
    assert_eq!(lab.here(), [1, 2]);
    lab.pass(1, &[2]);
    assert_eq!(lab.here(), [2]);
}

#[test]
fn a_new_controller_waits_for_one_that_others_find_gone_as_long_as_a_heartbeat_takes() {
    let mut lab = Lab::of(3);
    let image = lab.controller.image().clone();
    lab.controller = Controller::new(image, Limits::default(), BTreeSet::new(), lab.now);
    let incarnation = lab.incarnation(1);
    lab.ask(Request::Suspect { id: NodeId(1), incarnation, by: NodeId(2) }).unwrap();
    let wait = limits::SUSPICION_GRACE_MS - limits::HEARTBEAT_INTERVAL_MS;
    lab.pass(wait - 1, &[2, 3]);
    assert_eq!(lab.here(), [1, 2, 3]);
    lab.pass(1, &[2, 3]);
    assert_eq!(lab.here(), [2, 3]);
}

#[test]
fn a_node_may_end_when_the_others_know_that_they_lead() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3], &[1, 2, 3]]);
    lab.isr(1, &[1]).unwrap();
    let moved = lab.beat(1, true);
    assert_eq!(moved, HeartbeatReply { fenced: false, stopping: true, may_shut_down: false });
    assert_eq!(lab.at(), (2, vec![2, 3], 1, 1));
    assert_eq!(lab.state(1).leader, Some(NodeId(1)), "nobody else can lead it: it goes on until the end");
    assert_eq!(lab.isr(0, &[2, 3, 1]), Err(Refusal::IneligibleReplica { id: NodeId(1) }));

    lab.beat(2, false);
    assert!(!lab.beat(1, true).may_shut_down, "node 3 does not know yet");
    lab.beat(3, false);
    assert!(lab.beat(1, true).may_shut_down);
    assert_eq!((lab.state(1).leader, lab.state(1).isr), (None, ids(&[1])));
    assert!(lab.beat(1, true).may_shut_down, "it asks again if the answer was lost");

    lab.start(1, 2);
    assert_eq!(lab.state(1).leader, Some(NodeId(1)));
}

#[test]
fn a_leader_that_is_about_to_end_hands_over_to_one_that_comes_in_sync() {
    let mut lab = Lab::of(2);
    lab.topic(&[&[1, 2]]);
    lab.isr(0, &[1]).unwrap();
    lab.beat(1, true);
    assert_eq!(lab.at(), (1, vec![1], 0, 1));
    lab.isr(0, &[1, 2]).unwrap();
    assert_eq!(lab.at(), (2, vec![2], 1, 2));
}

#[test]
fn a_single_node_may_end_at_once() {
    let mut lab = Lab::of(1);
    lab.topic(&[&[1]]);
    assert!(lab.beat(1, true).may_shut_down);
}

#[test]
fn a_new_controller_completes_a_decision_that_was_committed_in_part() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3], &[1, 3, 2], &[2, 1, 3]]);
    let mut image = lab.controller.image().clone();
    let from = lab.records.len();
    lab.lose(1);
    let decided = lab.records[from..].to_vec();
    assert_eq!(decided.len(), 4, "the node, and its partitions");
    for committed in 0..=decided.len() {
        let mut image = image.clone();
        decided[..committed].iter().for_each(|record| image.apply(record));
        let (limits, voters) = (lab.controller.limits, lab.controller.voters.clone());
        let mut next = Controller::new(image, limits, voters, lab.now);
        let mut records = Vec::new();
        next.take_over(&mut records);
        check_settled(next.image()).unwrap();
        let missing = if committed == 0 { &decided[..0] } else { &decided[committed..] };
        assert_eq!(records, missing);
    }
    decided.iter().for_each(|record| image.apply(record));
    assert_eq!(&image, lab.controller.image());
}

#[test]
fn what_a_node_without_room_leads_others_lead_until_it_has_room() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2, 3], &[1, 2, 3]]);
    lab.isr(1, &[1]).unwrap();
    let beat = |lab: &mut Lab, full| {
        let (incarnation, applied) = (lab.incarnation(1), lab.controller.image().version());
        lab.ask(Request::Heartbeat { id: NodeId(1), incarnation, applied, full, wants_shutdown: false }).unwrap();
    };
    beat(&mut lab, true);
    assert_eq!(lab.at(), (2, vec![1, 2, 3], 1, 1), "it is in sync as long as it keeps up");
    assert_eq!(lab.state(1).leader, Some(NodeId(1)), "nobody else can lead it");
    lab.isr(1, &[1, 2]).unwrap();
    assert_eq!(lab.state(1).leader, Some(NodeId(2)), "now somebody can");
    let preferred = Request::ElectLeaders { election: ElectionType::Preferred, partitions: None };
    lab.ask(preferred).unwrap();
    assert_eq!(lab.state(0).leader, Some(NodeId(2)));

    beat(&mut lab, false);
    lab.pass(limits::BALANCE_AFTER_RETURN_MS, &[1, 2, 3]);
    assert_eq!((lab.state(0).leader, lab.state(1).leader), (Some(NodeId(1)), Some(NodeId(1))));
}
