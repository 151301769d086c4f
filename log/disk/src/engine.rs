//! What one shard does in one turn: give the machines what has arrived, perform their effects, sync everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use forebay_log::flaws::{self, Flaw};
use forebay_log::partition::{Append, Durable, Effect, Event, Fault, Outcome, Persist};
use forebay_log::{Epoch, Millis, limits};
use tracing::error;

use crate::files::{File, is_disk_full};
use crate::machine::{Machine, Token};
use crate::pool::SyncPool;
use crate::space::Space;
use crate::stats::{Stats, SyncClock};
use crate::store::Store;

/// Number of a partition in this node, given when it is opened.
pub(crate) type PartitionKey = u64;

/// A partition with its files.
pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) store: Store,
    effects: Vec<Effect<Token>>,
}

impl Driver {
    pub(crate) fn new(machine: Machine, store: Store) -> Driver {
        Driver { machine, store, effects: Vec::new() }
    }
}

/// The partitions of one shard.
pub(crate) struct Engine {
    partitions: BTreeMap<PartitionKey, Driver>,
    pool: SyncPool,
    space: Arc<Space>,
    stats: Arc<Stats>,
    sync_clock: Arc<SyncClock>,
    fsync: bool,
    /// Acknowledged and not synced yet, where that flaw is planted.
    late: Vec<Arc<dyn File>>,
}

/// A write that waits for the sync of this turn.
struct Unsynced {
    key: PartitionKey,
    then: Durable<Token>,
    file: Arc<dyn File>,
}

impl Engine {
    pub(crate) fn new(pool: SyncPool, space: Arc<Space>, stats: Arc<Stats>, fsync: bool) -> Engine {
        let sync_clock = stats.sync_clock();
        Engine { partitions: BTreeMap::new(), pool, space, stats, sync_clock, fsync, late: Vec::new() }
    }

    /// Takes a partition in, unless its topic was deleted while it was opened.
    pub(crate) fn add(&mut self, key: PartitionKey, driver: Driver) {
        if driver.store.shared().removed.load(Ordering::Acquire) {
            return;
        }
        driver.store.shared().publish(&driver.machine);
        self.partitions.insert(key, driver);
    }

    /// Lets a deleted partition go; what it still owes is answered by the drop of its tokens.
    pub(crate) fn remove(&mut self, key: PartitionKey) {
        self.partitions.remove(&key);
    }

    /// Milliseconds until a machine has something to do by itself.
    pub(crate) fn idle_for(&self, now: Millis) -> i64 {
        let due = self.partitions.values().filter_map(|driver| driver.machine.next_deadline()).min();
        due.map_or(limits::TICK_MS, |at| at.0.saturating_sub(now.0)).clamp(limits::MIN_TICK_MS, limits::TICK_MS)
    }

    /// One turn: events in order of arrival, consecutive appends to a partition as one group; then all their work.
    pub(crate) fn turn(&mut self, now: Millis, events: Vec<(PartitionKey, Event<Token>)>) {
        let mut touched = BTreeSet::new();
        let mut appends: BTreeMap<PartitionKey, Vec<Append<Token>>> = BTreeMap::new();
        for (key, event) in events {
            touched.insert(key);
            match event {
                Event::Append(group) => {
                    let waiting = appends.entry(key).or_default();
                    // Whatever changes it is carried out before what comes after it.
                    let epoch = self.partitions.get(&key).map_or(Epoch(-1), |driver| driver.machine.epoch());
                    for append in group {
                        match append.token.check_chain(epoch) {
                            Ok(()) => waiting.push(append),
                            Err(error) => append.token.answer(Outcome::Refused(error)),
                        }
                    }
                }
                event => {
                    if let Some(group) = appends.remove(&key) {
                        self.handle(now, key, Event::Append(group));
                    }
                    self.handle(now, key, event);
                }
            }
        }
        for (key, group) in appends {
            self.handle(now, key, Event::Append(group));
        }
        self.perform(now, touched);
    }

    /// Lets every partition see that time has passed.
    pub(crate) fn tick(&mut self, now: Millis) {
        let keys: BTreeSet<PartitionKey> = self.partitions.keys().copied().collect();
        for &key in &keys {
            self.handle(now, key, Event::Tick);
        }
        self.perform(now, keys);
        for driver in self.partitions.values_mut() {
            driver.store.sweep();
        }
    }

    /// Tells every partition that the clock was set by `by` milliseconds.
    pub(crate) fn clock_stepped(&mut self, now: Millis, by: i64) {
        tracing::warn!(seconds = by / 1000, "the system's clock was set; by age nothing leaves the log for an hour");
        let keys: BTreeSet<PartitionKey> = self.partitions.keys().copied().collect();
        for &key in &keys {
            self.handle(now, key, Event::ClockStepped { by });
        }
        self.perform(now, keys);
    }

