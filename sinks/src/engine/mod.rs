//! Evaluates all rules over the records of one source partition: readings in, transitions out, state that can be saved.
//!
//! Pure: the same records give the same transitions with the same ids, wherever the state was saved and restored between.

mod event_time;
mod group;
mod lifecycle;
mod snapshot;

use std::sync::Arc;

use forebay_log::Millis;

use crate::rules::RuleSet;
use crate::scan::{FieldSet, Row, Slot};
use crate::transition::Transition;

use group::GroupState;
pub use snapshot::SnapshotError;

/// One record of the source.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp: Millis,
    pub value: Option<&'a [u8]>,
}

/// How many readings were dealt with in which way, summed over the groups (each counts a reading once).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub evaluated: u64,
    /// Of the evaluated: older than the newest of their key, within `lateness`.
    pub out_of_order: u64,
    /// Older than `lateness` allows.
    pub late: u64,
    /// Ahead of their arrival by more than `max_future`.
    pub future: u64,
    /// No JSON object.
    pub malformed: u64,
    /// Without one of the key's fields.
    pub no_key: u64,
    /// Without a time that can be read.
    pub no_time: u64,
    /// Of a key beyond the limit of keys.
    pub beyond_limit: u64,
}

/// Pending and firing alerts of a rule, and how many conditions met a value of the wrong type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHealth<'a> {
    pub group: &'a str,
    pub alert: &'a str,
    pub pending: usize,
    pub firing: usize,
    pub errors: u64,
}

/// The rules over one partition of a topic, with the state of their alerts.
pub struct Engine {
    topic: Arc<str>,
    partition: u32,
    next_offset: i64,
    fields: FieldSet,
    slots: Vec<Option<Slot>>,
    groups: Vec<GroupState>,
    tally: Tally,
}

impl Engine {
    /// An engine without any state whose first record is `next_offset`. Groups of other topics are left out.
    pub fn new(rules: &RuleSet, topic: &str, partition: u32, next_offset: i64) -> Engine {
        let mut fields = FieldSet::new();
        let of_topic = rules.groups.iter().filter(|group| group.source == topic);
        let groups = of_topic.map(|group| GroupState::new(Arc::clone(group), &mut fields)).collect();
        let slots = Vec::new();
        Engine { topic: topic.into(), partition, next_offset, fields, slots, groups, tally: Tally::default() }
    }

    /// The offset of the first record that was not evaluated yet.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Goes on at `offset`: the records before it are gone.
    pub fn skip_to(&mut self, offset: i64) {
        self.next_offset = self.next_offset.max(offset);
    }

    /// Evaluates a record and adds the transitions it causes to `out`. Records below [`Engine::next_offset`] are passed over.
    ///
    /// `now` is the clock of the node: the arrival of readings whose record timestamp is their own time.
    pub fn feed(&mut self, reading: Reading<'_>, now: Millis, out: &mut Vec<Transition>) {
        if reading.offset < self.next_offset {
            return;
        }
        self.next_offset = reading.offset + 1;
        let Some(payload) = reading.value else { return };
        if self.fields.scan(payload, &mut self.slots).is_err() {
            self.tally.malformed += self.groups.len() as u64;
            return;
        }
        let row = Row { payload, slots: &self.slots };
        let record = group::Record {
            topic: &self.topic,
            partition: self.partition,
            offset: reading.offset,
            timestamp: reading.timestamp,
            now,
            row,
            fields: &self.fields,
        };
        for group in &mut self.groups {
            group.feed(&record, &mut self.tally, out);
        }
    }

    /// Whether any rule reads this partition.
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// What was counted since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Keys that are followed, over all groups.
    pub fn keys(&self) -> usize {
        self.groups.iter().map(GroupState::key_count).sum()
    }

    /// The rules and how their alerts stand.
    pub fn health(&self) -> impl Iterator<Item = RuleHealth<'_>> {
        self.groups.iter().flat_map(GroupState::health)
    }

    /// The last transitions of all pending and firing alerts.
    pub fn active(&self) -> impl Iterator<Item = &Transition> {
        self.groups.iter().flat_map(GroupState::active)
    }

    /// The whole state, to go on from after a restart.
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::write(self)
    }

    /// The state of `snapshot` under the rules of today. Alerts whose rule is still there (same group, alert and key)
    /// keep their state; those whose rule is gone are resolved into `out`.
    ///
    /// # Errors
    /// The bytes are damaged or of an unknown version.
    pub fn restore(
        rules: &RuleSet,
        topic: &str,
        partition: u32,
        snapshot: &[u8],
        out: &mut Vec<Transition>,
    ) -> Result<Engine, SnapshotError> {
        snapshot::read(Engine::new(rules, topic, partition, 0), snapshot, out)
    }
}

#[cfg(test)]
mod tests;
