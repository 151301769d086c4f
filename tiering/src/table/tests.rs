//! The Delta table over many commits, and beside another writer.

use forebay_log::{Epoch, Offset};
use object_store::memory::InMemory;

use super::*;
use crate::manifest::{Lost, ObjectFacts, State, object_path};
use crate::shape::Inference;
use crate::store::DurableLocal;

const TOPIC_ID: Uuid = Uuid::from_u128(9);

fn entry(partition: u32, base: i64, end: i64) -> Entry {
    let id = Uuid::from_u128(u128::from(partition) << 64 | base as u128);
    let rows = (end - base) as u64;
    Entry {
        topic_id: TOPIC_ID,
        partition,
        base: Offset(base),
        end: Offset(end),
        id,
        path: object_path("readings", partition, Offset(base), 19_000, id),
        append_day: 19_000,
        log_bytes: 1,
        state: State::CopyFinished,
        facts: Some(ObjectFacts {
            rows,
            errors: 0,
            bytes: 10,
            min_timestamp: Millis(0),
            max_timestamp: Millis(1),
            finished_at: Millis(2),
            stats: Some(format!("{{\"numRecords\":{rows},\"minValues\":{{}},\"maxValues\":{{}},\"nullCount\":{{}}}}")),
            lost: Lost::default(),
        }),
        removed_at: None,
        epoch: Epoch(1),
    }
}

fn shape(payload: &str) -> Shape {
    let mut inference = Inference::new(Shape::default());
    inference.observe(payload.as_bytes());
    inference.finish()
}

async fn rows(table: &mut DeltaLake) -> u64 {
    table.contents().await.expect("readable").files.iter().filter_map(|file| file.rows).sum()
}

#[tokio::test]
async fn a_hundred_commits_make_a_checkpoint_and_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn ObjectStore> = Arc::new(DurableLocal::new(folder.path()).expect("a path"));
    let mut table = DeltaLake::new(store.clone(), "readings", TOPIC_ID);
    for n in 0..105 {
        table
            .commit(&[entry(0, n * 10, n * 10 + 10)], &[], &shape("{\"a\":1}"), &Ends::new(), Millis(n))
            .await
            .expect("committed");
    }
    assert!(folder.path().join("readings/_delta_log/_last_checkpoint").exists());
    let mut fresh = DeltaLake::new(store, "readings", TOPIC_ID);
    assert_eq!(fresh.committed_end(0).await.expect("readable"), Some(1050));
    assert_eq!((rows(&mut fresh).await, fresh.version()), (1050, Some(104)));
    fresh
        .commit(&[entry(0, 1050, 1060)], &[entry(0, 0, 10)], &shape("{\"a\":1}"), &Ends::new(), Millis(1))
        .await
        .expect("committed");
    assert_eq!(rows(&mut table).await, 1050);
}

#[tokio::test]
async fn a_commit_repeated_adds_nothing_and_one_that_overlaps_is_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut table = DeltaLake::new(store.clone(), "readings", TOPIC_ID);
    let adds = [entry(0, 0, 10), entry(0, 10, 20), entry(3, 0, 5)];
    for _ in 0..2 {
        table.commit(&adds, &[], &shape("{\"a\":1}"), &Ends::new(), Millis(0)).await.expect("committed");
        // As after a crash: what is known of the table is read anew.
        table = DeltaLake::new(store.clone(), "readings", TOPIC_ID);
    }
    assert_eq!((rows(&mut table).await, table.version()), (25, Some(0)));
    let error = table
        .commit(&[entry(0, 15, 30)], &[], &shape("{\"a\":1}"), &Ends::new(), Millis(0))
        .await
        .expect_err("overlaps");
    assert_eq!(error.to_string(), "partition 0: the table ends at offset 20, inside the range 15..30");
}

#[tokio::test]
async fn a_range_behind_what_the_table_should_hold_and_does_not_is_refused_and_one_behind_what_retention_took_is_not() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut table = DeltaLake::new(store, "readings", TOPIC_ID);
    let held = |end| Ends::from([(0, Offset(end))]);
    table.commit(&[entry(0, 0, 10)], &[], &shape("{\"a\":1}"), &Ends::new(), Millis(0)).await.expect("committed");
    let behind = [entry(0, 20, 30), entry(1, 5, 9)];
    let error = table.commit(&behind, &[], &shape("{\"a\":1}"), &held(20), Millis(0)).await.expect_err("a gap");
    let error = error.to_string();
    assert!(error.starts_with("partition 0: the table ends at offset 10, but ranges up to 20 "), "{error}");
    assert_eq!(rows(&mut table).await, 10);
    // The log had nothing any more between 10 and 20 when 20..30 was noted.
    table.commit(&behind, &[], &shape("{\"a\":1}"), &held(10), Millis(0)).await.expect("committed");
    assert_eq!(rows(&mut table).await, 24);
}

