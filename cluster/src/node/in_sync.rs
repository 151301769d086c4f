//! Takes the changes of in-sync replicas that this node's partitions propose to the controller.
//!
//! A leader waits for the replicas that it has proposed as well as for those in sync, until it knows which it is. So a proposal
//! stays here until the metadata shows a later partition epoch, or the controller has refused it for good. If an earlier copy of it
//! may still be on its way by then, it could be decided after all: the partition epoch is raised first, which voids it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_disk::IsrProposal;
use forebay_log::cluster::controller::{AlterPartition, IsrMember};
use forebay_log::cluster::{Image, PartitionState, Refusal, Reply, Request};
use forebay_log::partition::IsrChange;
use forebay_log::replication::PartitionId;
use forebay_log::{Incarnation, NodeId, PartitionEpoch};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Inner;
use crate::controller::AskError;
use crate::link::Reports;

/// Proposals taken in at once.
const BATCH: usize = 1024;
/// How long one try looks for the controller.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon what is not decided is asked again.
const AGAIN: Duration = Duration::from_millis(300);
/// After how long it is told that a proposal is not decided: the high watermark waits for it.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// A proposal that is not decided yet.
struct Open {
    change: IsrChange,
    since: Instant,
    /// A copy of it may be on its way to a controller, and nobody has said what became of it.
    uncertain: bool,
    /// It was refused, but a copy of it may still be decided.
    voiding: bool,
}

/// By the topic's id: one that is made again under its name begins at the same epochs.
type Proposals = BTreeMap<PartitionId, Open>;

/// How often in-sync replicas of what this node leads became fewer and more, since it was started.
#[derive(Debug, Default)]
pub struct IsrChanges {
    pub shrinks: AtomicU64,
    pub expands: AtomicU64,
    /// Changes that the controller has not decided on yet: until then the high watermarks of their partitions wait.
    pub open: AtomicU64,
}

pub(super) async fn run(inner: Arc<Inner>, mut proposals: mpsc::UnboundedReceiver<IsrProposal>) {
    let mut open = Proposals::new();
    let mut batch = Vec::new();
    let reports = Reports::default();
    loop {
        let received = if open.is_empty() {
            proposals.recv_many(&mut batch, BATCH).await
        } else {
            tokio::time::timeout(AGAIN, proposals.recv_many(&mut batch, BATCH)).await.unwrap_or(1)
        };
        if received == 0 {
            return;
        }
        for IsrProposal { partition, change } in batch.drain(..) {
            open.insert(partition, Open { change, since: Instant::now(), uncertain: false, voiding: false });
        }
        let image = inner.metadata.borrow().image.clone();
        open.retain(|id, open| still_open(inner.node, &image, *id, &open.change));
        let why = ask(&inner, &image, &mut open).await;
        inner.isr_changes.open.store(open.len() as u64, Ordering::Relaxed);
        let late = open.values().filter(|open| open.since.elapsed() >= TELL_AFTER).count();
        if late > 0
            && let Some(suppressed) = reports.admit("late")
        {
            let why = why.as_deref().unwrap_or("the metadata here is older");
            warn!(
                partitions = late,
                why, suppressed, "in-sync replicas are not decided on: what was written waits for it"
            );
        }
    }
}

fn still_open(node: NodeId, image: &Image, PartitionId { topic, index }: PartitionId, change: &IsrChange) -> bool {
    image.partition(topic, index).is_some_and(|state| {
        state.leader == Some(node)
            && state.leader_epoch == change.epoch
            && state.partition_epoch <= change.partition_epoch
    })
}

/// Returns why some are not decided, if that is known.
async fn ask(inner: &Inner, image: &Image, open: &mut Proposals) -> Option<String> {
    let asked: Vec<(PartitionId, AlterPartition)> =
        open.iter().filter_map(|(id, open)| Some((*id, alter(inner, image, *id, open)?))).collect();
    if asked.is_empty() {
        return None;
    }
    let partitions = asked.iter().map(|(_, alter)| alter.clone()).collect();
    let request = Request::AlterPartitions { from: inner.node, incarnation: inner.incarnation, partitions };
    let decided = match inner.ask(request, PATIENCE).await {
        Ok(Reply::Altered { partitions }) => partitions,
        Ok(_) => return None,
        Err(error) => {
            debug!(%error, partitions = asked.len(), "in-sync replicas are not decided on yet");
            if matches!(error, AskError::Unavailable(_)) {
                open.values_mut().for_each(|open| open.uncertain = true);
            }
            return Some(error.to_string());
        }
    };
    let mut why = None;
    for ((id, alter), decided) in asked.into_iter().zip(decided) {
        let Some(known) = open.get_mut(&id) else { continue };
        if known.change.partition_epoch != alter.partition_epoch {
            continue;
        }
        if let Err(refusal) = &decided {
            why = Some(refusal.to_string());
        }
        match outcome(known, decided) {
            Outcome::Decided(state) => {
                let topic = image.topic(id.topic).map(|topic| topic.name.as_str());
                info!(topic, partition = id.index, in_sync = ?state.isr, "in-sync replicas");
                let before = image.partition(id.topic, id.index).map(|state| state.isr.len());
                count(inner, before, state.isr.len());
                open.remove(&id);
            }
            Outcome::Refused => {
                refused(inner, id, alter.partition_epoch).await;
                open.remove(&id);
            }
            Outcome::Void => known.voiding = true,
            Outcome::Open => {}
        }
    }
    why
}

