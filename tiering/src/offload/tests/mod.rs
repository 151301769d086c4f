//! Failures, lost answers and crashes at every step, and what must hold afterwards.

mod faults;
mod takeover;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use faults::{FakeLog, FakeManifest, Faults, FaultyStore, Mode, payload};
use forebay_log::record::{Batches, RecordReader};
use forebay_log::{Epoch, Millis, Offset};
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::*;
use crate::parquet::ColdReader;
use crate::table::{DeltaLake, Table};

const TOPIC_ID: Uuid = Uuid::from_u128(42);

struct World {
    faults: Arc<Faults>,
    store: FaultyStore,
    manifest: Arc<FakeManifest>,
    log: Arc<FakeLog>,
    now: Arc<AtomicI64>,
    ids: Arc<AtomicU64>,
}

impl World {
    fn new(at: u64, mode: Mode) -> World {
        let faults = Faults::new(at, mode);
        World {
            store: FaultyStore::new(faults.clone()),
            manifest: Arc::new(FakeManifest { entries: Default::default(), faults: faults.clone() }),
            log: Arc::new(FakeLog::new(faults.clone(), 2)),
            now: Arc::new(AtomicI64::new(1_700_000_000_000)),
            ids: Arc::new(AtomicU64::new(1)),
            faults,
        }
    }

    fn policy(&self) -> Policy {
        Policy { table: true, commit_interval: 60_000, unhurried_bytes: 0 }
    }

    async fn driver(&self) -> Driver {
        // What fails while it opens is tried again, as a worker does.
        loop {
            match self.driver_of(self.log.clone(), &[(0, 1), (1, 1)]).await {
                Ok(driver) => return driver,
                Err(_) => self.faults.restart(),
            }
        }
    }

    /// The driver of a node that leads these partitions in these epochs.
    async fn driver_of(&self, log: Arc<FakeLog>, leads: &[(u32, i32)]) -> Result<Driver, DriverError> {
        let (now, ids) = (self.now.clone(), self.ids.clone());
        Driver::open(Parts {
            topic: "readings".into(),
            topic_id: TOPIC_ID,
            leads: leads.iter().map(|(partition, epoch)| (*partition, Epoch(*epoch))).collect(),
            policy: self.policy(),
            ids: Box::new(move || Uuid::from_u128(u128::from(ids.fetch_add(1, Ordering::SeqCst)))),
            store: Arc::new(self.store.clone()),
            manifest: self.manifest.clone(),
            log,
            table: Box::new(DeltaLake::new(Arc::new(self.store.clone()), "readings", TOPIC_ID)),
            copies: Arc::new(Semaphore::new(1)),
            clock: Arc::new(move || Millis(now.load(Ordering::SeqCst))),
        })
        .await
    }

    fn entries(&self) -> Vec<Entry> {
        crate::manifest::loaded(TOPIC_ID, &[(0, Epoch(99)), (1, Epoch(99))].into(), &*self.manifest).expect("readable")
    }

    /// Everything that is due, as a topic's worker does it: look after look.
    async fn poll(&self, driver: &mut Driver) -> Result<(), DriverError> {
        while driver.poll(self.policy(), false).await? {}
        Ok(())
    }

    /// Polls, restarting whenever the driver or the process is gone, until `done`; time passes between polls.
    async fn run_until(&self, driver: &mut Driver, what: &str, done: impl Fn(&World) -> bool) {
        for _ in 0..40 {
            let poll = self.poll(driver).await;
            if poll.is_err() || self.faults.is_dead() {
                self.faults.restart();
                *driver = self.driver().await;
            }
            if done(self) {
                return;
            }
            self.now.fetch_add(61_000, Ordering::SeqCst);
        }
        panic!("never came to {what}: {:?}", driver.offload().error());
    }

    fn tiered(&self, ends: [i64; 2]) -> bool {
        (0..2).all(|p| self.log.partitions[p].tiered.lock().expect("lock").0 == ends[p])
    }

