//! What the alert service shows of itself: active alerts, the health of rules, how far each partition is evaluated.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_sinks::{Engine, State, Transition};
use uuid::Uuid;

use crate::metrics::Metrics;

/// A source partition; the id tells a topic from a later one of the same name.
pub(super) type SourceId = (String, Uuid, u32);

/// What one follower shows.
struct View {
    /// The next offset to be evaluated; what the records before it caused is in `_alerts`.
    position: i64,
    /// Last transitions of pending and firing alerts by fingerprint.
    active: BTreeMap<String, Transition>,
    rules: Vec<(RuleName, RuleSum)>,
    keys: usize,
}

/// Group and alert.
pub(super) type RuleName = (String, String);

/// How the alerts of a rule stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RuleSum {
    pub(super) pending: usize,
    pub(super) firing: usize,
    pub(super) errors: u64,
}

/// The views of all followers.
#[derive(Default)]
pub(super) struct Board {
    views: Mutex<BTreeMap<SourceId, View>>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceId, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an engine as it is after a start or a reload.
    pub(super) fn replace(&self, id: &SourceId, engine: &Engine) {
        let active = engine.active().map(|transition| (transition.fingerprint.clone(), transition.clone())).collect();
        let name = |rule: &str| rule.to_owned();
        let rules = engine.health().map(|rule| ((name(rule.group), name(rule.alert)), RuleSum::default())).collect();
        let mut view = View { position: 0, active, rules, keys: 0 };
        view.read(engine);
        self.lock().insert(id.clone(), view);
    }

    /// Shows what a batch changed. Returns how many evaluation errors are new.
    pub(super) fn update(&self, id: &SourceId, engine: &Engine, changes: &[Transition]) -> u64 {
        let mut views = self.lock();
        let Some(view) = views.get_mut(id) else { return 0 };
        for transition in changes {
            if transition.state == State::Resolved {
                view.active.remove(&transition.fingerprint);
            } else {
                view.active.insert(transition.fingerprint.clone(), transition.clone());
            }
        }
        view.read(engine)
    }

    pub(super) fn remove(&self, id: &SourceId) {
        self.lock().remove(id);
    }

    pub(super) fn position(&self, id: &SourceId) -> Option<i64> {
        self.lock().get(id).map(|view| view.position)
    }

    /// All pending and firing alerts, the longest active first.
    pub(super) fn active(&self) -> Vec<Transition> {
        let mut active: Vec<Transition> = self.lock().values().flat_map(|view| view.active.values().cloned()).collect();
        active.sort_by(|a, b| (a.active_at, &a.fingerprint).cmp(&(b.active_at, &b.fingerprint)));
        active
    }

    /// The sums of all rules over their partitions.
    pub(super) fn sums(&self) -> BTreeMap<RuleName, RuleSum> {
        let mut sums: BTreeMap<RuleName, RuleSum> = BTreeMap::new();
        for (name, sum) in self.lock().values().flat_map(|view| &view.rules) {
            let total = sums.entry(name.clone()).or_default();
            total.pending += sum.pending;
            total.firing += sum.firing;
            total.errors += sum.errors;
        }
        sums
    }

    /// Sets the gauges of the metrics.
    pub(super) fn measure(&self, metrics: &Metrics) {
        let views = self.lock();
        let gauge = |sum: usize| i64::try_from(sum).unwrap_or(i64::MAX);
        let rules = || views.values().flat_map(|view| view.rules.iter().map(|(_, sum)| sum));
        metrics.alerts.pending.set(gauge(rules().map(|rule| rule.pending).sum()));
        metrics.alerts.firing.set(gauge(rules().map(|rule| rule.firing).sum()));
        metrics.alerts.keys.set(gauge(views.values().map(|view| view.keys).sum()));
    }
}

impl View {
    fn read(&mut self, engine: &Engine) -> u64 {
        let mut new_errors = 0;
        for ((_, shown), health) in self.rules.iter_mut().zip(engine.health()) {
            new_errors += health.errors.saturating_sub(shown.errors);
            *shown = RuleSum { pending: health.pending, firing: health.firing, errors: health.errors };
        }
        self.position = engine.next_offset();
        self.keys = engine.keys();
        new_errors
    }
}
