//! Takes the changes of in-sync replicas that this node's partitions propose to the controller.
//!
//! A leader waits for the replicas that it has proposed as well as for those in sync, until it knows which it is. So a proposal
//! stays here until the metadata shows a later partition epoch, or the controller has refused it for good. If an earlier copy of it
//! may still be on its way by then, it could be decided after all: the partition epoch is raised first, which voids it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_disk::IsrProposal;
use forebay_log::cluster::controller::{AlterPartition, IsrMember};
use forebay_log::cluster::{Image, PartitionState, Refusal, Reply, Request};
use forebay_log::partition::IsrChange;
use forebay_log::{Incarnation, NodeId};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::Inner;
use crate::controller::AskError;

/// Proposals taken in at once.
const BATCH: usize = 1024;
/// How long one try looks for the controller.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon what is not decided is asked again.
const AGAIN: Duration = Duration::from_millis(300);

/// A proposal that is not decided yet.
struct Open {
    change: IsrChange,
    /// A copy of it may be on its way to a controller, and nobody has said what became of it.
    uncertain: bool,
    /// It was refused, but a copy of it may still be decided.
    voiding: bool,
}

type Proposals = BTreeMap<(String, u32), Open>;

pub(super) async fn run(inner: Arc<Inner>, mut proposals: mpsc::UnboundedReceiver<IsrProposal>) {
    let mut open = Proposals::new();
    let mut batch = Vec::new();
    loop {
        let received = if open.is_empty() {
            proposals.recv_many(&mut batch, BATCH).await
        } else {
            tokio::time::timeout(AGAIN, proposals.recv_many(&mut batch, BATCH)).await.unwrap_or(1)
        };
        if received == 0 {
            return;
        }
        for IsrProposal { topic, partition, change } in batch.drain(..) {
            open.insert((topic, partition), Open { change, uncertain: false, voiding: false });
        }
        let image = inner.metadata.borrow().image.clone();
        open.retain(|(topic, index), open| still_open(&inner, &image, topic, *index, open));
        ask(&inner, &image, &mut open).await;
    }
}

fn still_open(inner: &Inner, image: &Image, topic: &str, index: u32, open: &Open) -> bool {
    let state = image.topic_named(topic).and_then(|topic| topic.partition(index));
    state.is_some_and(|state| {
        state.leader == Some(inner.node)
            && state.leader_epoch == open.change.epoch
            && state.partition_epoch <= open.change.partition_epoch
    })
}

async fn ask(inner: &Inner, image: &Image, open: &mut Proposals) {
    let asked: Vec<((String, u32), AlterPartition)> =
        open.iter().filter_map(|(id, open)| Some((id.clone(), alter(inner, image, &id.0, id.1, open)?))).collect();
    if asked.is_empty() {
        return;
    }
    let partitions = asked.iter().map(|(_, alter)| alter.clone()).collect();
    let request = Request::AlterPartitions { from: inner.node, incarnation: inner.incarnation, partitions };
    let decided = match inner.ask(request, PATIENCE).await {
        Ok(Reply::Altered { partitions }) => partitions,
        Ok(_) => return,
        Err(error) => {
            debug!(%error, partitions = asked.len(), "in-sync replicas are not decided on yet");
            if matches!(error, AskError::Unavailable(_)) {
                open.values_mut().for_each(|open| open.uncertain = true);
            }
            return;
        }
    };
    for ((id, alter), decided) in asked.into_iter().zip(decided) {
        let Some(known) = open.get_mut(&id) else { continue };
        if known.change.partition_epoch != alter.partition_epoch {
            continue;
        }
        match outcome(known, decided) {
            Outcome::Decided(state) => {
                info!(topic = id.0, partition = id.1, in_sync = ?state.isr, "in-sync replicas");
                open.remove(&id);
            }
            Outcome::Refused => {
                refused(inner, &id, alter.partition_epoch).await;
                open.remove(&id);
            }
            Outcome::Void => known.voiding = true,
            Outcome::Open => {}
        }
    }
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

fn alter(inner: &Inner, image: &Image, topic: &str, index: u32, open: &Open) -> Option<AlterPartition> {
    let topic = image.topic_named(topic)?;
    let state = topic.partition(index)?;
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
        topic: topic.id,
        index,
        leader_epoch: open.change.epoch,
        partition_epoch: open.change.partition_epoch,
        isr,
        fence: open.voiding,
    })
}

async fn refused(inner: &Inner, (topic, index): &(String, u32), at: forebay_log::PartitionEpoch) {
    if let Some(topic) = inner.log.topic(topic)
        && let Some(partition) = topic.partition(*index)
    {
        // A log that shuts down needs it no more.
        let _ = partition.isr_refused(at).await;
    }
}
