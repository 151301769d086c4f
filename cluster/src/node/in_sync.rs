//! Takes the changes of in-sync replicas that this node's partitions propose to the controller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_disk::IsrProposal;
use forebay_log::cluster::controller::{AlterPartition, IsrMember};
use forebay_log::cluster::{Image, Reply, Request};
use forebay_log::{Incarnation, NodeId};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::Inner;
use crate::controller::AskError;

/// Proposals that go together.
const BATCH: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// How often in-sync replicas of what this node leads became fewer and more, since it was started.
#[derive(Debug, Default)]
pub struct IsrChanges {
    pub shrinks: AtomicU64,
    pub expands: AtomicU64,
}

pub(super) async fn run(inner: Arc<Inner>, mut proposals: mpsc::UnboundedReceiver<IsrProposal>) {
    let mut batch = Vec::new();
    while proposals.recv_many(&mut batch, BATCH).await > 0 {
        let image = inner.metadata.borrow().image.clone();
        let known = |proposal: IsrProposal| Some((alter(&inner, &image, &proposal)?, proposal));
        let wanted: Vec<_> = batch.drain(..).filter_map(known).collect();
        let partitions: Vec<AlterPartition> = wanted.iter().map(|(alter, _)| alter.clone()).collect();
        let (from, incarnation) = (inner.node, inner.incarnation);
        let asked = loop {
            let request = Request::AlterPartitions { from, incarnation, partitions: partitions.clone() };
            match inner.ask(request, PATIENCE).await {
                // It may have been decided: until that is known the high watermark waits for both sets.
                Err(AskError::Unavailable(why)) => debug!(why, "the in-sync replicas are not decided on yet"),
                asked => break asked,
            }
        };
        match asked {
            Ok(Reply::Altered { partitions: decided }) => {
                for ((_, proposal), decided) in wanted.iter().zip(decided) {
                    match decided {
                        Ok(state) if state.partition_epoch > proposal.change.partition_epoch => {
                            info!(topic = proposal.topic, partition = proposal.partition, in_sync = ?state.isr, "in-sync replicas");
                            count(&inner, before(&image, proposal), state.isr.len());
                        }
                        // Nothing has changed, or newer metadata is on its way.
                        Ok(_) => refused(&inner, proposal).await,
                        Err(error) => {
                            debug!(topic = proposal.topic, partition = proposal.partition, %error, "in-sync replicas stay");
                            refused(&inner, proposal).await;
                        }
                    }
                }
            }
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "in-sync replicas stay");
                for (_, proposal) in &wanted {
                    refused(&inner, proposal).await;
                }
            }
        }
    }
}

fn before(image: &Image, proposal: &IsrProposal) -> Option<usize> {
    let topic = image.topic_named(&proposal.topic)?;
    topic.partition(proposal.partition).map(|state| state.isr.len())
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

fn alter(inner: &Inner, image: &Image, proposal: &IsrProposal) -> Option<AlterPartition> {
    let topic = image.topic_named(&proposal.topic)?;
    let member = |id: NodeId, incarnation: Incarnation| {
        // Of one that was in sync before and has not been heard from, the metadata knows the process: another one is not in sync.
        let known = image.node(id).and_then(|node| node.incarnation()).unwrap_or(incarnation);
        IsrMember { id, incarnation: if incarnation == Incarnation(0) { known } else { incarnation } }
    };
    let followers = proposal.change.in_sync.iter().map(|&(id, incarnation)| member(id, incarnation));
    let isr = std::iter::once(IsrMember { id: inner.node, incarnation: inner.incarnation }).chain(followers).collect();
    Some(AlterPartition {
        topic: topic.id,
        index: proposal.partition,
        leader_epoch: proposal.change.epoch,
        partition_epoch: proposal.change.partition_epoch,
        isr,
    })
}

async fn refused(inner: &Inner, proposal: &IsrProposal) {
    if let Some(topic) = inner.log.topic(&proposal.topic)
        && let Some(partition) = topic.partition(proposal.partition)
    {
        // A log that shuts down needs it no more.
        let _ = partition.isr_refused(proposal.change.partition_epoch).await;
    }
}
