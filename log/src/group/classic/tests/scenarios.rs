//! What single clients see, case by case.

use bytes::Bytes;

use crate::Millis;
use crate::group::classic::{ClassicGroup, Effect, GroupRecord, Join, Joined, Leaver, Phase, Sync, Synced, Then};
use crate::group::{GroupError, Limits, Name};

const SESSION: i64 = 10_000;
const REBALANCE: i64 = 60_000;

/// A group and what has happened in it; each request's token tells who waits for what.
struct Room {
    group: ClassicGroup<&'static str>,
    now: Millis,
    joined: Vec<(&'static str, Name, Result<Joined, GroupError>)>,
    synced: Vec<(&'static str, Result<Synced, GroupError>)>,
    unstored: Vec<(GroupRecord, Then)>,
    durable: Option<GroupRecord>,
}

impl Room {
    fn new() -> Room {
        let group = ClassicGroup::new(Limits::default());
        Room { group, now: Millis(0), joined: vec![], synced: vec![], unstored: vec![], durable: None }
    }

    fn with(&mut self, call: impl FnOnce(&mut ClassicGroup<&'static str>, Millis, &mut Vec<Effect<&'static str>>)) {
        let mut effects = Vec::new();
        call(&mut self.group, self.now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Joined { to, id, answer } => self.joined.push((to, id, answer)),
                Effect::Synced { to, answer } => self.synced.push((to, answer)),
                Effect::Persist { record, then } => self.unstored.push((record, then)),
            }
        }
    }

    fn join(&mut self, join: Join<&'static str>) {
        self.with(|group, now, effects| group.join(now, join, effects));
    }

    fn sync(&mut self, to: &'static str, generation: i32, assignments: &[(&str, &'static str)]) {
        let assignments = assignments.iter().map(|(id, what)| (Name::from(*id), Bytes::from_static(what.as_bytes())));
        let sync = Sync {
            to,
            id: Name::from(to),
            instance: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.with(|group, now, effects| group.sync(now, sync, effects));
    }

    fn store(&mut self, stored: bool) {
        for (record, then) in std::mem::take(&mut self.unstored) {
            self.durable = self.durable.take().filter(|_| !stored).or(Some(record));
            self.with(|group, now, effects| group.stored(now, then, stored, effects));
        }
    }

    fn pass(&mut self, ms: i64) {
        let end = self.now.after(ms);
        while let Some(next) = self.group.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.with(|group, now, effects| group.tick(now, effects));
        }
        self.now = end;
    }

    fn answer(&mut self, to: &str) -> Result<Joined, GroupError> {
        let at = self.joined.iter().position(|(token, ..)| *token == to).expect("an answer to its join");
        self.joined.remove(at).2
    }

    fn assignment(&mut self, to: &str) -> Result<Bytes, GroupError> {
        let at = self.synced.iter().position(|(token, _)| *token == to).expect("an answer to its sync");
        self.synced.remove(at).1.map(|synced| synced.assignment)
    }

    /// `a` and `b` in one stable generation, `a` leads.
    fn of_two() -> Room {
        let mut room = Room::new();
        room.join(join("a", "", None));
        room.join(join("b", "", None));
        room.pass(5_000);
        let generation = room.answer("a").expect("joined").generation;
        room.answer("b").expect("joined");
        room.sync("b", generation, &[]);
        room.sync("a", generation, &[("a", "0"), ("b", "1")]);
        room.store(true);
        room.synced.clear();
        room
    }
}

