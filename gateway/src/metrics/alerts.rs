//! Metrics of the alert rules: readings, states, transitions, deliveries.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use forebay_sinks::{State, Tally};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivery {
    receiver: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    topic: String,
    partition: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabel {
    receiver: String,
}

/// Gauges of things that come and go: what was not measured last is not shown.
struct Measured<L> {
    family: Family<L, Gauge>,
    shown: Mutex<HashSet<L>>,
}

impl<L: Clone + Eq + Hash> Measured<L> {
    fn new() -> Measured<L> {
        Measured { family: Family::default(), shown: Mutex::default() }
    }

    fn set(&self, values: impl Iterator<Item = (L, i64)>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *shown);
        for (labels, value) in values {
            self.family.get_or_create(&labels).set(value);
            shown.insert(labels);
        }
        for gone in before.difference(&shown) {
            self.family.remove(gone);
        }
    }
}

/// What the alert rules count.
pub struct AlertMetrics {
    readings: Family<Outcome, Counter>,
    transitions: Family<ToState, Counter>,
    deliveries: Family<Delivery, Counter>,
    pub evaluation_errors: Counter,
    /// Records that were gone or damaged before the rules, or transitions before a receiver, could be served.
    pub skipped_records: Counter,
    pub pending: Gauge,
    pub firing: Gauge,
    /// Key values that are followed.
    pub keys: Gauge,
    rules_revision: Gauge,
    /// 1 while the rules in force are not those that the cluster should evaluate.
    pub rules_not_taken_up: Gauge,
    lag: Measured<SourceLabels>,
    backlog: Measured<ReceiverLabel>,
}

impl AlertMetrics {
    pub(super) fn new(registry: &mut Registry) -> AlertMetrics {
        let metrics = AlertMetrics {
            readings: Family::default(),
            transitions: Family::default(),
            deliveries: Family::default(),
            evaluation_errors: Counter::default(),
            skipped_records: Counter::default(),
            pending: Gauge::default(),
            firing: Gauge::default(),
            keys: Gauge::default(),
            rules_revision: Gauge::default(),
            rules_not_taken_up: Gauge::default(),
            lag: Measured::new(),
            backlog: Measured::new(),
        };
        let registry = registry.sub_registry_with_prefix("alerts");
        registry.register("readings", "Readings by what the rules made of them", metrics.readings.clone());
        registry.register("transitions", "Changes of alerts by the state they came to", metrics.transitions.clone());
        registry.register("deliveries", "Attempts to tell receivers, by kind and outcome", metrics.deliveries.clone());
        registry.register(
            "evaluation_errors",
            "Conditions that met a value of the wrong type",
            metrics.evaluation_errors.clone(),
        );
        registry.register(
            "skipped_records",
            "Readings and transitions that were removed or damaged before they could be evaluated or delivered",
            metrics.skipped_records.clone(),
        );
        registry.register("pending", "Alerts that are pending", metrics.pending.clone());
        registry.register("firing", "Alerts that are firing", metrics.firing.clone());
        registry.register("keys", "Key values that rules follow", metrics.keys.clone());
        registry.register(
            "rules_revision",
            "Which of the cluster's rule sets is in force here; 0: the node's own files",
            metrics.rules_revision.clone(),
        );
        registry.register(
            "rules_not_taken_up",
            "Whether the cluster has other rules than are in force here",
            metrics.rules_not_taken_up.clone(),
        );
        registry.register(
            "lag_records",
            "Records of a source partition that rules have not evaluated yet",
            metrics.lag.family.clone(),
        );
        registry.register(
            "receiver_backlog",
            "Records of _alerts that a receiver has not been told yet",
            metrics.backlog.family.clone(),
        );
        metrics
    }

    /// Shows how far rules (topic, partition, records) and receivers (name, records) are behind.
    pub(crate) fn measured(&self, lags: Vec<(String, u32, i64)>, backlogs: Vec<(String, i64)>) {
        self.lag.set(lags.into_iter().map(|(topic, partition, lag)| (SourceLabels { topic, partition }, lag)));
        self.backlog.set(backlogs.into_iter().map(|(receiver, backlog)| (ReceiverLabel { receiver }, backlog)));
    }

    /// The rules of this revision are in force; 0: the node's own.
    pub fn rules_taken_up(&self, revision: u64) {
        self.rules_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.rules_not_taken_up.set(0);
    }

    /// Adds what an engine counted.
    pub fn add(&self, tally: &Tally) {
        let counts = [
            ("evaluated", tally.evaluated),
            ("out_of_order", tally.out_of_order),
            ("late", tally.late),
            ("future", tally.future),
            ("malformed", tally.malformed),
            ("no_key", tally.no_key),
            ("no_time", tally.no_time),
            ("beyond_key_limit", tally.beyond_limit),
        ];
        for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.readings.get_or_create(&Outcome { outcome }).inc_by(count);
        }
    }

    /// Counts a transition that became durable.
    pub fn changed(&self, state: State) {
        self.transitions.get_or_create(&ToState { state: state.name() }).inc();
    }

    /// Counts an attempt to deliver: "delivered", "failed", "parked", or "repeated" for a POST of alerts that still fire.
    pub fn delivery(&self, receiver: &'static str, outcome: &'static str) {
        self.deliveries.get_or_create(&Delivery { receiver, outcome }).inc();
    }
}
