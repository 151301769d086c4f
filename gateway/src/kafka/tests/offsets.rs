//! Committed offsets of groups that nobody uses any more do not pile up.

use forebay_cluster::{Log, LogOptions, RealFiles};
use forebay_log::Millis;

use super::super::Shared;
use super::super::groups::{Ask, Committed, Membership, TopicPartition};
use crate::reader::Reader;

const DAY_MS: i64 = 86_400_000;
const NOW: i64 = 1_700_000_000_000;

fn log(folder: &tempfile::TempDir) -> Log {
    Log::open(RealFiles::open(folder.path()).unwrap(), LogOptions { shards: 1, fsync: false, alone: true }).unwrap()
}

/// Commits offset 5 of partitions 0 up to `partitions` of one topic.
async fn commit(shared: &Shared, group: &str, partitions: i32, day: i64) -> Result<(), i16> {
    let committed = Committed { offset: 5, leader_epoch: -1, metadata: String::new() };
    let of = |partition| TopicPartition { topic: "readings".into(), partition };
    let offsets = (0..partitions).map(|partition| (of(partition), committed.clone())).collect();
    let alone = Membership { generation: -1, id: "".into(), instance: None };
    let now = Millis(NOW + day * DAY_MS);
    let ask = |reply| Ask::Commit(alone, offsets, now, reply);
    shared.groups.answer(&shared.door.log, group, ask).await.map_err(|refusal| refusal.code)
}

async fn offsets(shared: &Shared, group: &str) -> usize {
    shared.groups.offsets(&shared.door.log, group).await.map_err(|refusal| refusal.code).unwrap().len()
}

/// Groups are looked through on this day.
async fn look(shared: &Shared, day: i64) {
    shared.groups.look(&shared.door.log, Millis(NOW + day * DAY_MS)).await.map_err(|refusal| refusal.code).unwrap();
}

#[tokio::test]
async fn a_group_that_committed_nothing_for_a_week_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let shared = super::shared(log(&folder), Reader::new(None));
    commit(&shared, "gone", 2, 0).await.unwrap();
    commit(&shared, "slow", 2, 0).await.unwrap();
    commit(&shared, "slow", 1, 6).await.unwrap();
    // Made while the clock was not set.
    commit(&shared, "early", 1, -NOW / DAY_MS).await.unwrap();
    commit(&shared, "other", 1, 8).await.unwrap();
    look(&shared, 8).await;
    assert_eq!(offsets(&shared, "gone").await, 0);
    assert_eq!(offsets(&shared, "slow").await, 2, "it committed two days ago, if not for all partitions");
    assert_eq!(offsets(&shared, "early").await, 1);
    assert_eq!(offsets(&shared, "other").await, 1);
}

#[tokio::test]
async fn a_client_that_makes_group_after_group_is_refused_before_it_fills_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let shared = super::shared(log(&folder), Reader::new(None));
    commit(&shared, "mine", 1, 0).await.unwrap();
    let mut refused = None;
    for number in 0..11 {
        let done = commit(&shared, &format!("console-consumer-{number}"), 10_000, 0).await;
        if done.is_err() {
            refused = Some(number);
            assert_eq!(offsets(&shared, &format!("console-consumer-{number}")).await, 0, "all or none");
            break;
        }
    }
    assert_eq!(refused, Some(9));
    commit(&shared, "mine", 1, 0).await.expect("a group that is there goes on");
    // A week later there is room again.
    commit(&shared, "mine", 1, 8).await.unwrap();
    look(&shared, 8).await;
    commit(&shared, "new", 10_000, 8).await.expect("room again");
}
