//! Leaders that follow one another, and old ones that do not know it yet: whatever they do, each offset is in the table once.

use super::*;
use crate::table::Ends;

/// Two nodes with the same records, whose segments end at different offsets.
fn replicas(world: &World) -> (Arc<FakeLog>, Arc<FakeLog>) {
    let (one, two) = (FakeLog::new(world.faults.clone(), 2), FakeLog::new(world.faults.clone(), 2));
    one.add(0, 0..10, 19_000);
    one.add(0, 10..25, 19_000);
    one.add(1, 0..12, 19_000);
    two.add(0, 0..16, 19_000);
    two.add(0, 16..40, 19_000);
    two.add(1, 0..12, 19_000);
    (Arc::new(one), Arc::new(two))
}

/// The old leader stops for a while at one of its steps; meanwhile the new one takes over, works, and it may lose the lead again.
async fn zombie_at(step: u64) -> u64 {
    let world = World::new(u64::MAX, Mode::Fail);
    let (one, two) = replicas(&world);
    let mut old = world.driver_of(one.clone(), &[(0, 1), (1, 1)]).await.expect("the first leader");
    let pause = world.faults.pause_at(step);
    let policy = world.policy();
    let zombie = tokio::spawn(async move {
        for _ in 0..4 {
            // After an error it begins anew, and is told that it leads no more.
            if old.poll(policy.clone(), true).await.is_err() {
                return;
            }
        }
    });
    pause.reached(&zombie).await;
    if zombie.is_finished() {
        // It never came there: the others shall not stop either.
        pause.go_on();
    }
    let mut new = world.driver_of(two.clone(), &[(0, 2), (1, 2)]).await.expect("the next leader");
    new.poll(world.policy(), false).await.expect("it leads");
    pause.go_on();
    zombie.await.expect("no panic");
    let again = world.driver_of(world.log.clone(), &[(0, 1), (1, 1)]).await.err().expect("not its own any more");
    assert!(again.to_string().contains("later leader"), "{again}");
    for _ in 0..10 {
        new.poll(world.policy(), true).await.expect("it leads");
        world.now.fetch_add(61_000, Ordering::SeqCst);
    }
    assert_eq!(new.offload().error(), None, "step {step}");
    assert_eq!(world.in_table().await, [once(0..40), once(0..12)], "step {step}");
    // The next one finds everything in order, and what the one before it left behind goes.
    let mut last = world.driver_of(one, &[(0, 3), (1, 3)]).await.expect("the last leader");
    for _ in 0..3 {
        last.poll(world.policy(), true).await.expect("it leads");
        world.now.fetch_add(61_000, Ordering::SeqCst);
    }
    let entries = world.entries();
    let mut ends = [0, 0];
    for entry in &entries {
        let end = &mut ends[entry.partition as usize];
        assert_eq!((entry.base.0, entry.state), (*end, State::Committed), "step {step}");
        *end = entry.end.0;
    }
    assert_eq!(ends, [40, 12], "step {step}");
    let mut expected: Vec<String> = entries.into_iter().map(|entry| entry.path).collect();
    expected.sort();
    assert_eq!(world.objects().await, expected, "step {step}");
    world.faults.steps()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_does_not_know_that_it_is_none_doubles_and_loses_nothing_wherever_it_stopped() {
    let steps = zombie_at(u64::MAX - 1).await;
    assert!(steps > 20, "{steps}");
    for step in 2..40 {
        zombie_at(step).await;
    }
}

/// The leader of partition 9 was first and has made `n` a text; what it brought is gone again.
async fn settled_otherwise(world: &World) {
    let mut inference = crate::shape::Inference::new(Shape::default());
    inference.observe(br#"{"n":"text","kwh":1}"#);
    let id = Uuid::from_u128(9);
    let others = Entry {
        topic_id: TOPIC_ID,
        partition: 9,
        base: Offset(0),
        end: Offset(1),
        id,
        path: crate::manifest::object_path("readings", 9, Offset(0), 19_000, id),
        append_day: 19_000,
        log_bytes: 1,
        state: State::CopyFinished,
        facts: None,
        removed_at: None,
        epoch: Epoch(1),
    };
    let mut table = DeltaLake::new(world.store.inner.clone(), "readings", TOPIC_ID);
    table
        .commit(std::slice::from_ref(&others), &[], &inference.finish(), &Ends::new(), Millis(0))
        .await
        .expect("a table");
    table.commit(&[], &[others], &Shape::default(), &Ends::new(), Millis(0)).await.expect("gone");
}

#[tokio::test]
async fn a_column_that_another_leader_has_settled_otherwise_is_written_again_and_nothing_is_lost() {
    let world = World::new(u64::MAX, Mode::Fail);
    world.log.add(0, 0..10, 19_000);
    world.log.add(1, 0..12, 19_000);
    settled_otherwise(&world).await;
    let mut first = world.driver_of(world.log.clone(), &[(0, 1)]).await.expect("a leader");
    for _ in 0..4 {
        first.poll(world.policy(), true).await.expect("no fault");
    }
    assert_eq!(first.offload().error(), None);
    assert!(first.table().committed_end(0).await.expect("readable") == Some(10));
    let mut second = world.driver_of(world.log.clone(), &[(1, 1)]).await.expect("a leader");
    second.poll(world.policy(), true).await.expect("no fault");
    assert_eq!(world.in_table().await, [once(0..10), once(0..12)], "the payloads too, byte for byte");
    assert_eq!(world.objects().await.len(), 2);
}

/// A segment is copied while the commit of the one before meets columns that were settled otherwise. Returns the steps.
async fn settled_during_a_copy(partition: u32, at: u64, mode: Mode) -> u64 {
    let world = World::new(at, mode);
    settled_otherwise(&world).await;
    world.log.add(0, 0..10, 19_000);
    let mut driver = world.driver().await;
    let what = |what: &str| format!("{what}, partition {partition}, step {at}, {mode:?}");
    let is_copied = |world: &World| world.entries().iter().any(|entry| entry.state >= State::CopyFinished);
    world.run_until(&mut driver, &what("the first segment"), is_copied).await;
    let ends = if partition == 0 { [25, 0] } else { [10, 15] };
    world.log.add(partition, if partition == 0 { 10..25 } else { 0..15 }, 19_000);
    world.now.fetch_add(61_000, Ordering::SeqCst);
    world.run_until(&mut driver, &what("both segments"), |world| world.tiered(ends)).await;
    assert_eq!(world.in_table().await, ends.map(|end| once(0..end)), "{}", what("the table"));
    let mut driver = world.driver().await;
    let is_in_order = |world: &World| world.entries().iter().all(|entry| entry.state == State::Committed);
    world.run_until(&mut driver, &what("order"), is_in_order).await;
    assert_eq!(world.objects().await.len(), 2, "{}", what("objects"));
    let copies = world.ids.load(Ordering::SeqCst) - 1;
    assert!(copies <= 6, "{copies} copies: {}", what("each twice at most, and what the fault took"));
    world.faults.steps()
}

#[tokio::test]
async fn a_copy_under_way_when_columns_turn_out_to_be_settled_otherwise_leaves_no_hole_and_ends() {
    for partition in [0, 1] {
        let steps = settled_during_a_copy(partition, u64::MAX, Mode::Fail).await;
        for at in 0..steps {
            for mode in [Mode::Fail, Mode::AnswerLost, Mode::CrashBefore, Mode::CrashAfter] {
                settled_during_a_copy(partition, at, mode).await;
            }
        }
    }
}