    /// What the table holds: for each partition every offset and how often it is there, read from the files themselves.
    async fn in_table(&self) -> [BTreeMap<i64, u32>; 2] {
        let mut table = DeltaLake::new(self.store.inner.clone(), "readings", TOPIC_ID);
        let reader = ColdReader::new(self.store.inner.clone());
        let mut found = [BTreeMap::new(), BTreeMap::new()];
        for file in table.contents().await.expect("a table").files {
            let partition: usize = file.path.split("part-0000").nth(1).expect("a name")[..1].parse().expect("a digit");
            let path = Path::from(file.path);
            let (mut next, mut rows) = (Offset::ZERO, 0);
            loop {
                let batches = reader.read(&path, next, 1 << 20).await.expect("readable");
                if batches.is_empty() {
                    break;
                }
                for batch in Batches::new(batches) {
                    let (header, batch) = batch.expect("whole");
                    for record in RecordReader::new(&header, &batch).expect("readable") {
                        let record = record.expect("readable");
                        assert_eq!(record.value.as_deref(), payload(partition as u32, record.offset.0).as_deref());
                        *found[partition].entry(record.offset.0).or_insert(0) += 1;
                        next = record.offset.next();
                        rows += 1;
                    }
                }
            }
            assert_eq!(file.rows, Some(rows));
        }
        found
    }

    async fn objects(&self) -> Vec<String> {
        let all: Vec<_> = self.store.inner.list(None).try_collect().await.expect("listable");
        let mut paths: Vec<_> = all.into_iter().map(|meta| meta.location.to_string()).collect();
        paths.retain(|path| path.ends_with(".parquet") && !path.contains("_delta_log"));
        paths.sort();
        paths
    }
}

fn once(offsets: std::ops::Range<i64>) -> BTreeMap<i64, u32> {
    offsets.map(|offset| (offset, 1)).collect()
}

/// Two rounds of segments through the fault; how many steps there were.
async fn offload_with_fault(at: u64, mode: Mode) -> u64 {
    let world = World::new(at, mode);
    world.log.add(0, 0..10, 19_000);
    world.log.add(0, 10..25, 19_001);
    world.log.add(1, 0..12, 19_000);
    let mut driver = world.driver().await;
    world.run_until(&mut driver, "the first segments", |world| world.tiered([25, 12])).await;
    world.log.add(0, 25..40, 19_001);
    world.log.add(1, 12..50, 19_001);
    world.run_until(&mut driver, "the later segments", |world| world.tiered([40, 50])).await;
    assert_eq!(world.in_table().await, [once(0..40), once(0..50)], "step {at}, {mode:?}");
    // Whatever an unfinished copy left is collected, at the latest after a restart.
    let mut driver = world.driver().await;
    world
        .run_until(&mut driver, "order", |world| world.entries().iter().all(|entry| entry.state == State::Committed))
        .await;
    let mut expected: Vec<_> = world.entries().into_iter().map(|entry| entry.path).collect();
    expected.sort();
    assert_eq!(world.objects().await, expected, "step {at}, {mode:?}");
    world.faults.steps()
}

#[tokio::test]
async fn each_offset_is_in_the_table_once_whatever_fails_whenever() {
    let steps = offload_with_fault(u64::MAX, Mode::Fail).await;
    assert!(steps > 30, "{steps}");
    for at in 0..steps {
        for mode in [Mode::Fail, Mode::AnswerLost, Mode::CrashBefore, Mode::CrashAfter] {
            offload_with_fault(at, mode).await;
        }
    }
}

/// Offload, then the log start moves past the first two segments.
async fn retire_with_fault(at: u64, mode: Mode) -> u64 {
    let world = World::new(at, mode);
    world.log.add(0, 0..10, 19_000);
    world.log.add(1, 0..12, 19_000);
    let mut driver = world.driver().await;
    world.run_until(&mut driver, "the first segments", |world| world.tiered([10, 12])).await;
    world.log.add(0, 10..25, 19_001);
    world.run_until(&mut driver, "the last segment", |world| world.tiered([25, 12])).await;
    for (partition, to) in world.log.partitions.iter().zip([10, 12]) {
        *partition.log_start.lock().expect("lock") = Offset(to);
    }
    world.run_until(&mut driver, "the end of retention", |world| world.entries().len() == 1).await;
    assert_eq!(world.in_table().await, [once(10..25), once(0..0)], "step {at}, {mode:?}");
    assert_eq!(world.objects().await.len(), 1, "step {at}, {mode:?}");
    world.faults.steps()
}

#[tokio::test]
async fn what_the_log_lets_go_leaves_table_and_store_whatever_fails_whenever() {
    let steps = retire_with_fault(u64::MAX, Mode::Fail).await;
    for at in 0..steps {
        for mode in [Mode::Fail, Mode::AnswerLost, Mode::CrashBefore, Mode::CrashAfter] {
            retire_with_fault(at, mode).await;
        }
    }
}

