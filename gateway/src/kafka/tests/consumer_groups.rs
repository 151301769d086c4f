//! Groups of the consumer protocol over a real log: after a restart, beside classic ones, and when they are removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::{Log, LogOptions, RealFiles};
use forebay_disk::sim::{Faults, SimFiles};
use forebay_log::Millis;
use forebay_log::TopicConfig;
use forebay_log::group::classic::{Join, Leaver};
use forebay_log::group::consumer::{Beat, Heartbeat, Partition};
use forebay_log::group::{GroupError, Name};
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::super::Shared;
use super::super::groups::{Answer, Ask, Committed, Membership, TopicPartition};
use super::super::limits::GROUP_MEMORY;
use crate::reader::Reader;

const GROUP: &str = "billing";
const TOPIC: &str = "readings";

fn open(folder: &tempfile::TempDir) -> Shared {
    let options = LogOptions { shards: 1, fsync: true, alone: true };
    super::shared(Log::open(RealFiles::open(folder.path()).unwrap(), options).unwrap(), Reader::new(None))
}

async fn with_topic(folder: &tempfile::TempDir) -> Shared {
    let shared = open(folder);
    shared.door.log.create_topic(TOPIC, 4, TopicConfig::default()).await.unwrap();
    shared
}

async fn beat(shared: &Shared, group: &str, id: &str, epoch: i32) -> Result<Beat, GroupError> {
    beat_for(shared, group, id, epoch, TOPIC).await
}

async fn beat_for(shared: &Shared, group: &str, id: &str, epoch: i32, topic: &str) -> Result<Beat, GroupError> {
    let joins = epoch == 0;
    let (to, answer) = oneshot::channel();
    let beat = Heartbeat {
        to,
        id: id.into(),
        epoch,
        instance: None,
        rack: None,
        client_id: "reader".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout: joins.then_some(10_000),
        topics: joins.then(|| vec![topic.into()]),
        regex: None,
        assignor: None,
        owned: joins.then(Vec::new),
    };
    shared.groups.ask(&shared.door.log, group, Ask::Beat(beat)).await.map_err(|refusal| refusal.code).unwrap();
    answer.await.unwrap()
}

fn indexes(beat: &Beat) -> Option<Vec<i32>> {
    beat.assignment.as_ref().map(|parts| parts.iter().map(|part: &Partition| part.index).collect())
}

async fn join_classic(shared: &Shared, group: &str) -> Result<Name, GroupError> {
    let (to, answer) = oneshot::channel();
    let join = Join {
        to,
        id: "".into(),
        new_id: "classic".into(),
        instance: None,
        client_id: "reader".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout: 10_000,
        rebalance_timeout: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::new())],
        takes_id_first: false,
        may_skip_assignment: false,
    };
    shared.groups.ask(&shared.door.log, group, Ask::Join(join)).await.map_err(|refusal| refusal.code).unwrap();
    match answer.await.unwrap() {
        Answer::Joined(id, result) => result.map(|_| id),
        Answer::Synced(_) => panic!("no answer to a join"),
    }
}

async fn commit(shared: &Shared, id: &str, generation: i32, offset: i64) -> Result<(), i16> {
    let committed = Committed { offset, leader_epoch: -1, metadata: String::new() };
    let of = TopicPartition { topic: TOPIC.into(), partition: 0 };
    let member = Membership { generation, id: id.into(), instance: None };
    let ask = |reply| Ask::Commit(member, vec![(of, committed)], Millis(1_700_000_000_000), reply);
    shared.groups.answer(&shared.door.log, GROUP, ask).await.map_err(|refusal| refusal.code)
}

async fn listed(shared: &Shared) -> Vec<(String, &'static str, &'static str)> {
    let listed = shared.groups.list(&shared.door.log).await.map_err(|refusal| refusal.code).unwrap();
    listed.into_iter().map(|group| (group.group.to_string(), group.kind, group.state)).collect()
}

async fn delete(shared: &Shared) -> Result<(), i16> {
    shared.groups.answer(&shared.door.log, GROUP, Ask::Delete).await.map_err(|refusal| refusal.code)
}

#[tokio::test]
async fn members_and_their_epochs_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let shared = with_topic(&folder).await;
    let joined = beat(&shared, GROUP, "a", 0).await.unwrap();
    assert_eq!((joined.epoch, indexes(&joined)), (1, Some(vec![0, 1, 2, 3])));
    commit(&shared, "a", 1, 42).await.unwrap();
    let stale = ResponseError::StaleMemberEpoch.code();
    assert_eq!(commit(&shared, "a", 0, 7).await, Err(stale));
    drop(shared);

    let shared = open(&folder);
    shared.groups.take_up(&shared.door.log);
    assert_eq!(listed(&shared).await, [(GROUP.to_owned(), "consumer", "Stable")]);
    let again = beat(&shared, GROUP, "a", 1).await.unwrap();
    assert_eq!((again.epoch, indexes(&again)), (1, None), "no rebalance");
    let member = |id: &str, generation| Membership { generation, id: id.into(), instance: None };
    let may_fetch = async |id: &str, epoch| {
        let ask = |reply| Ask::MayFetch(member(id, epoch), reply);
        shared.groups.answer(&shared.door.log, GROUP, ask).await.map_err(|refusal| refusal.code)
    };
    assert_eq!(may_fetch("a", 1).await, Ok(()));
    assert_eq!(may_fetch("a", 2).await, Err(stale));
    assert_eq!(may_fetch("b", 1).await, Err(ResponseError::UnknownMemberId.code()));
}

