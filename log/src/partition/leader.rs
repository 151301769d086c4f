//! What a leader knows of its followers: how far each is, which are in sync, and which change of that to propose.
//!
//! The in-sync replicas are the controller's to change (KIP-497). Until it has answered, the high watermark waits for those that
//! are in sync *and* for those that were proposed: whichever set the next leader is chosen from, it has every record below.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Effect;
use super::machine::Partition;
use crate::flaws::{self, Flaw};
use crate::units::{Epoch, Incarnation, Millis, NodeId, Offset, PartitionEpoch};

/// How long after a refusal another change of the in-sync replicas is proposed, in milliseconds.
const PROPOSE_AGAIN_MS: i64 = 500;

/// The controller's word on a partition that this node leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    pub epoch: Epoch,
    pub partition_epoch: PartitionEpoch,
    /// The other replicas.
    pub followers: Vec<NodeId>,
    /// Those of them that are in sync.
    pub in_sync: Vec<NodeId>,
    /// How long a follower may be behind and stay in sync, in milliseconds (`replica.lag.time.max.ms`).
    pub max_lag_ms: i64,
}

/// A change of the in-sync replicas that the controller is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrChange {
    pub epoch: Epoch,
    pub partition_epoch: PartitionEpoch,
    /// Followers that are to be in sync, besides the leader, and which start of each the leader has heard from (KIP-903); 0 where
    /// it was in sync before and has not been heard from.
    pub in_sync: Vec<(NodeId, Incarnation)>,
}

/// A follower as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    pub id: NodeId,
    /// It has everything below durably.
    pub end: Offset,
    pub in_sync: bool,
    /// Since when it has not had all that the leader had; `None`: it has everything.
    pub behind_since: Option<Millis>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    incarnation: Incarnation,
    end: Offset,
    /// Since when it has been behind, and the leader's end then: it has caught up when it reaches that.
    behind: Option<(Millis, Offset)>,
}

/// A leader's view.
#[derive(Debug)]
pub(super) struct Leading {
    partition_epoch: PartitionEpoch,
    followers: BTreeMap<NodeId, Progress>,
    in_sync: BTreeSet<NodeId>,
    proposed: Option<BTreeSet<NodeId>>,
    propose_after: Millis,
    /// The log end when it began to lead: a follower below may still hold what other leaders wrote there.
    start: Offset,
    max_lag_ms: i64,
}

impl Leading {
    pub(super) fn new(word: &Leadership, log_end: Offset, now: Millis) -> Leading {
        let mut leading = Leading {
            partition_epoch: word.partition_epoch,
            followers: BTreeMap::new(),
            in_sync: BTreeSet::new(),
            proposed: None,
            propose_after: Millis(i64::MIN),
            start: log_end,
            max_lag_ms: word.max_lag_ms,
        };
        leading.take(word, log_end, now);
        leading
    }

    /// Takes the controller's word; of an older one nothing.
    pub(super) fn update(&mut self, word: &Leadership, log_end: Offset, now: Millis) {
        if word.partition_epoch > self.partition_epoch {
            self.partition_epoch = word.partition_epoch;
            self.proposed = None;
            self.take(word, log_end, now);
        }
    }

    fn take(&mut self, word: &Leadership, log_end: Offset, now: Millis) {
        self.followers.retain(|id, _| word.followers.contains(id));
        for &id in &word.followers {
            let unknown = Progress { incarnation: Incarnation(0), end: Offset::ZERO, behind: Some((now, log_end)) };
            self.followers.entry(id).or_insert(unknown);
        }
        self.in_sync = word.in_sync.iter().copied().collect();
    }

    /// Replicas in sync, this one included.
    pub(super) fn in_sync_count(&self) -> usize {
        self.in_sync.len() + 1
    }

