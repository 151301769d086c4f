//! Consumer groups over a real log: members, their assignments and offsets, and what is left of them after a restart.

use bytes::Bytes;
use forebay_cluster::{Log, LogOptions, RealFiles};
use forebay_log::group::classic::{Join, Joined, Leaver, Sync};
use forebay_log::group::{GroupError, Name};
use forebay_log::{Millis, TopicConfig};
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::super::Shared;
use super::super::groups::{Answer, Ask, Committed, Membership, TopicPartition, partition_of};
use super::super::limits::GROUP_MEMORY;
use crate::reader::Reader;

const GROUP: &str = "billing";

fn open(folder: &tempfile::TempDir) -> Shared {
    let options = LogOptions { shards: 1, fsync: true, alone: true };
    super::shared(Log::open(RealFiles::open(folder.path()).unwrap(), options).unwrap(), Reader::new(None))
}

/// Sends a JoinGroup; the answer may be waited for later.
async fn join(shared: &Shared, group: &str, id: &str, metadata: Bytes) -> oneshot::Receiver<Answer> {
    let (to, answer) = oneshot::channel();
    let join = Join {
        to,
        id: id.into(),
        new_id: "member".into(),
        instance: None,
        client_id: "reader".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout: 10_000,
        rebalance_timeout: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), metadata)],
        takes_id_first: false,
        may_skip_assignment: false,
    };
    shared.groups.ask(&shared.door.log, group, Ask::Join(join)).await.map_err(|refusal| refusal.code).unwrap();
    answer
}

async fn joined(answer: oneshot::Receiver<Answer>) -> (Name, Result<Joined, GroupError>) {
    match answer.await.unwrap() {
        Answer::Joined(id, result) => (id, result),
        Answer::Synced(_) => panic!("no answer to a join"),
    }
}

async fn sync(shared: &Shared, id: &Name, generation: i32, assignment: &'static [u8]) -> Result<Bytes, GroupError> {
    let (to, answer) = oneshot::channel();
    let sync = Sync {
        to,
        id: id.clone(),
        instance: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(id.clone(), Bytes::from_static(assignment))],
    };
    shared.groups.ask(&shared.door.log, GROUP, Ask::Sync(sync)).await.map_err(|refusal| refusal.code).unwrap();
    match answer.await.unwrap() {
        Answer::Synced(result) => result.map(|synced| synced.assignment),
        Answer::Joined(..) => panic!("no answer to a sync"),
    }
}

fn membership(generation: i32, id: &Name) -> Membership {
    Membership { generation, id: id.clone(), instance: None }
}

async fn heartbeat(shared: &Shared, generation: i32, id: &Name) -> Result<(), i16> {
    let ask = |reply| Ask::Heartbeat(membership(generation, id), reply);
    shared.groups.answer(&shared.door.log, GROUP, ask).await.map_err(|refusal| refusal.code)
}

fn first() -> TopicPartition {
    TopicPartition { topic: "readings".into(), partition: 0 }
}

async fn commit(shared: &Shared, member: Membership, offset: i64) -> Result<(), i16> {
    let committed = Committed { offset, leader_epoch: -1, metadata: String::new() };
    let ask = |reply| Ask::Commit(member, vec![(first(), committed)], Millis(1_700_000_000_000), reply);
    shared.groups.answer(&shared.door.log, GROUP, ask).await.map_err(|refusal| refusal.code)
}

async fn offset(shared: &Shared) -> Option<i64> {
    let found = shared.groups.offset(&shared.door.log, GROUP, first()).await;
    found.map_err(|refusal| refusal.code).unwrap().map(|committed| committed.offset)
}

#[tokio::test]
async fn a_group_its_assignments_and_its_offsets_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    let (id, result) = joined(join(&shared, GROUP, "", Bytes::new()).await).await;
    let generation = result.unwrap().generation;
    assert_eq!(sync(&shared, &id, generation, b"all").await, Ok(Bytes::from_static(b"all")));
    commit(&shared, membership(generation, &id), 42).await.unwrap();
    drop(shared);

    let shared = open(&folder);
    assert_eq!(heartbeat(&shared, generation, &id).await, Ok(()));
    assert_eq!(sync(&shared, &id, generation, b"").await, Ok(Bytes::from_static(b"all")));
    assert_eq!(offset(&shared).await, Some(42));
    let old = ResponseError::IllegalGeneration.code();
    assert_eq!(commit(&shared, membership(generation - 1, &id), 7).await, Err(old));
    assert_eq!(offset(&shared).await, Some(42));
}