fn count(inner: &Inner, before: Option<usize>, now: usize) {
    let Some(before) = before else { return };
    let counter = match now.cmp(&before) {
        std::cmp::Ordering::Less => &inner.isr_changes.shrinks,
        std::cmp::Ordering::Greater => &inner.isr_changes.expands,
        std::cmp::Ordering::Equal => return,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

enum Outcome {
    /// The metadata will show it.
    Decided(PartitionState),
    /// No copy of it can be decided any more.
    Refused,
    /// It is refused, but a copy of it may be on its way.
    Void,
    /// Not known yet.
    Open,
}

fn outcome(open: &Open, decided: Result<PartitionState, Refusal>) -> Outcome {
    match decided {
        Ok(state) if state.partition_epoch > open.change.partition_epoch => Outcome::Decided(state),
        Ok(_) | Err(Refusal::IneligibleReplica { .. } | Refusal::InvalidRequest { .. }) => {
            if open.uncertain {
                Outcome::Void
            } else {
                Outcome::Refused
            }
        }
        // Newer metadata is on its way, and tells.
        Err(_) => Outcome::Open,
    }
}

fn alter(inner: &Inner, image: &Image, id: PartitionId, open: &Open) -> Option<AlterPartition> {
    let PartitionId { topic, index } = id;
    let state = image.partition(topic, index)?;
    let member = |id: NodeId, incarnation: Incarnation| {
        // Of one that was in sync before and has not been heard from, the metadata knows the process: another one is not in sync.
        let known = image.node(id).and_then(|node| node.incarnation()).unwrap_or(incarnation);
        IsrMember { id, incarnation: if incarnation == Incarnation(0) { known } else { incarnation } }
    };
    let followers: Vec<(NodeId, Incarnation)> = if open.voiding {
        state.isr.iter().filter(|id| **id != inner.node).map(|id| (*id, Incarnation(0))).collect()
    } else {
        open.change.in_sync.clone()
    };
    let me = IsrMember { id: inner.node, incarnation: inner.incarnation };
    let isr =
        std::iter::once(me).chain(followers.into_iter().map(|(id, incarnation)| member(id, incarnation))).collect();
    Some(AlterPartition {
        topic,
        index,
        leader_epoch: open.change.epoch,
        partition_epoch: open.change.partition_epoch,
        isr,
        fence: open.voiding,
    })
}

async fn refused(inner: &Inner, id: PartitionId, at: PartitionEpoch) {
    if let Some(replica) = inner.replicas.get(id) {
        // A log that shuts down needs it no more.
        let _ = replica.partition.isr_refused(at).await;
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::cluster::Record;
    use forebay_log::{Epoch, Level};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_proposal_is_not_taken_for_one_of_a_topic_made_again_under_its_name() {
        let (node, topic) = (NodeId(1), |id| PartitionId { topic: Uuid::from_u128(id), index: 0 });
        let mut image = Image::default();
        image.apply(&Record::ClusterCreated { id: Uuid::from_u128(9), level: Level(1), nodes: vec![node] });
        let make = |image: &mut Image, id: PartitionId| {
            let (replicas, isr) = (vec![node, NodeId(2)], vec![node]);
            let state = PartitionState { replicas, isr, leader: Some(node), ..PartitionState::default() };
            image.apply(&Record::TopicCreated { id: id.topic, name: "t".to_owned(), config: BTreeMap::new() });
            image.apply(&Record::Partition { topic: id.topic, index: 0, state });
        };
        let change = IsrChange { epoch: Epoch(0), partition_epoch: PartitionEpoch(0), in_sync: Vec::new() };
        make(&mut image, topic(1));
        assert!(still_open(node, &image, topic(1), &change));
        image.apply(&Record::TopicDeleted { id: topic(1).topic });
        make(&mut image, topic(2));
        assert!(!still_open(node, &image, topic(1), &change));
        assert!(still_open(node, &image, topic(2), &change));
    }
}