#[tokio::test]
async fn a_flush_waits_for_no_interval() {
    let world = World::new(u64::MAX, Mode::Fail);
    world.log.add(0, 0..10, 19_000);
    let mut driver = world.driver().await;
    driver.poll(world.policy(), true).await.expect("no fault");
    assert!(world.tiered([10, 0]));
    assert_eq!(driver.table().version(), Some(0));
    assert_eq!(driver.table().committed_end(0).await.expect("readable"), Some(10));
    assert_eq!(driver.offload().next_deadline(), None);
}

#[tokio::test]
async fn a_table_of_another_topic_is_never_written_to() {
    let world = World::new(u64::MAX, Mode::Fail);
    world.log.add(0, 0..10, 19_000);
    world.driver().await.poll(world.policy(), true).await.expect("no fault");
    let mut other = DeltaLake::new(world.store.inner.clone(), "readings", Uuid::from_u128(43));
    let error = other.committed_end(0).await.expect_err("another topic's").to_string();
    assert!(error.contains("belongs to another topic"), "{error}");
}

#[tokio::test]
async fn a_table_switched_off_while_ranges_leave_it_does_not_keep_their_objects_for_ever() {
    let world = World::new(u64::MAX, Mode::Fail);
    world.log.add(0, 0..10, 19_000);
    let mut driver = world.driver().await;
    driver.poll(world.policy(), true).await.expect("no fault");
    *world.log.partitions[0].log_start.lock().expect("lock") = Offset(10);
    driver.poll(world.policy(), false).await.expect("no fault");
    assert!(driver.offload().ranges().all(|entry| entry.state == State::DeleteStarted && entry.removed_at.is_none()));
    let bare = Policy { table: false, ..world.policy() };
    driver.poll(bare.clone(), false).await.expect("no fault");
    assert_eq!(world.objects().await.len(), 1, "readers of the table have time to finish");
    world.now.fetch_add(DELETE_GRACE + 1, Ordering::SeqCst);
    driver.poll(bare, false).await.expect("no fault");
    assert_eq!(world.objects().await, Vec::<String>::new());
    assert_eq!(world.entries(), Vec::new());
}

#[tokio::test]
async fn two_days_without_the_store_cost_nothing_but_the_wait() {
    let world = World::new(u64::MAX, Mode::Fail);
    let mut driver = world.driver().await;
    world.store.set_outage(true);
    // A segment each ten minutes, a look each minute.
    for segment in 0..288 {
        world.log.add(0, segment * 10..(segment + 1) * 10, 19_000);
        for _ in 0..10 {
            driver.poll(world.policy(), false).await.expect("the manifest can be written");
            world.now.fetch_add(60_000, Ordering::SeqCst);
        }
    }
    assert!(driver.offload().error().is_some_and(|error| error.contains("out of reach")));
    assert!(world.tiered([0, 0]), "the local copy must not go");
    let held = world.entries().len();
    assert!(held <= 1 && driver.offload().ranges().count() == 0, "{held} entries");
    world.store.set_outage(false);
    world.run_until(&mut driver, "what was waiting", |world| world.tiered([2880, 0])).await;
    assert_eq!(world.in_table().await, [once(0..2880), once(0..0)]);
    assert_eq!(driver.offload().error(), None);
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_is_told_until_it_can_and_holds_no_other_partition_up() {
    let world = World::new(u64::MAX, Mode::Fail);
    let broken = &world.log.partitions[0];
    broken.unreadable.store(true, Ordering::SeqCst);
    world.log.add(0, 0..10, 19_000);
    let mut driver = world.driver().await;
    // A look each second for five minutes, a new segment of the other partition at each; its table commits go well.
    for second in 0..300 {
        world.log.add(1, second * 10..(second + 1) * 10, 19_000);
        world.poll(&mut driver).await.expect("the manifest can be written");
        let error = driver.offload().error().expect("told").to_owned();
        assert!(error.contains("partition 0") && error.contains("os error 5"), "second {second}: {error}");
        world.now.fetch_add(1_000, Ordering::SeqCst);
    }
    assert_eq!(driver.offload().ranges().filter(|entry| entry.partition == 1).count(), 300);
    let tries = broken.tries.load(Ordering::SeqCst);
    assert!((8..=12).contains(&tries), "{tries}: first after a second, then each time later, at least once a minute");

    broken.unreadable.store(false, Ordering::SeqCst);
    world.run_until(&mut driver, "what was waiting", |world| world.tiered([10, 3000])).await;
    assert_eq!(driver.offload().error(), None);
}
