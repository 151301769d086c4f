//! Roles of partitions, as the cluster's metadata gives them: many are taken at once, as when a node dies that led a thousand.

use std::sync::Arc;

use forebay_disk::Partition;
use forebay_log::cluster::{Image, PartitionState};
use forebay_log::partition::Leadership;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, NodeId, PartitionEpoch};
use futures_util::stream::{self, StreamExt};

use super::assign::Assigner;
use super::limits::ROLES_AT_ONCE;
use crate::replication::Replica;

/// A partition as it was assigned last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assigned {
    leader: Option<NodeId>,
    leader_epoch: Epoch,
    partition_epoch: PartitionEpoch,
}

impl Assigned {
    fn of(state: &PartitionState) -> Assigned {
        let PartitionState { leader, leader_epoch, partition_epoch, .. } = *state;
        Assigned { leader, leader_epoch, partition_epoch }
    }

    fn same_leadership(&self, other: &Assigned) -> bool {
        (self.leader, self.leader_epoch) == (other.leader, other.leader_epoch)
    }
}

/// How far the roles that the metadata gives are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All.
    Whole,
    /// What can be: the rest cannot be opened here. It is tried again, and nobody waits for it.
    Part,
    /// Not all, for a reason that passes.
    NotYet,
}

impl Taken {
    pub(super) fn and(self, other: Taken) -> Taken {
        match (self, other) {
            (Taken::NotYet, _) | (_, Taken::NotYet) => Taken::NotYet,
            (Taken::Part, _) | (_, Taken::Part) => Taken::Part,
            (Taken::Whole, Taken::Whole) => Taken::Whole,
        }
    }
}

/// A role that a replica is to take.
struct Change {
    id: PartitionId,
    state: PartitionState,
    partition: Arc<Partition>,
    /// Under a leader of another name or epoch than before.
    anew: bool,
}

impl Assigner {
    /// Has the replicas on this node take their roles.
    pub(super) async fn take_roles(&mut self, image: &Image) -> Taken {
        let mut changes = self.changes(image);
        for change in &changes {
            if change.anew || change.state.leader == Some(self.node) {
                self.fetchers.unfollow(change.id, None).await;
            }
        }
        let mut taken = Taken::Whole;
        while !changes.is_empty() {
            let some: Vec<Change> = changes.drain(..changes.len().min(ROLES_AT_ONCE)).collect();
            taken = taken.and(self.take_some(some).await);
        }
        taken
    }

    fn changes(&self, image: &Image) -> Vec<Change> {
        let mut changes = Vec::new();
        for topic in image.topics() {
            for (index, state) in topic.partitions().filter(|(_, state)| state.replicas.contains(&self.node)) {
                let id = PartitionId { topic: topic.id, index };
                let before = self.assigned.get(&id);
                if before == Some(&Assigned::of(state)) {
                    continue;
                }
                let Some(Replica { partition, .. }) = self.replicas.get(id) else { continue };
                let anew = !before.is_some_and(|before| before.same_leadership(&Assigned::of(state)));
                changes.push(Change { id, state: state.clone(), partition, anew });
            }
        }
        changes
    }

    async fn take_some(&mut self, changes: Vec<Change>) -> Taken {
        let (node, max_lag_ms) = (self.node, self.max_lag_ms);
        let roles = changes.into_iter().map(|change| take(node, max_lag_ms, change));
        let roles: Vec<_> = stream::iter(roles).buffered(ROLES_AT_ONCE).collect().await;
        let settled = roles.iter().filter(|(_, done)| done.is_ok()).map(|(change, _)| {
            let (replicas, in_sync) = (change.state.replicas.clone().into(), change.state.isr.clone().into());
            (change.id, Some(Replica { partition: Arc::clone(&change.partition), replicas, in_sync }))
        });
        self.replicas.change(settled);
        let mut taken = Taken::Whole;
        for (Change { id, state, partition, anew }, done) in roles {
            self.feeder.moved(id);
            match done {
                Ok(()) => {
                    if let Some(leader) = state.leader.filter(|leader| anew && *leader != node) {
                        self.fetchers.follow(id, leader, state.leader_epoch).await;
                    }
                    self.assigned.insert(id, Assigned::of(&state));
                }
                Err(error) => {
                    taken = taken.and(if partition.unopened().is_some() { Taken::Part } else { Taken::NotYet });
                    self.tell(&partition, &error);
                }
            }
        }
        taken
    }

    fn tell(&self, partition: &Partition, error: &AppendError) {
        let (topic, index) = (partition.topic(), partition.index());
        let error = partition.unopened().unwrap_or_else(|| error.to_string());
        if let Some(suppressed) = self.reports.admit(&format!("{topic}-{index}: {error}")) {
            tracing::error!(
                topic,
                partition = index,
                error,
                suppressed,
                "a partition does not take its role; tried again"
            );
        }
    }
}

async fn take(node: NodeId, max_lag_ms: i64, change: Change) -> (Change, Result<(), AppendError>) {
    let PartitionState { leader, leader_epoch, partition_epoch, replicas, isr, .. } = &change.state;
    let done = if *leader == Some(node) {
        let others = |ids: &[NodeId]| ids.iter().copied().filter(|id| *id != node).collect();
        let (followers, in_sync) = (others(replicas), others(isr));
        let (epoch, partition_epoch) = (*leader_epoch, *partition_epoch);
        let word = Leadership { epoch, partition_epoch, followers, in_sync, max_lag_ms };
        lead(&change.partition, word).await
    } else if change.anew {
        change.partition.follow(*leader_epoch).await
    } else {
        Ok(())
    };
    (change, done)
}

/// Has the partition lead, and makes sure that it does: one that is not open hears nothing.
async fn lead(partition: &Partition, word: Leadership) -> Result<(), AppendError> {
    let epoch = word.epoch;
    partition.lead(word).await?;
    partition.followers().await?;
    if partition.leads() && partition.leader_epoch() == epoch {
        Ok(())
    } else {
        Err(AppendError::Offline(partition.unopened().unwrap_or_else(|| "it knows of a later leader".to_owned())))
    }
}
