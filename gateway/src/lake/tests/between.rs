//! Three nodes that lead partitions of one topic: a flush brings all of it, and a deletion waits for what each has under way.

use forebay_tiering::manifest::State;

use super::*;
use crate::node::trio_tests::{Trio, eventually};

fn shared(trio: &Trio, id: i32) -> Arc<Shared> {
    trio.nodes[&id].gateway.lake.as_ref().expect("a lake").shared.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_flush_brings_into_the_table_what_every_leader_has() {
    let trio = Trio::start().await;
    let leaders: std::collections::BTreeSet<i32> = (0..3).map(|p| trio.leader(1, "readings", p)).collect();
    assert!(leaders.len() > 1, "{leaders:?}");
    for (node, count) in [(1, 10), (2, 20), (3, 30)] {
        trio.publish(node, count - 10..count).await;
        trio.nodes[&node].gateway.lake.as_ref().expect("a lake").flush("readings").await.expect("flushed");
        let own = trio.leader(1, "readings", 0);
        trio.lake_has_each_once(own, count, &[&trio.nodes[&own]]).await;
    }
    let topic = trio.log(1).topic("readings").expect("made");
    eventually("nothing more is asked for", async || {
        (1..=3).all(|id| shared(&trio, id).manifest.asked(topic.id).is_empty()).then_some(())
    })
    .await;
    drop(topic);
    trio.drain(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_deleted_topic_has_goes_when_no_node_works_for_it_any_more() {
    let trio = Trio::start().await;
    trio.publish(1, 0..5).await;
    trio.nodes[&1].gateway.lake.as_ref().expect("a lake").flush("readings").await.expect("flushed");
    let keeper = trio.leader(1, MANIFEST_TOPIC, 0);
    let index = (0..3).find(|p| trio.leader(1, "readings", *p) != keeper).expect("another one leads one");
    let other = trio.leader(1, "readings", index);
    let topic = trio.log(other).topic("readings").expect("made");

    // A copy there has begun, and takes its time.
    let held = shared(&trio, other).copies.clone().acquire_owned().await.expect("free");
    trio.publish(1, 5..10).await;
    topic.partitions[index].roll().await.expect("rolled");
    let begun = |entry: &Arc<Entry>| entry.partition as usize == index && entry.state == State::CopyStarted;
    let manifest = shared(&trio, other).manifest.clone();
    eventually("the copy", async || manifest.all_objects(topic.id).iter().any(begun).then_some(())).await;
    trio.log(keeper).delete_topic("readings").await.expect("deleted");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let known = shared(&trio, keeper).manifest.clone();
    assert!(known.topic(topic.id).is_some(), "a node is at work for it");
    assert!(trio.lake().join("readings/_delta_log/00000000000000000000.json").exists());

    drop(held);
    eventually("the end of it", async || known.topic(topic.id).is_none().then_some(())).await;
    assert!(known.all_objects(topic.id).is_empty());
    let left: Vec<_> = files(&trio.lake().join("readings"));
    assert!(left.is_empty(), "{left:?}");
    drop((topic, manifest, known));
    trio.drain(0).await;
}

fn files(folder: &FsPath) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}
