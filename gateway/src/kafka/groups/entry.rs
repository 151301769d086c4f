//! One group in the coordinator's hands: of which protocol it is, and what metrics show of it.

use forebay_log::Millis;
use forebay_log::group::Name;
use forebay_log::group::classic::{ClassicGroup, Phase};
use forebay_log::group::consumer::{self, ConsumerGroup};

use super::{BeatWaiter, Waiter};
use crate::metrics::KafkaMetrics;

pub(super) const CLASSIC: &str = "classic";
pub(super) const CONSUMER: &str = "consumer";

/// A group of either protocol.
pub(super) enum Group {
    Classic(ClassicGroup<Waiter>),
    Consumer(ConsumerGroup<BeatWaiter>),
}

pub(super) struct Entry {
    pub(super) group: Group,
    /// Which entry it is of all that there ever were: another one may come to have its name.
    pub(super) number: u64,
    /// It has taken the place of another group, or of none; what may be stored of one before is to be removed with its first
    /// record.
    pub(super) fresh: bool,
    pub(super) bytes: usize,
    pub(super) deadline: Option<Millis>,
    /// What was looked at last: see [`Entry::has_changed`].
    seen: Option<(u64, Option<Millis>)>,
    shown: Option<(&'static str, &'static str)>,
    round: i32,
}

impl Entry {
    pub(super) fn new(group: Group, number: u64, fresh: bool) -> Entry {
        let round = if fresh { 0 } else { group.round() };
        Entry { group, number, fresh, bytes: 0, deadline: None, seen: None, shown: None, round }
    }

    /// Whether there is anything to note since the last call. A heartbeat that changes nothing must cost nothing.
    pub(super) fn has_changed(&mut self) -> bool {
        let Group::Consumer(group) = &self.group else { return true };
        let now = Some((group.changes(), group.next_deadline()));
        std::mem::replace(&mut self.seen, now) != now
    }

    /// Counts the group by its state, and its rebalances.
    pub(super) fn show(&mut self, metrics: &KafkaMetrics) {
        let is = Some((self.group.kind(), self.group.state()));
        if self.shown != is {
            self.hide(metrics);
            self.shown = is;
            metrics.groups(self.group.kind(), self.group.state()).inc();
        }
        let round = self.group.round();
        if self.round < round {
            metrics.rebalanced(self.group.kind(), (round - self.round) as u64);
        }
        self.round = round;
    }

    /// The group is no more.
    pub(super) fn hide(&mut self, metrics: &KafkaMetrics) {
        if let Some((kind, state)) = self.shown.take() {
            metrics.groups(kind, state).dec();
        }
    }
}

impl Group {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Group::Classic(_) => CLASSIC,
            Group::Consumer(_) => CONSUMER,
        }
    }

    /// Kafka's name of its state.
    pub(super) fn state(&self) -> &'static str {
        match self {
            Group::Classic(group) => classic_state(group.phase()),
            Group::Consumer(group) => match group.phase() {
                consumer::Phase::Empty => "Empty",
                consumer::Phase::Assigning => "Assigning",
                consumer::Phase::Reconciling => "Reconciling",
                consumer::Phase::Stable => "Stable",
            },
        }
    }

    /// What kind of client the members are; a group of the consumer protocol has consumers only.
    pub(super) fn protocol_type(&self) -> Name {
        match self {
            Group::Classic(group) => group.protocol_type().cloned().unwrap_or_default(),
            Group::Consumer(_) => CONSUMER.into(),
        }
    }

    fn round(&self) -> i32 {
        match self {
            Group::Classic(group) => group.generation(),
            Group::Consumer(group) => group.target_epoch(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Group::Classic(group) => group.bytes(),
            Group::Consumer(group) => group.bytes(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        match self {
            Group::Classic(group) => group.next_deadline(),
            Group::Consumer(group) => group.next_deadline(),
        }
    }

    /// Nobody is in it, nor about to be.
    pub(super) fn is_unused(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_unused(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    /// It is as if it had never been.
    pub(super) fn never_was(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_unused() && group.generation() == 0,
            Group::Consumer(group) => group.is_empty() && group.epoch() == 0 && group.is_settled(),
        }
    }

    /// What is stored of it is all that there is to be, as far as another kind of group could trip over it.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Group::Classic(_) => true,
            Group::Consumer(group) => group.is_settled(),
        }
    }
}

pub(super) fn classic_state(phase: Phase) -> &'static str {
    match phase {
        Phase::Empty => "Empty",
        Phase::PreparingRebalance => "PreparingRebalance",
        Phase::CompletingRebalance => "CompletingRebalance",
        Phase::Stable => "Stable",
    }
}
