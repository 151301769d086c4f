//! What single clients see, case by case.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::records::RecordOf;
use super::super::{Beat, Catalog, ConsumerGroup, Effect, Heartbeat, Partition, Phase, Shape, TopicId};
use crate::Millis;
use crate::group::{GroupError, Limits, Name};

const SESSION: i64 = 45_000;
const REBALANCE: i64 = 20_000;
const TOPIC: TopicId = TopicId([7; 16]);

type Answer = Result<Beat, GroupError>;

/// A group and what has happened in it; each heartbeat's token tells who waits.
struct Room {
    group: ConsumerGroup<u64>,
    now: Millis,
    catalog: Catalog,
    token: u64,
    answers: BTreeMap<u64, Answer>,
    unstored: Vec<Vec<(RecordOf, Option<Bytes>)>>,
    durable: BTreeMap<RecordOf, Bytes>,
}

fn catalog(version: u64, partitions: i32) -> Catalog {
    let topics = [("t".into(), Shape { id: TOPIC, partitions })].into();
    Catalog { version, topics, hidden: BTreeSet::new() }
}

fn beat(id: &str, epoch: i32) -> Heartbeat<u64> {
    Heartbeat {
        to: 0,
        id: id.into(),
        epoch,
        instance: None,
        rack: None,
        client_id: "client".into(),
        client_host: "host".into(),
        rebalance_timeout: None,
        topics: None,
        regex: None,
        assignor: None,
        owned: None,
    }
}

fn join(id: &str) -> Heartbeat<u64> {
    let topics = Some(vec!["t".into()]);
    Heartbeat { rebalance_timeout: Some(REBALANCE), topics, owned: Some(Vec::new()), ..beat(id, 0) }
}

fn has(id: &str, epoch: i32, indexes: &[i32]) -> Heartbeat<u64> {
    let part = |index: &i32| Partition { topic: TOPIC, index: *index };
    Heartbeat { owned: Some(indexes.iter().map(part).collect()), ..beat(id, epoch) }
}

fn of(instance: &str, beat: Heartbeat<u64>) -> Heartbeat<u64> {
    Heartbeat { instance: Some(instance.into()), ..beat }
}

impl Room {
    fn new(partitions: i32) -> Room {
        Room {
            group: ConsumerGroup::new(Limits::default()),
            now: Millis(0),
            catalog: catalog(1, partitions),
            token: 0,
            answers: BTreeMap::new(),
            unstored: Vec::new(),
            durable: BTreeMap::new(),
        }
    }

    fn with(&mut self, call: impl FnOnce(&mut ConsumerGroup<u64>, Millis, &Catalog, &mut Vec<Effect<u64>>)) {
        let mut effects = Vec::new();
        call(&mut self.group, self.now, &self.catalog, &mut effects);
        for effect in effects {
            match effect {
                Effect::Answer { to, answer } => drop(self.answers.insert(to, answer)),
                Effect::Persist(records) => self.unstored.push(records),
            }
        }
    }

    /// Sends it; its token.
    fn send(&mut self, beat: Heartbeat<u64>) -> u64 {
        self.token += 1;
        let beat = Heartbeat { to: self.token, ..beat };
        self.with(|group, now, catalog, effects| group.heartbeat(now, beat, catalog, effects));
        self.token
    }

    fn store(&mut self) {
        while let Some(records) = self.unstored.pop() {
            for (of, value) in records {
                match value {
                    Some(value) => self.durable.insert(of, value),
                    None => self.durable.remove(&of),
                };
            }
            self.with(|group, _, _, effects| group.stored(effects));
        }
    }

    /// Its answer, once all is stored.
    fn call(&mut self, beat: Heartbeat<u64>) -> Answer {
        let token = self.send(beat);
        self.store();
        self.answers.remove(&token).expect("an answer")
    }

    /// The epoch, and the partitions if the answer names them.
    fn told(&mut self, beat: Heartbeat<u64>) -> (i32, Option<Vec<i32>>) {
        let answer = self.call(beat).expect("no refusal");
        (answer.epoch, answer.assignment.map(|parts| parts.iter().map(|part| part.index).collect()))
    }

    fn refused(&mut self, beat: Heartbeat<u64>) -> GroupError {
        self.call(beat).expect_err("a refusal")
    }

    fn pass(&mut self, ms: i64) {
        self.now = self.now.after(ms);
        self.with(|group, now, catalog, effects| group.tick(now, catalog, effects));
        self.store();
    }

    fn restart(&mut self) {
        let records: Vec<_> = self.durable.clone().into_iter().collect();
        self.group = ConsumerGroup::restore(Limits::default(), records, self.now);
    }
}

