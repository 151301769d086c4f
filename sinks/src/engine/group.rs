//! One group of rules at work: finds key and time of a reading, runs the programs and moves the alerts on.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use forebay_log::Millis;

use super::lifecycle::{Change, Lifecycle, Observation, Phase, Policy};
use super::{RuleHealth, Tally, event_time};
use crate::expr::{Program, Truth, compile};
use crate::limits;
use crate::rules::{Group, Rule};
use crate::scan::{FieldSet, Row};
use crate::template::{Part, Template};
use crate::transition::{Source, State, Transition, fingerprint, transition_id};

/// Stands between the values of a key of several fields.
pub(super) const KEY_SEPARATOR: char = '\u{1f}';

/// A scanned record and where it is.
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: u32,
    pub(super) offset: i64,
    pub(super) timestamp: Millis,
    /// The clock of the node.
    pub(super) now: Millis,
    pub(super) row: Row<'a>,
    pub(super) fields: &'a FieldSet,
}

/// One alert of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Instance {
    pub(super) life: Lifecycle,
    /// The last transition, while the alert is pending or firing.
    pub(super) shown: Option<Box<Transition>>,
}

/// What is known of one key.
#[derive(Debug, Clone)]
pub(super) struct KeyState {
    /// Event time of the newest reading.
    pub(super) newest: i64,
    /// One for each rule.
    pub(super) instances: Box<[Instance]>,
}

struct RuleState {
    expr: Program,
    clear: Option<Program>,
    policy: Policy,
    pending: usize,
    firing: usize,
    errors: u64,
}

/// A group with the state of its keys.
pub(super) struct GroupState {
    pub(super) group: Arc<Group>,
    key_slots: Vec<usize>,
    time_slot: Option<usize>,
    rules: Vec<RuleState>,
    pub(super) keys: HashMap<Box<str>, KeyState>,
    key: String,
}

impl GroupState {
    pub(super) fn new(group: Arc<Group>, fields: &mut FieldSet) -> GroupState {
        let rules = group.rules.iter().map(|rule| RuleState {
            expr: compile(&rule.expr, fields, &group.tables),
            clear: rule.clear.as_ref().map(|clear| compile(clear, fields, &group.tables)),
            policy: Policy { for_ms: rule.for_ms, keep_firing_for_ms: rule.keep_firing_for_ms },
            pending: 0,
            firing: 0,
            errors: 0,
        });
        let rules = rules.collect();
        for rule in &group.rules {
            for (_, template) in rule.labels.iter().chain(&rule.annotations) {
                for part in &template.parts {
                    if let Part::Field(path) = part {
                        fields.slot(path);
                    }
                }
            }
        }
        let key_slots = group.key.iter().map(|field| fields.slot(&field.path)).collect();
        let time_slot = group.time.field.as_ref().map(|path| fields.slot(path));
        GroupState { group, key_slots, time_slot, rules, keys: HashMap::new(), key: String::new() }
    }

    pub(super) fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn health(&self) -> impl Iterator<Item = RuleHealth<'_>> {
        self.group.rules.iter().zip(&self.rules).map(|(rule, state)| RuleHealth {
            group: &self.group.name,
            alert: &rule.alert,
            pending: state.pending,
            firing: state.firing,
            errors: state.errors,
        })
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Transition> {
        self.keys.values().flat_map(|key| key.instances.iter().filter_map(|instance| instance.shown.as_deref()))
    }

    /// Puts back the state of a key.
    pub(super) fn insert(&mut self, key: &str, state: KeyState) {
        for (rule, instance) in self.rules.iter_mut().zip(&state.instances) {
            rule.moved(Phase::Inactive, instance.life.phase);
        }
        self.keys.insert(key.into(), state);
    }

    /// Writes the reading's key into `self.key`; false if it has none.
    fn read_key(&mut self, row: &Row<'_>) -> bool {
        self.key.clear();
        for (index, slot) in self.key_slots.iter().enumerate() {
            let Some(text) = row.text(*slot) else { return false };
            if index > 0 {
                self.key.push(KEY_SEPARATOR);
            }
            if text.is_empty() || text.contains(KEY_SEPARATOR) || self.key.len() + text.len() > limits::MAX_KEY_BYTES {
                return false;
            }
            self.key.push_str(&text);
        }
        true
    }

