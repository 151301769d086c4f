//! Which partitions this node leads, for services that run where the leader is: asked before each step, ended with the term.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_cluster::{Log, Partition, Topic};
use forebay_log::Epoch;

/// The leader epoch in which this node leads a partition; `None`: it does not, as far as it knows.
pub(crate) fn led(log: &Log, partition: &Partition) -> Option<Epoch> {
    // Leader and epoch of one and the same word of the controller.
    let placement = partition.placement();
    (placement.leader == Some(log.node_id()) && partition.leads()).then_some(placement.leader_epoch)
}

/// The partitions of a topic that this node leads, and in which leader epoch.
pub(crate) fn of_topic(log: &Log, topic: &Topic) -> BTreeMap<u32, Epoch> {
    topic.partitions.iter().filter_map(|partition| Some((partition.index(), led(log, partition)?))).collect()
}

/// One leadership of this node over one partition.
#[derive(Clone)]
pub(crate) struct Term {
    log: Log,
    partition: Arc<Partition>,
    epoch: Epoch,
}

impl Term {
    /// The present one; `None`: this node does not lead.
    pub(crate) fn of(log: &Log, partition: &Arc<Partition>) -> Option<Term> {
        let epoch = led(log, partition)?;
        Some(Term { log: log.clone(), partition: partition.clone(), epoch })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it goes on, as far as this node knows.
    pub(crate) fn lasts(&self) -> bool {
        led(&self.log, &self.partition) == Some(self.epoch)
    }

    /// Returns when it has ended.
    pub(crate) async fn ended(&self) {
        let mut changed = self.log.topics_changed();
        while self.lasts() && changed.changed().await.is_ok() {}
    }
}