#[tokio::test]
async fn a_group_is_deleted_with_its_offsets_when_its_last_member_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    let log = &shared.door.log;
    let (id, result) = joined(join(&shared, GROUP, "", Bytes::new()).await).await;
    let generation = result.unwrap().generation;
    sync(&shared, &id, generation, b"all").await.unwrap();
    commit(&shared, membership(generation, &id), 42).await.unwrap();
    let delete = async || shared.groups.answer(log, GROUP, Ask::Delete).await.map_err(|refusal| refusal.code);
    assert_eq!(delete().await, Err(ResponseError::NonEmptyGroup.code()));
    let leaver = Leaver { id, instance: None };
    let left = shared.groups.answer(log, GROUP, |reply| Ask::Leave(vec![leaver], reply)).await;
    assert_eq!(left.map_err(|refusal| refusal.code), Ok(vec![Ok(())]));
    let listed = shared.groups.list(log).await.map_err(|refusal| refusal.code).unwrap();
    assert_eq!(listed.iter().map(|group| (&*group.group, group.state)).collect::<Vec<_>>(), [(GROUP, "Empty")]);
    assert_eq!(delete().await, Ok(()));
    assert_eq!(offset(&shared).await, None);
    assert_eq!(delete().await, Err(ResponseError::GroupIdNotFound.code()));
    assert!(shared.groups.list(log).await.map_err(|refusal| refusal.code).unwrap().is_empty());
}

#[tokio::test]
async fn offsets_of_a_topic_that_a_member_reads_are_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    let reads = Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x08readings");
    let (id, result) = joined(join(&shared, GROUP, "", reads).await).await;
    let generation = result.unwrap().generation;
    sync(&shared, &id, generation, b"all").await.unwrap();
    commit(&shared, membership(generation, &id), 42).await.unwrap();
    let forget = |reply| Ask::Forget(vec![first()], reply);
    let forgotten = shared.groups.answer(&shared.door.log, GROUP, forget).await.map_err(|refusal| refusal.code);
    assert_eq!(forgotten, Ok(vec![Err(ResponseError::GroupSubscribedToTopic)]));
    assert_eq!(offset(&shared).await, Some(42));
}

#[tokio::test]
async fn members_that_say_too_much_of_themselves_are_refused_before_they_fill_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    let boast = Bytes::from(vec![7; 3 << 20]);
    let mut waiting = Vec::new();
    for number in 0..GROUP_MEMORY / boast.len() {
        waiting.push(join(&shared, &format!("group-{number}"), "", boast.clone()).await);
    }
    let (_, refused) = joined(join(&shared, "one-more", "", boast.clone()).await).await;
    assert_eq!(refused, Err(GroupError::GroupMaxSizeReached));
    let mut inside = Vec::new();
    for answer in waiting {
        inside.push(joined(answer).await);
    }
    let (id, first) = inside.swap_remove(0);
    first.expect("those that were there go on");
    let (_, again) = joined(join(&shared, "group-0", &id, boast.clone()).await).await;
    again.expect("and come again");
    joined(join(&shared, "modest", "", Bytes::new()).await).await.1.expect("there is room for what is small");
}

async fn commit_alone(shared: &Shared, group: &str, metadata: &str) -> Result<(), i16> {
    let committed = Committed { offset: 1, leader_epoch: -1, metadata: metadata.to_owned() };
    let ask = |reply| Ask::Commit(membership(-1, &"".into()), vec![(first(), committed)], Millis(1), reply);
    shared.groups.answer(&shared.door.log, group, ask).await.map_err(|refusal| refusal.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_in_a_partition_that_cannot_be_read_are_left_out_and_wake_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    shared.door.log.create_topic("__consumer_offsets", 2, TopicConfig::internal()).await.unwrap();
    let of = |partition| (0..).map(|n| format!("g{n}")).find(|group| partition_of(group, 2) == partition).unwrap();
    let (damaged, whole) = (of(0), of(1));
    for group in [&damaged, &whole] {
        commit_alone(&shared, group, "").await.unwrap();
    }
    let log = shared.door.log.clone();
    drop(shared);
    tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
    std::fs::write(folder.path().join("log/__consumer_offsets-0/partition.state"), "damaged").unwrap();

    let shared = open(&folder);
    let listed = shared.groups.list(&shared.door.log).await.map_err(|refusal| refusal.code).unwrap();
    assert_eq!(listed.iter().map(|group| &*group.group).collect::<Vec<_>>(), [&*whole]);
    assert_eq!(commit_alone(&shared, &damaged, "").await, Err(ResponseError::CoordinatorNotAvailable.code()));
    assert!(!shared.groups.take_up(&shared.door.log), "there is nothing to look at again soon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_can_never_be_stored_is_not_to_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let shared = open(&folder);
    let config = TopicConfig { max_message_bytes: 2000, ..TopicConfig::internal() };
    shared.door.log.create_topic("__consumer_offsets", 1, config).await.unwrap();
    commit_alone(&shared, GROUP, "").await.unwrap();
    // Nothing that would be compressed to less.
    let mut random = 1u32;
    let long: String = (0..4000)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            char::from(33 + (random % 90) as u8)
        })
        .collect();
    assert_eq!(commit_alone(&shared, GROUP, &long).await, Err(ResponseError::InvalidCommitOffsetSize.code()));
}
