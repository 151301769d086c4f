//! The alerts of partitions that other nodes lead, as their last checkpoints show them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_log::Epoch;
use forebay_sinks::{Engine, RuleSet, Transition};

use super::board::{RuleName, RuleSum, SourceId};
use super::checkpoint::{Checkpoint, Checkpoints};
use super::service::Service;
use crate::leadership;

/// What was seen of one partition.
struct Seen {
    /// The checkpoint and the rules that it was seen with.
    stamp: (Epoch, u64),
    rules: Arc<RuleSet>,
    active: Vec<Transition>,
    sums: Vec<(RuleName, RuleSum)>,
}

/// What was seen last; read again when there is a later checkpoint.
#[derive(Default)]
pub(super) struct Around(Mutex<BTreeMap<SourceId, Seen>>);

impl Service {
    /// All pending and firing alerts, the longest active first; those of other nodes as of their last checkpoints.
    pub(super) fn active(&self) -> Vec<Transition> {
        let mut active = self.board.active();
        self.look_around(|seen| active.extend(seen.active.iter().cloned()));
        active.sort_by(|a, b| (a.active_at, &a.fingerprint).cmp(&(b.active_at, &b.fingerprint)));
        active
    }

    /// The sums of all rules over all partitions, as [`Service::active`].
    pub(super) fn sums(&self) -> BTreeMap<RuleName, RuleSum> {
        let mut sums = self.board.sums();
        self.look_around(|seen| {
            for (name, sum) in &seen.sums {
                let total = sums.entry(name.clone()).or_default();
                total.pending += sum.pending;
                total.firing += sum.firing;
                total.errors += sum.errors;
            }
        });
        sums
    }

    fn look_around(&self, mut look: impl FnMut(&Seen)) {
        let rules = self.rules.borrow().clone();
        let mut all = self.around.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = BTreeMap::new();
        for topic in rules.sources().into_iter().filter_map(|name| self.log.topic(name)) {
            for partition in topic.partitions.iter().filter(|p| leadership::led(&self.log, p).is_none()) {
                let id: SourceId = (topic.name.clone(), topic.id, partition.index());
                let checkpoints = Checkpoints::new(self.state.clone(), &id.0, id.1, id.2, Epoch(0));
                let Some(stamp) = checkpoints.stamp() else { continue };
                let before = all.remove(&id).filter(|seen| seen.stamp == stamp && Arc::ptr_eq(&seen.rules, &rules));
                let Some(seen) = before.or_else(|| see(&checkpoints, stamp, &id, &rules)) else { continue };
                look(&seen);
                known.insert(id, seen);
            }
        }
        *all = known;
    }
}

fn see(checkpoints: &Checkpoints, stamp: (Epoch, u64), id: &SourceId, rules: &Arc<RuleSet>) -> Option<Seen> {
    let Checkpoint { snapshot, .. } = checkpoints.load()?;
    let engine = Engine::restore(rules, &id.0, id.2, &snapshot, &mut Vec::new()).ok()?;
    let sums = engine.health().map(|rule| {
        let sum = RuleSum { pending: rule.pending, firing: rule.firing, errors: rule.errors };
        ((rule.group.to_owned(), rule.alert.to_owned()), sum)
    });
    Some(Seen { stamp, rules: rules.clone(), active: engine.active().cloned().collect(), sums: sums.collect() })
}