#[test]
fn a_partition_moves_when_its_owner_has_let_go_of_it() {
    let mut room = Room::new(4);
    assert_eq!(room.told(join("a")), (1, Some(vec![0, 1, 2, 3])));
    assert_eq!(room.told(join("b")), (2, Some(vec![])), "all of it is a's still");
    assert_eq!(room.group.phase(), Phase::Reconciling);
    assert_eq!(room.told(beat("a", 1)), (1, Some(vec![0, 1])), "a stays where it is until it has let go");
    assert_eq!(room.told(beat("b", 2)), (2, None));
    assert_eq!(room.told(has("a", 1, &[0, 1, 2])), (1, None), "not of all");
    assert_eq!(room.told(beat("b", 2)), (2, None));
    assert_eq!(room.told(has("a", 1, &[0, 1])), (2, None));
    assert_eq!(room.told(beat("b", 2)), (2, Some(vec![2, 3])));
    assert_eq!(room.group.phase(), Phase::Stable);
    assert_eq!(room.told(beat("b", 2)), (2, None), "said once");
}

#[test]
fn nothing_is_answered_before_it_is_stored() {
    let mut room = Room::new(4);
    let a = room.send(join("a"));
    let again = room.send(join("b"));
    assert!(room.answers.is_empty());
    assert_eq!(room.unstored.len(), 1, "one batch at a time");
    let first = room.unstored.pop().expect("a batch");
    room.with(|group, _, _, effects| group.stored(effects));
    assert!(room.answers.contains_key(&a) && !room.answers.contains_key(&again));
    assert!(first.iter().all(|(of, _)| of.member().is_none_or(|id| &**id == "a")));
    room.store();
    assert!(room.answers.contains_key(&again));
    // Nothing changes: at once, and without a record.
    let idle = room.send(beat("a", 1));
    let told = room.told(has("a", 1, &[0, 1, 2, 3]));
    assert_eq!(told.0, 1);
    room.answers.remove(&idle);
    let idle = room.send(beat("b", 2));
    assert!(room.unstored.is_empty() && room.answers.contains_key(&idle));
}

#[test]
fn a_group_whose_batch_is_lost_goes_on_from_what_is_stored() {
    let mut room = Room::new(4);
    room.told(join("a"));
    let b = room.send(join("b"));
    let group = std::mem::replace(&mut room.group, ConsumerGroup::new(Limits::default()));
    room.unstored.clear();
    assert_eq!(group.abandon().collect::<Vec<_>>(), [b]);
    room.restart();
    assert_eq!((room.group.epoch(), room.group.members().count()), (1, 1));
    assert_eq!(room.told(beat("a", 1)), (1, None));
    assert_eq!(room.told(join("b")), (2, Some(vec![])));
}

#[test]
fn members_go_on_after_a_restart_without_a_rebalance() {
    let mut room = Room::new(4);
    room.told(join("a"));
    room.told(join("b"));
    room.told(beat("a", 1));
    room.restart();
    assert_eq!(room.told(beat("a", 1)), (1, None), "what a is to give up is stored");
    assert_eq!(room.told(has("a", 1, &[0, 1])), (2, None));
    room.restart();
    assert_eq!(room.told(beat("b", 2)), (2, Some(vec![2, 3])));
    room.restart();
    assert_eq!((room.told(beat("a", 2)), room.told(beat("b", 2))), ((2, None), (2, None)));
    assert_eq!((room.group.epoch(), room.group.phase()), (2, Phase::Stable));
}

#[test]
fn epochs_of_others_and_of_before_are_fenced() {
    let mut room = Room::new(2);
    assert_eq!(room.refused(beat("a", 3)), GroupError::UnknownMemberId);
    room.told(join("a"));
    room.told(join("b"));
    assert_eq!(room.refused(beat("a", 2)), GroupError::FencedMemberEpoch);
    room.told(beat("a", 1));
    room.told(has("a", 1, &[0]));
    // The answer with epoch 2 was lost: what it has is what it shall have.
    assert_eq!(room.told(Heartbeat { rebalance_timeout: Some(REBALANCE), ..has("a", 1, &[0]) }).0, 2);
    assert_eq!(room.refused(has("a", 1, &[0, 1])), GroupError::FencedMemberEpoch);
    assert_eq!(room.group.may_commit(1, "a", None), Err(GroupError::StaleMemberEpoch));
    assert_eq!(room.group.may_commit(2, "a", None), Ok(()));
    assert_eq!(room.group.may_commit(-1, "", None), Err(GroupError::UnknownMemberId));
    assert_eq!(room.told(join("a")), (2, Some(vec![0])), "one that was fenced joins again under its id");
}