/// Two writers have seen the same table; the first commits, then the second on its stale view, and again after the conflict.
async fn race(first: (&[Entry], &str), second: (&[Entry], &str)) -> (u64, Vec<String>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut one = DeltaLake::new(store.clone(), "readings", TOPIC_ID);
    one.commit(&[entry(0, 0, 10)], &[], &shape("{\"a\":1}"), &Ends::new(), Millis(0)).await.expect("committed");
    let mut two = DeltaLake::new(store.clone(), "readings", TOPIC_ID);
    let stale = two.latest().await.expect("readable");
    one.commit(first.0, &[], &shape(first.1), &Ends::new(), Millis(0)).await.expect("committed");
    let error = two
        .try_commit(stale, second.0, &[], &shape(second.1), &Ends::new(), Millis(0))
        .await
        .expect_err("its view is stale");
    assert!(is_conflict(&error), "{error}");
    two.commit(second.0, &[], &shape(second.1), &Ends::new(), Millis(0)).await.expect("committed");
    let state = one.latest().await.expect("readable").expect("a table");
    let schema = state.schema();
    let names = schema.fields().map(|field| field.name().clone()).filter(|name| !name.starts_with('_'));
    (rows(&mut one).await, names.collect())
}

#[tokio::test]
async fn two_writers_with_stale_views_both_get_their_ranges_in_once() {
    let narrow = (&[entry(0, 10, 20)][..], "{\"a\":1,\"b\":1}");
    let wide = (&[entry(0, 10, 20), entry(1, 0, 7)][..], "{\"a\":1,\"c\":{\"d\":1}}");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(race(narrow, wide).await, (27, names(&["a", "b", "c"])));
    // All of the second writer's ranges are in already, and with them its reason to widen the table.
    assert_eq!(race(wide, narrow).await, (27, names(&["a", "c"])));
}

#[tokio::test]
async fn files_that_another_writer_has_compacted_away_are_passed_over_when_they_retire() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut table = DeltaLake::new(store, "readings", TOPIC_ID);
    table
        .commit(&[entry(0, 0, 10), entry(0, 10, 20)], &[], &shape("{\"a\":1}"), &Ends::new(), Millis(0))
        .await
        .expect("committed");
    let state = table.latest().await.expect("readable").expect("a table");
    let data = state.log_data();
    let mut actions: Vec<_> = data.iter().map(|file| Action::Remove(file.remove_action(false))).collect();
    let compacted =
        Add { path: "_date=2022-01-08/compacted.parquet".into(), data_change: false, ..table.add(&entry(0, 0, 20)) };
    actions.push(Action::Add(compacted));
    let operation = DeltaOperation::Optimize { predicate: None, target_size: 1 };
    let others = CommitBuilder::default().with_actions(actions);
    others.build(Some(&state), table.log_store.clone(), operation).await.expect("committed");
    assert_eq!(rows(&mut table).await, 20);
    table
        .commit(&[entry(0, 20, 30)], &[entry(0, 0, 10)], &shape("{\"a\":1}"), &Ends::new(), Millis(0))
        .await
        .expect("committed");
    assert_eq!(rows(&mut table).await, 30, "only the other writer's file can be rewritten to let the rows go");
}

#[tokio::test]
async fn a_range_that_another_leader_brought_in_meanwhile_is_not_brought_in_again() {
    let same = (&[entry(0, 10, 20)][..], "{\"a\":1}");
    assert_eq!(race(same, same).await.0, 20);
}

#[tokio::test]
async fn leaders_of_different_partitions_make_one_table_together() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let commits = (0..6u32).map(|partition| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut table = DeltaLake::new(store, "readings", TOPIC_ID);
            for n in 0..5 {
                let field = format!("{{\"a\":1,\"p{partition}n{}\":true}}", n / 2);
                let range = [entry(partition, n * 10, n * 10 + 10)];
                while let Err(error) = table.commit(&range, &[], &shape(&field), &Ends::new(), Millis(0)).await {
                    assert!(is_conflict(&error), "{error}");
                }
            }
        })
    });
    for commit in commits.collect::<Vec<_>>() {
        commit.await.expect("committed");
    }
    let mut table = DeltaLake::new(store, "readings", TOPIC_ID);
    assert_eq!(rows(&mut table).await, 300);
    for partition in 0..6 {
        assert_eq!(table.committed_end(partition).await.expect("readable"), Some(50));
    }
}

#[tokio::test]
async fn who_comes_second_with_another_type_is_told_what_fits() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut one = DeltaLake::new(store.clone(), "readings", TOPIC_ID);
    one.commit(&[entry(0, 0, 10)], &[], &shape("{\"v\":1}"), &Ends::new(), Millis(0)).await.expect("committed");
    let mut two = DeltaLake::new(store, "readings", TOPIC_ID);
    let adds = [entry(0, 0, 10), entry(1, 0, 7)];
    let error = two.commit(&adds, &[], &shape("{\"v\":1.5}"), &Ends::new(), Millis(0)).await.expect_err("another type");
    let TableError::Settled(settled) = error else { panic!("{error}") };
    assert_eq!((settled.shape.clone(), &settled.misfits), (shape("{\"v\":1}"), &vec![adds[1].id]));
    two.commit(&adds, &[], &settled.shape, &Ends::new(), Millis(0)).await.expect("committed");
    assert_eq!(rows(&mut two).await, 17);
}
