//! A leader of the past beside its successor, on three nodes: nothing that it notes is kept, and it looks at nothing of the other's.

use forebay_log::Epoch;
use forebay_tiering::manifest::{Leads, State, object_path};

use super::*;
use crate::lake::manifest::TopicManifest;
use crate::node::trio_tests::{Trio, eventually};

fn entry(topic_id: Uuid, base: i64, id: u128, state: State) -> Change {
    let id = Uuid::from_u128(id);
    Change::Put(Box::new(Entry {
        topic_id,
        partition: 0,
        base: Offset(base),
        end: Offset(base + 10),
        id,
        path: object_path("quiet", 0, Offset(base), 19_000, id),
        append_day: 19_000,
        log_bytes: 1,
        state,
        facts: None,
        removed_at: None,
        epoch: Epoch(-1),
    }))
}

fn manifest(trio: &Trio, id: i32) -> &Manifest {
    &trio.nodes[&id].gateway.lake.as_ref().expect("a lake").shared.manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_leader_of_the_past_notes_is_refused_and_it_takes_nothing_of_its_successor_for_rubbish() {
    let trio = Trio::start().await;
    let (old, new) = trio.quiet(&[MANIFEST_TOPIC]).await;
    let topic = trio.log(old).topic("quiet").expect("made");
    let (old_leads, id) = (Leads::from([(0, trio.epoch())]), topic.id);
    let first: TopicManifest = manifest(&trio, old).of(&topic);
    first.claim(id, &old_leads).await.expect("it leads");
    first.persist(id, &old_leads, &[entry(id, 0, 1, State::CopyStarted)]).await.expect("it leads");

    trio.hand_over(new).await;
    let new_leads = Leads::from([(0, trio.epoch())]);
    let second = manifest(&trio, new).of(&topic);
    second.claim(id, &new_leads).await.expect("it leads");
    let states =
        |(entries, _): (Vec<Entry>, _)| entries.iter().map(|entry| (entry.base.0, entry.state)).collect::<Vec<_>>();
    let loaded = second.load(id, &new_leads).map(states);
    assert_eq!(loaded, Ok(vec![(0, State::CopyStarted)]), "what was begun before");
    second.persist(id, &new_leads, &[entry(id, 10, 2, State::CopyStarted)]).await.expect("it leads");

    // The first one goes on as if nothing had happened: its copy is whole, and it would begin the next one.
    for change in [entry(id, 0, 1, State::CopyFinished), entry(id, 10, 3, State::CopyStarted)] {
        first.persist(id, &old_leads, &[change]).await.expect_err("it is followed");
    }
    // It sees what the other has begun by now, and must not take it for its own, cut off by a crash.
    eventually("the other's entry", async || (manifest(&trio, old).all_objects(id).len() > 1).then_some(())).await;
    first.load(id, &old_leads).expect_err("it is followed");
    first.claim(id, &old_leads).await.expect_err("it is followed");

    second.persist(id, &new_leads, &[entry(id, 10, 2, State::CopyFinished)]).await.expect("it leads");
    let expected = [(0, 1, State::CopyStarted), (10, 2, State::CopyFinished)];
    for node in [1, 2, 3] {
        let entries = eventually("the last note", async || {
            let all = manifest(&trio, node).all_objects(id);
            all.iter().any(|entry| entry.id == Uuid::from_u128(2) && entry.state == State::CopyFinished).then_some(all)
        });
        let mut entries: Vec<_> =
            entries.await.iter().map(|entry| (entry.base.0, entry.id.as_u128(), entry.state)).collect();
        entries.sort();
        assert_eq!(entries, expected, "node {node}");
    }
    trio.drain(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_sent_before_a_driver_began_anew_counts_no_more_when_it_comes_late() {
    let trio = Trio::start().await;
    let (old, _) = trio.quiet(&[MANIFEST_TOPIC]).await;
    let topic = trio.log(old).topic("quiet").expect("made");
    let (leads, id) = (Leads::from([(0, trio.epoch())]), topic.id);
    let before = manifest(&trio, old).of(&topic);
    before.claim(id, &leads).await.expect("it leads");
    before.persist(id, &leads, &[entry(id, 0, 1, State::CopyStarted)]).await.expect("it leads");
    // As a driver does after a note of which it is not known what became: here it has not even come to the manifest.
    let after = manifest(&trio, old).of(&topic);
    after.claim(id, &leads).await.expect("it leads");
    before.persist(id, &leads, &[entry(id, 0, 1, State::CopyFinished)]).await.expect_err("too late");
    after.persist(id, &leads, &[entry(id, 0, 2, State::CopyStarted)]).await.expect("it leads");
    let all = manifest(&trio, old).all_objects(id);
    assert!(all.len() == 2 && all.iter().all(|entry| entry.state == State::CopyStarted), "{all:?}");
    trio.drain(0).await;
}