/// The token is also the id that the broker would give.
fn join(to: &'static str, id: &str, instance: Option<&str>) -> Join<&'static str> {
    Join {
        to,
        id: Name::from(id),
        new_id: Name::from(to),
        instance: instance.map(Name::from),
        client_id: Name::from("client"),
        client_host: Name::from("host"),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: Name::from("consumer"),
        protocols: vec![(Name::from("range"), Bytes::from_static(b"topics"))],
        takes_id_first: false,
        may_skip_assignment: true,
    }
}

#[test]
fn members_that_start_together_make_one_generation() {
    let mut room = Room::new();
    room.join(join("a", "", None));
    room.pass(200);
    room.join(join("b", "", None));
    room.pass(200);
    assert!(room.joined.is_empty(), "another may be about to join");
    room.pass(1000);
    let (a, b) = (room.answer("a").expect("joined"), room.answer("b").expect("joined"));
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!(a.members.len(), 2, "the leader learns of all");
    assert!(b.members.is_empty());
    assert_eq!(&*b.leader, "a");
}

#[test]
fn nobody_gets_an_assignment_before_it_is_stored() {
    let mut room = Room::new();
    room.join(join("a", "", None));
    room.pass(1000);
    room.sync("a", 1, &[("a", "all")]);
    assert!(room.synced.is_empty());
    room.store(true);
    assert_eq!(room.assignment("a"), Ok(Bytes::from_static(b"all")));
    assert_eq!(room.group.phase(), Phase::Stable);
}

#[test]
fn an_assignment_that_could_not_be_stored_is_given_to_nobody() {
    let mut room = Room::new();
    room.join(join("a", "", None));
    room.pass(1000);
    room.sync("a", 1, &[("a", "all")]);
    room.store(false);
    assert_eq!(room.assignment("a"), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(room.group.heartbeat(room.now, 1, "a", None), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_member_id_comes_first_and_lapses_if_nobody_joins_with_it() {
    let mut room = Room::new();
    room.join(Join { takes_id_first: true, ..join("a", "", None) });
    assert_eq!(room.answer("a"), Err(GroupError::MemberIdRequired));
    room.join(Join { takes_id_first: true, ..join("a", "a", None) });
    room.join(Join { takes_id_first: true, ..join("b", "", None) });
    room.pass(1000);
    assert_eq!(room.answer("a").map(|joined| joined.generation), Ok(1));
    room.pass(SESSION);
    room.join(join("b2", "b", None));
    assert_eq!(room.answer("b2"), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_falls_silent_is_replaced_after_its_session_timeout() {
    let mut room = Room::of_two();
    for _ in 0..4 {
        room.pass(SESSION / 4);
        let _ = room.group.heartbeat(room.now, 1, "a", None);
    }
    assert_eq!(room.group.heartbeat(room.now, 1, "a", None), Err(GroupError::RebalanceInProgress));
    room.join(join("a", "a", None));
    let joined = room.answer("a").expect("b is not waited for");
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_out() {
    let mut room = Room::of_two();
    room.join(join("c", "", None));
    room.join(join("a", "a", None));
    for _ in 0..REBALANCE / 5000 {
        assert!(room.joined.is_empty());
        assert_eq!(room.group.heartbeat(room.now, 1, "b", None), Err(GroupError::RebalanceInProgress));
        room.pass(5000);
    }
    assert_eq!(room.answer("a").map(|joined| joined.members.len()), Ok(2));
    assert_eq!(room.group.heartbeat(room.now, 1, "b", None), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_joins_and_never_syncs_does_not_stay_for_ever() {
    let mut room = Room::of_two();
    room.join(join("c", "", None));
    room.join(join("a", "a", None));
    room.join(join("b", "b", None));
    room.sync("a", 2, &[("a", "0"), ("b", "1"), ("c", "2")]);
    room.sync("b", 2, &[]);
    room.store(true);
    for _ in 0..REBALANCE / 5000 {
        assert_eq!(room.group.heartbeat(room.now, 2, "c", None), Ok(()));
        let _ = room.group.heartbeat(room.now, 2, "a", None);
        let _ = room.group.heartbeat(room.now, 2, "b", None);
        room.pass(5000);
    }
    assert_eq!(room.group.heartbeat(room.now, 2, "c", None), Err(GroupError::UnknownMemberId));
    assert_eq!(room.group.heartbeat(room.now, 2, "a", None), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_lost_answer_is_given_again_and_does_not_disturb_the_others() {
    let mut room = Room::of_two();
    room.join(join("b", "b", None));
    assert_eq!(room.answer("b").map(|joined| joined.generation), Ok(1));
    room.sync("b", 1, &[]);
    assert_eq!(room.assignment("b"), Ok(Bytes::from_static(b"1")));
    assert_eq!(room.group.heartbeat(room.now, 1, "a", None), Ok(()));
}

#[test]
fn a_leader_that_joins_again_gets_a_rebalance() {
    let mut room = Room::of_two();
    room.join(join("a", "a", None));
    assert_eq!(room.group.heartbeat(room.now, 1, "b", None), Err(GroupError::RebalanceInProgress));
}

/// The static member `one`, with the id `a`, leads `b` in a stable generation.
fn led_by_a_static_member() -> Room {
    let mut room = Room::new();
    room.join(join("a", "", Some("one")));
    room.join(join("b", "", None));
    room.pass(1000);
    room.sync("b", 1, &[]);
    let first = Sync {
        to: "a",
        id: "a".into(),
        instance: Some("one".into()),
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![("a".into(), Bytes::from_static(b"0")), ("b".into(), Bytes::from_static(b"1"))],
    };
    room.with(|group, now, effects| group.sync(now, first, effects));
    room.store(true);
    room.joined.clear();
    room.synced.clear();
    room
}

#[test]
fn a_static_member_that_restarts_within_its_session_disturbs_nobody() {
    let mut room = led_by_a_static_member();
    room.join(join("a2", "", Some("one")));
    let joined = room.answer("a2").expect("it is back");
    assert_eq!((joined.generation, &*joined.leader, joined.skip_assignment), (1, "a2", true));
    assert_eq!(room.group.heartbeat(room.now, 1, "b", None), Ok(()));
    assert_eq!(room.group.heartbeat(room.now, 1, "a", Some("one")), Err(GroupError::FencedInstanceId));
    room.sync("a2", 1, &[]);
    assert_eq!(room.assignment("a2"), Ok(Bytes::from_static(b"0")), "what it had is still its own");
}

#[test]
fn a_static_member_that_restarts_before_it_has_its_assignment_is_not_missed_later() {
    let mut room = Room::new();
    room.join(join("b", "", None));
    room.join(join("a", "", Some("one")));
    room.pass(1000);
    room.sync("b", 1, &[("a", "0"), ("b", "1")]);
    room.store(true);
    room.join(join("a2", "", Some("one")));
    assert_eq!(room.answer("a2").map(|joined| joined.generation), Ok(1));
    room.sync("a2", 1, &[]);
    assert_eq!(room.assignment("a2"), Ok(Bytes::from_static(b"0")));
    for _ in 0..2 * REBALANCE / 5000 {
        room.pass(5000);
        assert_eq!(room.group.heartbeat(room.now, 1, "b", None), Ok(()));
        assert_eq!(room.group.heartbeat(room.now, 1, "a2", Some("one")), Ok(()));
    }
}

#[test]
fn a_static_leader_that_cannot_be_told_to_skip_is_told_that_its_former_self_leads() {
    let mut room = led_by_a_static_member();
    room.join(Join { may_skip_assignment: false, ..join("a2", "", Some("one")) });
    let joined = room.answer("a2").expect("it is back");
    assert_eq!((joined.generation, &*joined.leader, joined.members.len()), (1, "a", 0));
    assert_eq!(room.group.heartbeat(room.now, 1, "b", None), Ok(()));
    room.sync("a2", 1, &[]);
    assert_eq!(room.assignment("a2"), Ok(Bytes::from_static(b"0")));
}

#[test]
fn one_without_a_common_protocol_stays_out() {
    let mut room = Room::of_two();
    room.join(Join { protocols: vec![("sticky".into(), Bytes::new())], ..join("c", "", None) });
    assert_eq!(room.answer("c"), Err(GroupError::InconsistentGroupProtocol));
    room.join(Join { protocol_type: "connect".into(), ..join("d", "", None) });
    assert_eq!(room.answer("d"), Err(GroupError::InconsistentGroupProtocol));
    assert_eq!(room.group.heartbeat(room.now, 1, "a", None), Ok(()));
}

#[test]
fn the_protocol_that_most_prefer_is_chosen() {
    let offers = |names: &[&'static str]| names.iter().map(|name| (Name::from(*name), Bytes::new())).collect();
    let mut room = Room::new();
    room.join(Join { protocols: offers(&["range", "sticky"]), ..join("a", "", None) });
    room.join(Join { protocols: offers(&["sticky", "range"]), ..join("b", "", None) });
    room.join(Join { protocols: offers(&["own", "sticky", "range"]), ..join("c", "", None) });
    room.pass(5000);
    assert_eq!(room.answer("a").map(|joined| joined.protocol), Ok("sticky".into()));
}

#[test]
fn the_last_one_to_leave_makes_the_group_empty_and_a_consumer_without_a_group_may_commit() {
    let mut room = Room::of_two();
    let leaver = |id: &str| Leaver { id: id.into(), instance: None };
    room.with(|group, now, effects| assert_eq!(group.leave(now, leaver("a"), effects), Ok(())));
    assert_eq!(room.group.may_commit(room.now, -1, "", None), Err(GroupError::IllegalGeneration));
    room.with(|group, now, effects| assert_eq!(group.leave(now, leaver("b"), effects), Ok(())));
    assert_eq!(room.group.phase(), Phase::Empty);
    assert_eq!(room.group.may_commit(room.now, -1, "", None), Ok(()));
    room.with(|group, now, effects| {
        assert_eq!(group.leave(now, leaver("b"), effects), Err(GroupError::UnknownMemberId));
    });
}

#[test]
fn commits_of_another_generation_are_refused() {
    let mut room = Room::of_two();
    assert_eq!(room.group.may_commit(room.now, 1, "a", None), Ok(()));
    assert_eq!(room.group.may_commit(room.now, 0, "a", None), Err(GroupError::IllegalGeneration));
    assert_eq!(room.group.may_commit(room.now, 1, "x", None), Err(GroupError::UnknownMemberId));
    room.join(join("c", "", None));
    assert_eq!(
        room.group.may_commit(room.now, 1, "a", None),
        Ok(()),
        "before it joins again it stores how far it came"
    );
    room.join(join("a", "a", None));
    room.join(join("b", "b", None));
    assert_eq!(room.group.may_commit(room.now, 2, "a", None), Err(GroupError::RebalanceInProgress));
    room.sync("a", 1, &[("a", "all")]);
    assert_eq!(room.assignment("a"), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_restored_group_goes_on_where_it_was() {
    let mut room = Room::of_two();
    let record = room.durable.clone().expect("stored");
    room.group = ClassicGroup::restore(Limits::default(), &record, room.now);
    assert_eq!(room.group.heartbeat(room.now, 1, "a", None), Ok(()));
    room.sync("b", 1, &[]);
    assert_eq!(room.assignment("b"), Ok(Bytes::from_static(b"1")));
    room.join(join("b", "b", None));
    assert_eq!(room.answer("b").map(|joined| joined.generation), Ok(1));
}
