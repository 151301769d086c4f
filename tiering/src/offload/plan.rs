//! What the offload begins next: copies, commits, and what goes.

use std::collections::BTreeMap;

use forebay_log::{Millis, Offset};
use uuid::Uuid;

use super::event::{Change, Effect, Segment, Then};
use super::lane::{Lane, is_over};
use super::{DELETE_GRACE, MAX_COMMIT_FILES, Offload};
use crate::manifest::{Entry, NO_EPOCH, State, object_path};
use crate::table::Ends;

impl Offload {
    pub(super) fn plan_removal(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let least = if self.policy.table { State::Committed } else { State::CopyFinished };
        let committing: Vec<Uuid> = self.committing.iter().flat_map(|(adds, _)| adds).map(|entry| entry.id).collect();
        let mut changes = Vec::new();
        for lane in self.lanes.values_mut() {
            for entry in lane.ranges.values_mut() {
                let begun = entry.state == State::DeleteStarted;
                let gone = entry.end <= lane.log_start && entry.state >= least && !begun;
                // Begun with a table, which has been switched off since.
                let unlisted = begun && entry.removed_at.is_none() && !self.policy.table;
                if (gone || unlisted) && !committing.contains(&entry.id) {
                    entry.state = State::DeleteStarted;
                    // Without a table there is nobody to let go first.
                    entry.removed_at = (!self.policy.table).then_some(now);
                    changes.push(Change::Put(Box::new(entry.clone())));
                }
            }
        }
        if !changes.is_empty() {
            effects.push(Effect::Persist { changes, then: Then::Deleting });
        }
    }

    pub(super) fn plan_deletes(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for (partition, lane) in &mut self.lanes {
            if !lane.retry.ready(now) {
                continue;
            }
            let expired = lane.ranges.values().filter(|entry| {
                let grace_over = |at: Millis| is_over(Millis(at.0.saturating_add(DELETE_GRACE)), DELETE_GRACE, now);
                entry.state == State::DeleteStarted && entry.removed_at.is_some_and(grace_over)
            });
            for entry in lane.trash.iter().chain(expired) {
                if !lane.deleting.contains(&entry.id) {
                    lane.deleting.push(entry.id);
                    let (id, path) = (entry.id, entry.path.clone());
                    let unfinished = entry.state == State::CopyStarted;
                    effects.push(Effect::DeleteObject { partition: *partition, id, path, unfinished });
                }
            }
        }
    }

    /// The partitions take turns.
    pub(super) fn next_copy(&self, now: Millis) -> Option<(u32, Segment)> {
        let mut turns = self.lanes.range(self.served.saturating_add(1)..).chain(self.lanes.range(..=self.served));
        let due = |lane: &Lane| if lane.trash.is_empty() && lane.retry.ready(now) { lane.next_segment() } else { None };
        turns.find_map(|(partition, lane)| Some((*partition, due(lane)?)))
    }

    pub(super) fn plan_copy(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.busy.is_some() {
            return;
        }
        let Some((partition, segment)) = self.next_copy(now) else { return };
        let id = (self.ids)();
        let entry = Entry {
            topic_id: self.topic_id,
            partition,
            base: segment.base,
            end: segment.end,
            id,
            path: object_path(&self.topic, partition, segment.base, segment.append_day, id),
            append_day: segment.append_day,
            log_bytes: segment.bytes,
            state: State::CopyStarted,
            facts: None,
            removed_at: None,
            epoch: NO_EPOCH,
        };
        let changes = vec![Change::Put(Box::new(entry.clone()))];
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.copying = Some(entry);
        }
        (self.busy, self.served) = (Some(partition), partition);
        effects.push(Effect::Persist { changes, then: Then::CopyStarted { partition } });
    }

    /// What the table holds of the partitions of `adds`, up to the first range of each.
    fn held_before(&self, adds: &[Entry]) -> Ends {
        let mut firsts: BTreeMap<u32, Offset> = BTreeMap::new();
        for entry in adds {
            firsts.entry(entry.partition).or_insert(entry.base);
        }
        let held = firsts.into_iter().filter_map(|(partition, base)| {
            let (_, before) = self.lanes.get(&partition)?.ranges.range(..base).next_back()?;
            (before.state == State::Committed).then_some((partition, before.end))
        });
        held.collect()
    }

    pub(super) fn plan_commit(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if !self.policy.table {
            self.commit_error = None;
        }
        if self.committing.is_some() || !self.policy.table {
            return;
        }
        let take = |wanted: fn(&Entry) -> bool| -> Vec<Entry> {
            self.ranges().filter(|entry| wanted(entry)).take(MAX_COMMIT_FILES).cloned().collect()
        };
        let adds = take(|entry| entry.state == State::CopyFinished);
        let removes = take(|entry| entry.state == State::DeleteStarted && entry.removed_at.is_none());
        if adds.is_empty() && removes.is_empty() {
            (self.commit_due, self.commit_error) = (None, None);
            self.flushing &= self.busy.is_some();
            return;
        }
        let due = *self.commit_due.get_or_insert(Millis(now.0 + self.policy.commit_interval));
        let more_to_copy = self.busy.is_some()
            || self.lanes.values().any(|lane| lane.retry.ready(now) && lane.next_segment().is_some());
        let now_or_never = is_over(due, self.policy.commit_interval, now)
            || adds.len() >= MAX_COMMIT_FILES
            || (self.flushing && !more_to_copy);
        if now_or_never && self.commit_retry.ready(now) {
            self.committing = Some((adds.clone(), removes.clone()));
            let held = self.held_before(&adds);
            effects.push(Effect::Commit { adds, removes, shape: self.shape.clone(), held, at: now });
        }
    }
}