#[test]
fn a_member_that_falls_silent_or_does_not_let_go_in_time_is_out() {
    let mut room = Room::new(4);
    room.told(join("a"));
    room.told(join("b"));
    room.told(beat("a", 1));
    room.pass(REBALANCE / 2);
    room.told(beat("a", 1));
    assert_eq!(room.told(beat("b", 2)), (2, None));
    room.pass(REBALANCE / 2);
    assert_eq!(room.refused(beat("a", 1)), GroupError::UnknownMemberId);
    assert_eq!(room.told(beat("b", 2)), (3, Some(vec![0, 1, 2, 3])));
    room.pass(SESSION - 1);
    assert_eq!(room.told(beat("b", 3)), (3, None));
    room.pass(SESSION);
    assert_eq!(room.refused(beat("b", 3)), GroupError::UnknownMemberId);
    assert_eq!(room.group.phase(), Phase::Empty);
    assert_eq!(room.group.may_commit(-1, "", None), Ok(()), "an operator may, while nobody is in");
}

#[test]
fn a_static_member_that_comes_back_has_what_it_had_and_disturbs_nobody() {
    let mut room = Room::new(4);
    room.told(of("one", join("a")));
    room.told(join("b"));
    room.told(of("one", beat("a", 1)));
    room.told(of("one", has("a", 1, &[0, 1])));
    room.told(beat("b", 2));
    assert_eq!(room.refused(of("one", join("c"))), GroupError::UnreleasedInstanceId);
    assert_eq!(room.told(of("one", beat("a", -2))).0, -2);
    assert_eq!(room.refused(of("one", beat("a", 2))), GroupError::FencedMemberEpoch);
    assert_eq!(room.told(of("one", join("c"))), (2, Some(vec![0, 1])));
    assert_eq!(room.refused(of("one", beat("a", 2))), GroupError::FencedInstanceId);
    assert_eq!(room.group.may_commit(2, "a", Some("one")), Err(GroupError::FencedInstanceId));
    assert_eq!(room.told(beat("b", 2)), (2, None));
    assert_eq!(room.group.epoch(), 2);
    // One that does not come back is out when its session ends.
    room.told(of("one", beat("c", -2)));
    room.pass(SESSION / 2);
    room.told(beat("b", 2));
    room.pass(SESSION / 2);
    assert_eq!(room.told(beat("b", 2)), (3, Some(vec![0, 1, 2, 3])));
    assert_eq!(room.refused(of("one", beat("c", -1))), GroupError::UnknownMemberId);
}

#[test]
fn topics_that_grow_and_topics_found_by_expression_are_taken_in() {
    let mut room = Room::new(2);
    let by_regex = Heartbeat { topics: Some(vec![]), regex: Some("t|u.*".into()), ..join("a") };
    assert_eq!(room.told(by_regex), (1, Some(vec![0, 1])));
    room.catalog = catalog(2, 3);
    assert_eq!(room.told(beat("a", 1)), (2, Some(vec![0, 1, 2])));
    room.catalog.version = 3;
    room.catalog.topics.insert("unit".into(), Shape { id: TopicId([9; 16]), partitions: 1 });
    assert_eq!(room.told(beat("a", 2)), (3, Some(vec![0, 1, 2, 0])));
    assert!(room.group.subscribes("unit") && !room.group.subscribes("other"));
    let bad = Heartbeat { regex: Some("(".into()), ..beat("a", 3) };
    assert_eq!(room.refused(bad), GroupError::InvalidRegularExpression);
    let unknown = Heartbeat { assignor: Some("sticky".into()), ..beat("a", 3) };
    assert_eq!(room.refused(unknown), GroupError::UnsupportedAssignor);
    // Of a topic that is gone nothing is left once it is let go of.
    room.catalog = Catalog { version: 4, ..Catalog::default() };
    assert_eq!(room.told(beat("a", 3)), (3, Some(vec![])));
    assert_eq!(room.told(has("a", 3, &[])), (4, None));
    assert_eq!(room.group.phase(), Phase::Stable);
}

#[test]
fn a_member_that_is_sent_away_is_none_any_more() {
    let mut room = Room::new(2);
    room.told(of("one", join("a")));
    assert_eq!(room.group.member_of("one"), Some(&"a".into()));
    let ids: [Name; 2] = ["a".into(), "b".into()];
    let mut gone = Vec::new();
    room.with(|group, _, catalog, effects| gone = group.send_away(&ids, catalog, effects));
    assert_eq!(gone, [true, false]);
    assert_eq!(room.refused(of("one", beat("a", 1))), GroupError::UnknownMemberId);
}

#[test]
fn a_group_takes_so_many_members_and_no_more() {
    let mut room = Room::new(2);
    room.group = ConsumerGroup::new(Limits { max_size: 1, ..Limits::default() });
    room.told(join("a"));
    assert_eq!(room.refused(join("b")), GroupError::GroupMaxSizeReached);
    assert_eq!(room.told(join("a")).0, 1);
}