    /// Makes everything durable for a stop. The first error is returned; the other partitions are flushed all the same.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.partitions.values().map(|driver| driver.store.flush()).fold(Ok(()), Result::and)
    }

    fn handle(&mut self, now: Millis, key: PartitionKey, event: Event<Token>) {
        let Some(driver) = self.partitions.get_mut(&key) else { return };
        let changes_role = matches!(event, Event::Lead(_) | Event::Follow(..));
        driver.machine.handle(now, event, &mut driver.effects);
        if changes_role {
            driver.store.shared().publish(&driver.machine);
        }
    }

    /// Performs effects until none is left. Each round writes for every partition, syncs all written files together and
    /// only then tells the machines.
    fn perform(&mut self, now: Millis, mut touched: BTreeSet<PartitionKey>) {
        while !touched.is_empty() {
            let mut unsynced = Vec::new();
            touched.retain(|&key| self.perform_one(now, key, &mut unsynced));
            if unsynced.is_empty() {
                continue;
            }
            let began = Instant::now();
            let late = flaws::has(Flaw::AckBeforeSync);
            let results = if self.fsync && late {
                let before = std::mem::replace(&mut self.late, unsynced.iter().map(|w| Arc::clone(&w.file)).collect());
                self.pool.sync_all(&before);
                unsynced.iter().map(|_| Ok(())).collect()
            } else if self.fsync {
                let files: Vec<Arc<dyn File>> = unsynced.iter().map(|write| Arc::clone(&write.file)).collect();
                self.sync_clock.begin();
                let results = self.pool.sync_all(&files);
                self.sync_clock.end();
                results
            } else {
                unsynced.iter().map(|_| Ok(())).collect()
            };
            self.stats.committed(if self.fsync { unsynced.len() } else { 0 }, began.elapsed());
            for (Unsynced { key, then, .. }, result) in unsynced.into_iter().zip(results) {
                self.persisted(now, key, then, result);
            }
        }
    }

    /// Performs the effects of one partition; returns whether it may have more after this round.
    fn perform_one(&mut self, now: Millis, key: PartitionKey, unsynced: &mut Vec<Unsynced>) -> bool {
        let effects = self.partitions.get_mut(&key).map(|driver| std::mem::take(&mut driver.effects));
        let mut more = false;
        for effect in effects.unwrap_or_default() {
            let Some(driver) = self.partitions.get_mut(&key) else { return false };
            match effect {
                Effect::Persist(Persist { work, then }) => {
                    more = true;
                    match driver.store.perform(&work) {
                        Ok(Some(file)) => unsynced.push(Unsynced { key, then, file }),
                        done => self.persisted(now, key, then, done.map(|_| ())),
                    }
                }
                Effect::Repair(repair) => {
                    more = true;
                    let event = match driver.store.repair(&repair) {
                        Ok(()) => Event::Repaired,
                        Err(cause) => {
                            let shared = driver.store.shared();
                            if shared.offline.load().is_none() {
                                error!(topic = %shared.topic, partition = shared.index, %cause,
                                    "partition is offline: a failed write could not be undone; retried each second");
                            }
                            Event::RepairFailed(fault(&self.space, &cause))
                        }
                    };
                    driver.machine.handle(now, event, &mut driver.effects);
                    driver.store.shared().publish(&driver.machine);
                }
                Effect::Truncate(cut) => {
                    more = true;
                    let event = match driver.store.truncate(&cut, now) {
                        Ok(restored) => Event::Truncated(Box::new(restored)),
                        Err(cause) => {
                            let shared = driver.store.shared();
                            if shared.offline.load().is_none() {
                                error!(topic = %shared.topic, partition = shared.index, to = %cut.to, %cause,
                                    "partition is offline: its log cannot be cut to its leader's; retried each second");
                            }
                            Event::TruncateFailed(fault(&self.space, &cause))
                        }
                    };
                    driver.machine.handle(now, event, &mut driver.effects);
                    driver.store.shared().publish(&driver.machine);
                }
                Effect::ProposeIsr(change) => driver.store.shared().propose_isr(change),
                Effect::Delete(bases) => driver.store.delete(&bases),
                Effect::Stamp(stamps) => driver.store.stamp(&stamps),
                Effect::Watermarks(marks) => driver.store.shared().publish_marks(marks),
                Effect::Done(token, outcome) => token.answer(outcome),
            }
        }
        more
    }

    fn persisted(&mut self, now: Millis, key: PartitionKey, mut then: Durable<Token>, result: io::Result<()>) {
        let Some(driver) = self.partitions.get_mut(&key) else { return };
        let event = match result {
            Ok(()) => {
                driver.store.commit();
                Event::Persisted(then)
            }
            Err(cause) => {
                driver.store.abandon();
                let shared = driver.store.shared();
                self.stats.failed_write();
                // A full disk is told of once, when it becomes full.
                if !is_disk_full(&cause) {
                    error!(topic = %shared.topic, partition = shared.index, %cause, "write failed: its appends are refused");
                }
                // They are answered once the repair is durable, however long that takes.
                then.tokens_mut().for_each(Token::release);
                Event::PersistFailed(then, fault(&self.space, &cause))
            }
        };
        driver.machine.handle(now, event, &mut driver.effects);
        driver.store.shared().publish(&driver.machine);
    }
}

fn fault(space: &Space, cause: &io::Error) -> Fault {
    space.note(cause);
    if is_disk_full(cause) { Fault::DiskFull } else { Fault::Io(cause.to_string()) }
}
