//! The offload of one topic as a pure machine: told of segments, finished steps and time, it asks for the next step.
//!
//! The order that makes every crash harmless: the manifest names the object before it is written, the object is whole before the
//! manifest says so, and that before the table does; the local copy goes only after all three. A commit carries each partition's end
//! offset, so one made twice adds nothing. On the way out the log start moves first, then the table lets go, then the object.

mod background;
mod driver;
mod event;
mod lane;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_log::{Millis, Offset};
use uuid::Uuid;

pub use driver::{Driver, DriverError, LocalLog, ManifestStore, Parts};
pub use event::{Change, Effect, Event, NotCommitted, Policy, Segment, Then};
use lane::{Lane, Retry};

use crate::manifest::{Entry, ObjectFacts, State};
use crate::shape::Shape;
use crate::table::Settled;

/// Most files that one table commit adds or removes.
pub const MAX_COMMIT_FILES: usize = 1000;
/// How long an object outlives its removal from the table, in milliseconds: readers of older versions finish by then.
pub const DELETE_GRACE: i64 = 600_000;

/// A source of unique object ids; seeded in simulations.
pub type Ids = Box<dyn FnMut() -> Uuid + Send + Sync>;

/// The offload of one topic.
pub struct Offload {
    topic: String,
    topic_id: Uuid,
    policy: Policy,
    shape: Arc<Shape>,
    lanes: BTreeMap<u32, Lane>,
    ids: Ids,
    /// The partition whose copy is in progress: one at a time.
    busy: Option<u32>,
    /// The partition served last, so that all take turns.
    served: u32,
    commit_due: Option<Millis>,
    commit_retry: Retry,
    /// What the commit in progress adds and removes.
    committing: Option<(Vec<Entry>, Vec<Entry>)>,
    flushing: bool,
    commit_error: Option<String>,
    /// Steps that failed since the start.
    failures: u64,
}

impl Offload {
    /// Goes on from what the manifest holds of the topic.
    pub fn recover(
        topic: &str,
        topic_id: Uuid,
        policy: Policy,
        entries: Vec<Entry>,
        shape: Shape,
        ids: Ids,
    ) -> Offload {
        let mut lanes: BTreeMap<u32, Lane> = BTreeMap::new();
        for entry in entries {
            lanes.entry(entry.partition).or_default().recover(entry);
        }
        Offload {
            topic: topic.to_owned(),
            topic_id,
            policy,
            shape: Arc::new(shape),
            lanes,
            ids,
            busy: None,
            served: u32::MAX,
            commit_due: None,
            commit_retry: Retry::default(),
            committing: None,
            flushing: false,
            commit_error: None,
            failures: 0,
        }
    }

    /// The ranges whose objects are whole, by partition and offset.
    pub fn ranges(&self) -> impl Iterator<Item = &Entry> {
        self.lanes.values().flat_map(|lane| lane.ranges.values())
    }

    /// Everything of the partition below this is in the lake.
    pub fn tiered_end(&self, partition: u32) -> Option<Offset> {
        self.lanes.get(&partition)?.tiered_end(&self.policy)
    }

    /// Why something does not get on, until it does: the commits' reason, or that of the first partition that has one.
    pub fn error(&self) -> Option<&str> {
        let lanes = self.lanes.values().flat_map(|lane| [&lane.copy_error, &lane.delete_error]);
        [&self.commit_error].into_iter().chain(lanes).find_map(|error| error.as_deref())
    }

    /// Whether the ranges go into a table.
    pub(crate) fn has_table(&self) -> bool {
        self.policy.table
    }

    /// Steps that failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Whether the next [`Event::Tick`] would begin a copy.
    pub fn has_more(&self, now: Millis) -> bool {
        self.busy.is_none() && self.next_copy(now).is_some()
    }

    /// When to send a [`Event::Tick`] if nothing else happens.
    pub fn next_deadline(&self) -> Option<Millis> {
        let lanes = self.lanes.values().filter(|lane| !lane.trash.is_empty() || lane.next_segment().is_some());
        let copies = lanes.filter_map(|lane| lane.retry.deadline());
        let graces = self.ranges().filter_map(|entry| Some(Millis(entry.removed_at?.0 + DELETE_GRACE)));
        let commit = self.commit_due.map(|due| due.max(self.commit_retry.deadline().unwrap_or(due)));
        copies.chain(graces).chain(commit).min()
    }