#[tokio::test]
async fn a_group_is_of_the_kind_of_its_members() {
    let folder = tempfile::tempdir().unwrap();
    let shared = with_topic(&folder).await;
    beat(&shared, GROUP, "a", 0).await.unwrap();
    assert_eq!(join_classic(&shared, GROUP).await, Err(GroupError::InconsistentGroupProtocol));
    let described = shared.groups.answer(&shared.door.log, GROUP, Ask::Describe).await;
    assert_eq!(described.map(|_| ()).map_err(|r| r.code), Err(ResponseError::GroupIdNotFound.code()));
    commit(&shared, "a", 1, 42).await.unwrap();
    beat(&shared, GROUP, "a", -1).await.unwrap();
    let id = join_classic(&shared, GROUP).await.unwrap();
    assert_eq!(beat(&shared, GROUP, "b", 0).await, Err(GroupError::GroupIdNotFound));
    let kinds: BTreeSet<_> = listed(&shared).await.into_iter().map(|(_, kind, _)| kind).collect();
    assert_eq!(kinds, ["classic"].into());
    let leave = |reply| Ask::Leave(vec![Leaver { id, instance: None }], reply);
    let left = shared.groups.answer(&shared.door.log, GROUP, leave).await;
    assert_eq!(left.map_err(|refusal| refusal.code), Ok(vec![Ok(())]));
    // What was refused leaves the group as it was.
    let joined = beat(&shared, GROUP, "b", 0).await.unwrap();
    assert_eq!((joined.epoch, indexes(&joined)), (1, Some(vec![0, 1, 2, 3])));
    drop(shared);

    let shared = open(&folder);
    assert_eq!(listed(&shared).await, [(GROUP.to_owned(), "consumer", "Stable")]);
    assert_eq!(beat(&shared, GROUP, "b", 1).await.map(|beat| beat.epoch), Ok(1));
    let offsets = shared.groups.offsets(&shared.door.log, GROUP).await.map_err(|refusal| refusal.code).unwrap();
    assert_eq!(offsets.len(), 1, "its offsets are the group's, of whatever kind it is");
}

#[tokio::test]
async fn a_group_is_deleted_when_its_last_member_has_left_and_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let shared = with_topic(&folder).await;
    beat(&shared, GROUP, "a", 0).await.unwrap();
    commit(&shared, "a", 1, 42).await.unwrap();
    let forget = |reply| Ask::Forget(vec![TopicPartition { topic: TOPIC.into(), partition: 0 }], reply);
    let forgotten = shared.groups.answer(&shared.door.log, GROUP, forget).await.map_err(|refusal| refusal.code);
    assert_eq!(forgotten, Ok(vec![Err(ResponseError::GroupSubscribedToTopic)]));
    assert_eq!(delete(&shared).await, Err(ResponseError::NonEmptyGroup.code()));
    let leave = |reply| Ask::Leave(vec![Leaver { id: "a".into(), instance: None }], reply);
    let left = shared.groups.answer(&shared.door.log, GROUP, leave).await;
    assert_eq!(left.map_err(|refusal| refusal.code), Ok(vec![Ok(())]));
    while delete(&shared).await == Err(ResponseError::CoordinatorNotAvailable.code()) {}
    assert!(listed(&shared).await.is_empty());
    drop(shared);
    let shared = open(&folder);
    assert!(listed(&shared).await.is_empty());
    assert_eq!(delete(&shared).await, Err(ResponseError::GroupIdNotFound.code()));
    assert_eq!(beat(&shared, GROUP, "a", 1).await, Err(GroupError::UnknownMemberId));
}

#[tokio::test]
async fn topics_that_are_made_later_are_shared_out_with_a_later_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    assert_eq!(indexes(&beat(&shared, GROUP, "a", 0).await.unwrap()), Some(vec![]));
    shared.door.log.create_topic(TOPIC, 2, TopicConfig::default()).await.unwrap();
    let told = beat(&shared, GROUP, "a", 1).await.unwrap();
    assert_eq!((told.epoch, indexes(&told)), (2, Some(vec![0, 1])));
}

#[tokio::test]
async fn what_could_not_be_stored_is_told_to_nobody_and_the_group_goes_on_from_before() {
    let files = SimFiles::new(7);
    let options = LogOptions { shards: 1, fsync: true, alone: true };
    let shared = super::shared(Log::open(Arc::new(files.clone()), options).unwrap(), Reader::new(None));
    shared.door.log.create_topic(TOPIC, 4, TopicConfig::default()).await.unwrap();
    beat(&shared, GROUP, "a", 0).await.unwrap();
    files.set_faults(Faults { write_per_mille: 1000, ..Faults::default() });
    assert_eq!(beat(&shared, GROUP, "b", 0).await, Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(beat(&shared, "other", "b", 0).await, Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(listed(&shared).await, [(GROUP.to_owned(), "consumer", "Stable")]);
    files.set_faults(Faults::default());
    let as_before = beat(&shared, GROUP, "a", 1).await.unwrap();
    assert_eq!((as_before.epoch, indexes(&as_before)), (1, None));
    // It asks again until the disk is well.
    let mut joined = beat(&shared, GROUP, "b", 0).await;
    while joined == Err(GroupError::CoordinatorNotAvailable) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        joined = beat(&shared, GROUP, "b", 0).await;
    }
    assert_eq!(joined.map(|beat| beat.epoch), Ok(2));
}

#[tokio::test]
async fn members_that_say_too_much_of_themselves_are_refused_before_they_fill_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let shared = with_topic(&folder).await;
    let boast = "x".repeat(900_000);
    let mut refused = 0;
    for number in 0..GROUP_MEMORY / boast.len() + 1 {
        refused += i32::from(beat_for(&shared, &format!("group-{number}"), "a", 0, &boast).await.is_err());
    }
    assert!(refused > 0);
    beat(&shared, "modest", "a", 0).await.expect("there is room for what is small");
    beat(&shared, "group-0", "a", 1).await.expect("those that were there go on");
}