    pub(super) fn feed(&mut self, record: &Record<'_>, tally: &mut Tally, out: &mut Vec<Transition>) {
        let row = &record.row;
        if !self.read_key(row) {
            tally.no_key += 1;
            return;
        }
        let at = match self.time_slot {
            None => record.timestamp,
            Some(slot) => match event_time::read(row, slot) {
                Some(at) => at,
                None => {
                    tally.no_time += 1;
                    return;
                }
            },
        };
        // A record whose timestamp is the reading's own time does not tell when it arrived; others do.
        let arrival = if record.timestamp == at { record.now } else { record.timestamp };
        let is_set = arrival.0 >= limits::CLOCK_UNSET_BEFORE_MS;
        if is_set && at.0.saturating_sub(arrival.0) > self.group.time.max_future_ms {
            tally.future += 1;
            return;
        }
        let full = self.keys.len() >= limits::MAX_KEYS_PER_GROUP;
        let state = match self.keys.get_mut(self.key.as_str()) {
            Some(state) => state,
            None if full => {
                tally.beyond_limit += 1;
                return;
            }
            None => {
                let instances = self.rules.iter().map(|_| Instance::default()).collect();
                self.keys.entry(self.key.as_str().into()).or_insert(KeyState { newest: i64::MIN, instances })
            }
        };
        if at.0 < state.newest {
            if state.newest.saturating_sub(at.0) > self.group.time.lateness_ms {
                tally.late += 1;
                return;
            }
            tally.out_of_order += 1;
        }
        tally.evaluated += 1;
        state.newest = state.newest.max(at.0);
        for (index, instance) in state.instances.iter_mut().enumerate() {
            let (rule, running) = (&self.group.rules[index], &mut self.rules[index]);
            let holds = running.expr.condition(row);
            // `clear` matters only to an alert that fires.
            let clear = match (&running.clear, instance.life.phase) {
                (Some(clear), Phase::Firing { .. }) => Some(clear.condition(row)),
                _ => None,
            };
            running.errors += u64::from(holds == Truth::Wrong || clear == Some(Truth::Wrong));
            let seen = Observation { at: at.0, newest: state.newest, holds, clear };
            let before = instance.life.phase;
            if let Some(change) = instance.life.observe(running.policy, seen) {
                running.moved(before, instance.life.phase);
                let value = running.expr.value(row);
                let context = Context { group: &self.group, rule, record, key: &self.key, at, value };
                let transition = context.transition(change, instance.shown.as_deref());
                let ends = transition.state == State::Resolved;
                instance.shown = (!ends).then(|| Box::new(transition.clone()));
                out.push(transition);
            }
        }
    }
}

impl RuleState {
    fn moved(&mut self, before: Phase, after: Phase) {
        match before {
            Phase::Inactive => {}
            Phase::Pending { .. } => self.pending -= 1,
            Phase::Firing { .. } => self.firing -= 1,
        }
        match after {
            Phase::Inactive => {}
            Phase::Pending { .. } => self.pending += 1,
            Phase::Firing { .. } => self.firing += 1,
        }
    }
}

/// The key's labels with their values.
pub(super) fn key_labels<'a>(names: impl Iterator<Item = &'a str>, key: &'a str) -> Vec<(&'a str, &'a str)> {
    names.zip(key.split(KEY_SEPARATOR)).collect()
}

/// Everything a transition is made from.
struct Context<'a> {
    group: &'a Group,
    rule: &'a Rule,
    record: &'a Record<'a>,
    key: &'a str,
    at: Millis,
    value: Option<f64>,
}

impl Context<'_> {
    fn transition(&self, change: Change, before: Option<&Transition>) -> Transition {
        let record = self.record;
        let (state, active_at, starts_at) = match change {
            Change::Pending { active_at } => (State::Pending, active_at, None),
            Change::Firing { active_at, starts_at } => (State::Firing, active_at, Some(starts_at)),
            Change::Resolved { active_at, starts_at } => (State::Resolved, active_at, starts_at),
        };
        let key = key_labels(self.group.key.iter().map(|field| field.label.as_str()), self.key);
        let (labels, fingerprint) = match before {
            Some(before) => (before.labels.clone(), before.fingerprint.clone()),
            None => {
                let fingerprint = fingerprint(&self.group.name, &self.rule.alert, key.iter().copied());
                let mut labels: BTreeMap<String, String> =
                    key.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                let key_labels = labels.clone();
                for (name, template) in &self.rule.labels {
                    labels.insert(name.clone(), self.render(template, &key_labels));
                }
                (labels, fingerprint)
            }
        };
        let annotations = self.rule.annotations.iter();
        let annotations = annotations.map(|(name, template)| (name.clone(), self.render(template, &labels))).collect();
        let active_at = Millis(active_at);
        let cause = format!("{}/{}/{}", record.topic, record.partition, record.offset);
        Transition {
            id: transition_id(&fingerprint, active_at, state, &cause),
            alert: self.rule.alert.clone(),
            state,
            labels,
            annotations,
            value: self.value,
            active_at,
            starts_at: starts_at.map(Millis),
            ends_at: (state == State::Resolved).then_some(self.at),
            source: Source { topic: record.topic.to_owned(), partition: record.partition, offset: record.offset },
            fingerprint,
        }
    }

    fn render(&self, template: &Template, labels: &BTreeMap<String, String>) -> String {
        let record = self.record;
        template.render(|part| match part {
            Part::Text(_) => None,
            Part::AlertName => Some(Cow::Borrowed(self.rule.alert.as_str())),
            Part::Value => self.value.map(|value| Cow::Owned(value.to_string())),
            Part::Label(name) => labels.get(name).map(|value| Cow::Owned(value.clone())),
            Part::Field(path) => record.fields.find(path).and_then(|slot| record.row.text(slot)),
        })
    }
}