    /// Takes one event in and says what is to be done. Only a tick or a flush begins a copy: however much there is to do, those
    /// who drive the machine are back after each.
    pub fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        let begins_copy = matches!(event, Event::Tick | Event::Flush);
        match event {
            Event::Local { partition, log_start, segments } => {
                let policy = &self.policy;
                let lane = self.lanes.entry(partition).or_default();
                lane.log_start = log_start;
                lane.segments = segments;
                if lane.next_segment().is_none() {
                    lane.copy_error = None;
                }
                if !lane.announced {
                    lane.announced = true;
                    effects.extend(lane.tiered_end(policy).map(|end| Effect::Tiered { partition, end }));
                }
            }
            Event::Policy(policy) => self.policy = policy,
            Event::Persisted(then) => self.persisted(now, then, effects),
            Event::Copied { partition, id, result } => self.copied(now, partition, id, result, effects),
            Event::Committed { result } => self.committed(now, result, effects),
            Event::Deleted { partition, id, result } => self.deleted(now, partition, id, result, effects),
            Event::Flush => {
                self.flushing = true;
                self.commit_retry.hurry();
                self.lanes.values_mut().for_each(|lane| lane.retry.hurry());
            }
            Event::Tick => {}
        }
        self.plan_removal(now, effects);
        self.plan_deletes(now, effects);
        if begins_copy {
            self.plan_copy(now, effects);
        }
        self.plan_commit(now, effects);
    }

    fn persisted(&mut self, now: Millis, then: Then, effects: &mut Vec<Effect>) {
        match then {
            Then::CopyStarted { partition } => {
                if let Some(entry) = self.lanes.get(&partition).and_then(|lane| lane.copying.clone()) {
                    effects.push(Effect::Copy { entry: Box::new(entry), shape: self.shape.clone() });
                }
            }
            Then::CopyFinished { partition } => {
                self.busy = None;
                let Some(lane) = self.lanes.get_mut(&partition) else { return };
                if let Some(entry) = lane.copying.take() {
                    lane.ranges.insert(entry.base, entry);
                }
                if self.policy.table {
                    self.commit_due.get_or_insert(Millis(now.0 + self.policy.commit_interval));
                } else {
                    effects.extend(lane.tiered_end(&self.policy).map(|end| Effect::Tiered { partition, end }));
                }
            }
            Then::Committed { partitions } => {
                for partition in partitions {
                    effects.extend(self.tiered_end(partition).map(|end| Effect::Tiered { partition, end }));
                }
            }
            Then::Deleting => {}
            Then::Undone { entries } => {
                for entry in entries {
                    if let Some(lane) = self.lanes.get_mut(&entry.partition) {
                        lane.trash.push(entry);
                    }
                }
            }
            Then::Forgotten { partition, id } => {
                let Some(lane) = self.lanes.get_mut(&partition) else { return };
                lane.trash.retain(|entry| entry.id != id);
                lane.ranges.retain(|_, entry| entry.id != id);
                lane.deleting.retain(|deleting| *deleting != id);
            }
        }
    }

    fn copied(
        &mut self,
        now: Millis,
        partition: u32,
        id: Uuid,
        result: Result<(crate::parquet::Written, Shape), String>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        let Some(entry) = lane.copying.as_mut().filter(|entry| entry.id == id) else { return };
        if std::mem::take(&mut lane.outdated) {
            lane.trash.extend(lane.copying.take());
            self.busy = None;
            return;
        }
        match result {
            Ok((written, shape)) => {
                entry.state = State::CopyFinished;
                entry.facts = Some(ObjectFacts {
                    rows: written.rows,
                    errors: written.errors,
                    bytes: written.bytes,
                    min_timestamp: written.min_timestamp,
                    max_timestamp: written.max_timestamp,
                    finished_at: now,
                    stats: Some(written.stats),
                    lost: written.lost,
                });
                let mut changes = vec![Change::Put(Box::new(entry.clone()))];
                if shape != *self.shape {
                    self.shape = Arc::new(shape);
                    changes.push(Change::Shape(self.shape.clone()));
                }
                lane.retry.succeeded();
                lane.copy_error = None;
                effects.push(Effect::Persist { changes, then: Then::CopyFinished { partition } });
            }
            Err(error) => {
                // The object may be there all the same: it goes before the range is tried again.
                lane.trash.extend(lane.copying.take());
                lane.retry.failed(now);
                lane.copy_error = Some(format!("partition {partition}: {error}"));
                self.busy = None;
                self.failures += 1;
            }
        }
    }

    fn committed(&mut self, now: Millis, result: Result<(), NotCommitted>, effects: &mut Vec<Effect>) {
        let Some((adds, removes)) = self.committing.take() else { return };
        match result {
            Ok(()) => {}
            Err(NotCommitted::Settled(settled)) => return self.undo(&adds, *settled, effects),
            Err(NotCommitted::Failed(error)) => {
                self.commit_retry.failed(now);
                self.commit_error = Some(format!("table commit: {error}"));
                self.failures += 1;
                return;
            }
        }
        self.commit_retry.succeeded();
        self.commit_due = None;
        self.commit_error = None;
        let mut changes = Vec::new();
        let mut partitions: Vec<u32> = adds.iter().map(|entry| entry.partition).collect();
        partitions.dedup();
        for (done, removed) in adds.iter().map(|entry| (entry, false)).chain(removes.iter().map(|entry| (entry, true)))
        {
            let lane = self.lanes.get_mut(&done.partition);
            let Some(entry) = lane.and_then(|lane| lane.ranges.get_mut(&done.base)) else { continue };
            if removed {
                entry.removed_at = Some(now);
            } else {
                entry.state = State::Committed;
                entry.facts.iter_mut().for_each(|facts| facts.stats = None);
            }
            changes.push(Change::Put(Box::new(entry.clone())));
        }
        effects.push(Effect::Persist { changes, then: Then::Committed { partitions } });
    }

    /// The leader of another partition has settled the type of a column first: what has another one is copied again. So is what
    /// was copied since that commit began, in a shape that is none any more, and what lies behind it in its partition: a
    /// range is never left out between two others.
    fn undo(&mut self, adds: &[Entry], settled: Settled, effects: &mut Vec<Effect>) {
        self.shape = Arc::new(settled.shape);
        let mut changes = vec![Change::Shape(self.shape.clone())];
        let mut entries = Vec::new();
        let fits = |entry: &Entry| {
            let is_known = adds.iter().any(|add| add.id == entry.id) && !settled.misfits.contains(&entry.id);
            is_known || entry.state != State::CopyFinished
        };
        for lane in self.lanes.values_mut() {
            let first = lane.ranges.values().find(|entry| !fits(entry)).map(|entry| entry.base);
            let undone =
                first.map(|from| lane.ranges.extract_if(from.., |_, entry| entry.state == State::CopyFinished));
            entries.extend(undone.into_iter().flatten().map(|(_, entry)| entry));
            // An object that is still being written is not deleted under its writer.
            match lane.copying.take_if(|entry| entry.state == State::CopyFinished) {
                Some(finished) => entries.push(finished),
                None => lane.outdated = lane.copying.is_some(),
            }
        }
        for entry in &mut entries {
            (entry.state, entry.facts) = (State::CopyStarted, None);
            changes.push(Change::Put(Box::new(entry.clone())));
        }
        effects.push(Effect::Persist { changes, then: Then::Undone { entries } });
    }

    fn deleted(
        &mut self,
        now: Millis,
        partition: u32,
        id: Uuid,
        result: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        match result {
            Ok(()) => {
                lane.delete_error = None;
                let entry = lane.trash.iter().chain(lane.ranges.values()).find(|entry| entry.id == id);
                if let Some(entry) = entry {
                    let changes = vec![Change::Forget(Box::new(entry.clone()))];
                    effects.push(Effect::Persist { changes, then: Then::Forgotten { partition, id } });
                }
            }
            Err(error) => {
                lane.deleting.retain(|deleting| *deleting != id);
                lane.retry.failed(now);
                lane.delete_error = Some(format!("partition {partition}: {error}"));
                self.failures += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