    /// What every replica has that is in sync or may be by now.
    pub(super) fn replicated(&self, log_end: Offset) -> Offset {
        let proposed = self.proposed.iter().flatten();
        let in_sync = match &self.proposed {
            Some(proposed) if flaws::has(Flaw::ShrinkBeforeCommit) => proposed,
            _ => &self.in_sync,
        };
        let ends = in_sync.iter().chain(proposed).map(|id| self.followers.get(id).map_or(Offset::ZERO, |f| f.end));
        ends.fold(log_end, Offset::min)
    }

    /// The leader's own log has grown.
    pub(super) fn grown(&mut self, log_end: Offset, now: Millis) {
        for follower in self.followers.values_mut().filter(|f| f.behind.is_none() && f.end < log_end) {
            follower.behind = Some((now, log_end));
        }
    }

    /// A follower has everything below `end`.
    pub(super) fn replicated_to(
        &mut self,
        (replica, incarnation): (NodeId, Incarnation),
        end: Offset,
        log_end: Offset,
        now: Millis,
    ) {
        let Some(follower) = self.followers.get_mut(&replica).filter(|f| incarnation >= f.incarnation) else { return };
        // What it reports beyond our end it has from another leader.
        let end = end.min(log_end);
        // Only a restart can have cost it anything that it had durably: a tail that rotted.
        follower.end = if incarnation > follower.incarnation { end } else { follower.end.max(end) };
        follower.incarnation = incarnation;
        if follower.behind.is_some_and(|(_, target)| follower.end >= target) {
            follower.behind = (follower.end < log_end).then_some((now, log_end));
        }
    }

    /// The change of the in-sync replicas that is due, if one is.
    fn due(&self, high_watermark: Offset, now: Millis) -> Option<BTreeSet<NodeId>> {
        if self.proposed.is_some() || now < self.propose_after {
            return None;
        }
        let wanted: BTreeSet<NodeId> = self
            .followers
            .iter()
            .filter(|(id, f)| {
                let lags = f.behind.is_some_and(|(since, _)| now.0.saturating_sub(since.0) > self.max_lag_ms);
                let joins = f.end >= high_watermark && f.end >= self.start;
                !lags && (self.in_sync.contains(id) || joins)
            })
            .map(|(&id, _)| id)
            .collect();
        (wanted != self.in_sync).then_some(wanted)
    }

    fn incarnation(&self, id: NodeId) -> Incarnation {
        self.followers.get(&id).map_or(Incarnation(0), |follower| follower.incarnation)
    }

    pub(super) fn refused(&mut self, at: PartitionEpoch, now: Millis) {
        if at == self.partition_epoch && self.proposed.take().is_some() {
            self.propose_after = now.after(PROPOSE_AGAIN_MS);
        }
    }

    pub(super) fn describe(&self) -> Vec<Follower> {
        let shown = |(&id, progress): (&NodeId, &Progress)| Follower {
            id,
            end: progress.end,
            in_sync: self.in_sync.contains(&id),
            behind_since: progress.behind.map(|(since, _)| since),
        };
        self.followers.iter().map(shown).collect()
    }

    /// The clock was set.
    pub(super) fn shift(&mut self, by: i64) {
        self.propose_after = Millis(self.propose_after.0.saturating_add(by));
        for (since, _) in self.followers.values_mut().filter_map(|f| f.behind.as_mut()) {
            since.0 = since.0.saturating_add(by);
        }
    }
}

impl<T> Partition<T> {
    /// Proposes other in-sync replicas when that is due.
    pub(super) fn propose_isr(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) {
        let (epoch, high_watermark) = (self.epoch, self.high_watermark);
        let Some(leading) = self.role.leading_mut() else { return };
        if let Some(wanted) = leading.due(high_watermark, now) {
            let in_sync = wanted.iter().map(|id| (*id, leading.incarnation(*id))).collect();
            effects.push(Effect::ProposeIsr(IsrChange { epoch, partition_epoch: leading.partition_epoch, in_sync }));
            leading.proposed = Some(wanted);
        }
    }
}
