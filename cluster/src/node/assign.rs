//! Makes this node's log what the cluster's metadata says: which partitions are here, who leads them, with which configs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_disk::{Log, LogError, Partition};
use forebay_log::cluster::{Image, PartitionState, Topic};
use forebay_log::partition::Leadership;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Incarnation, NodeId, PartitionEpoch};
use tokio::sync::watch;
use tracing::error;
use uuid::Uuid;

use crate::link::Reports;
use crate::metadata::Metadata;
use crate::replication::{Feeder, Fetchers, Replica, Replicas};
use crate::topic_config;

/// How soon what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A partition as it was assigned last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Assigned {
    leader: Option<NodeId>,
    leader_epoch: Epoch,
    partition_epoch: PartitionEpoch,
}

/// The task that does it.
pub(super) struct Assigner {
    pub(super) node: NodeId,
    incarnation: Incarnation,
    pub(super) log: Log,
    pub(super) replicas: Arc<Replicas>,
    pub(super) feeder: Arc<Feeder>,
    pub(super) fetchers: Fetchers,
    /// The version of the metadata that holds here.
    pub(super) applied: watch::Sender<u64>,
    /// `replica.lag.time.max.ms`
    max_lag_ms: i64,
    /// The cluster that what is here belongs to. Another one knows nothing of it, so that all of it would have to go.
    cluster: Option<Uuid>,
    assigned: BTreeMap<PartitionId, Assigned>,
    configs: BTreeMap<Uuid, BTreeMap<String, String>>,
    reports: Reports,
}

impl Assigner {
    pub(super) fn new(
        (node, incarnation): (NodeId, Incarnation),
        log: Log,
        replicas: Arc<Replicas>,
        feeder: Arc<Feeder>,
        fetchers: Fetchers,
        applied: watch::Sender<u64>,
        max_lag_ms: i64,
    ) -> Assigner {
        Assigner {
            node,
            incarnation,
            log,
            replicas,
            feeder,
            fetchers,
            applied,
            max_lag_ms,
            cluster: None,
            assigned: BTreeMap::new(),
            configs: BTreeMap::new(),
            reports: Reports::default(),
        }
    }

    /// The cluster that the node was in before, if it was in one.
    pub(super) fn of_cluster(self, cluster: Option<Uuid>) -> Assigner {
        Assigner { cluster, ..self }
    }

    /// Whether the metadata knows this start of the node: before, it may name roles of an earlier one, and this one was never told
    /// of leaders that came since.
    fn knows_me(&self, image: &Image) -> bool {
        image.node(self.node).and_then(|node| node.incarnation()) == Some(self.incarnation)
    }

    /// Follows the metadata until it ends.
    pub(super) async fn run(mut self, mut metadata: watch::Receiver<Metadata>) {
        loop {
            let Metadata { image, .. } = metadata.borrow_and_update().clone();
            let known = self.knows_me(&image);
            let whole = !known || self.assign(&image).await;
            if known && whole {
                self.applied.send_replace(image.version().0);
            }
            let changed = async { metadata.changed().await.is_ok() };
            let goes_on =
                if whole { changed.await } else { tokio::time::timeout(AGAIN, changed).await.unwrap_or(true) };
            if !goes_on {
                return;
            }
        }
    }

    /// Returns whether all of it could be done.
    async fn assign(&mut self, image: &Image) -> bool {
        let Some(cluster) = image.cluster() else { return false };
        let ours = *self.cluster.get_or_insert(cluster);
        if cluster != ours {
            let what = "the partitions on this node belong to another cluster than the one it has come to: nothing is changed here";
            if let Some(suppressed) = self.reports.admit(what) {
                error!(%ours, %cluster, suppressed, "{what}");
            }
            return false;
        }
        let mut whole = self.let_go(image).await;
        for topic in image.topics() {
            let done = self.topic(topic).await;
            whole &= matches!(done, Ok(true));
            if let Err(error) = done
                && let Some(suppressed) = self.reports.admit(&error.to_string())
            {
                error!(topic = topic.name, %error, suppressed, "this node cannot take its part of a topic; tried again");
            }
        }
        whole
    }

    /// Deletes what is not to be here any more.
    async fn let_go(&mut self, image: &Image) -> bool {
        let mut whole = true;
        for topic in self.log.topics().values().cloned() {
            let stays = |partition: &Arc<Partition>| {
                image.partition(topic.id, partition.index()).is_some_and(|state| state.replicas.contains(&self.node))
            };
            let gone: Vec<u32> = topic.partitions.iter().filter(|p| !stays(p)).map(|p| p.index()).collect();
            if gone.is_empty() {
                continue;
            }
            let ids = gone.iter().map(|&index| PartitionId { topic: topic.id, index });
            for id in ids.clone() {
                self.fetchers.unfollow(id, None).await;
                self.assigned.remove(&id);
            }
            self.replicas.change(ids.map(|id| (id, None)));
            let (log, name, id) = (self.log.clone(), topic.name.clone(), topic.id);
            let done = tokio::task::spawn_blocking(move || log.unhost(&name, id, &gone)).await;
            if let Ok(Err(error)) = done {
                error!(topic = topic.name, %error, "partitions that are not to be here any more are not removed; tried again");
                whole = false;
            }
        }
        self.configs.retain(|id, _| image.topic(*id).is_some());
        whole
    }

    /// Returns whether every partition has taken its role.
    async fn topic(&mut self, topic: &Topic) -> Result<bool, LogError> {
        let mine: Vec<(u32, &PartitionState)> =
            topic.partitions().filter(|(_, state)| state.replicas.contains(&self.node)).collect();
        let id = |index| PartitionId { topic: topic.id, index };
        let new: Vec<u32> =
            mine.iter().map(|(index, _)| *index).filter(|&index| self.replicas.get(id(index)).is_none()).collect();
        if !new.is_empty() {
            self.host(topic, new).await?;
        }
        if !mine.is_empty() && self.configs.get(&topic.id) != Some(&topic.config) {
            self.log.alter_topic(&topic.name, topic_config::from_map(&topic.name, &topic.config)).await?;
            self.configs.insert(topic.id, topic.config.clone());
        }
        let mut whole = true;
        for (index, state) in mine {
            whole &= self.partition(id(index), state).await;
        }
        Ok(whole)
    }

    async fn host(&self, topic: &Topic, new: Vec<u32>) -> Result<(), LogError> {
        let (log, name, id, config) =
            (self.log.clone(), topic.name.clone(), topic.id, topic_config::from_map(&topic.name, &topic.config));
        let indexes = new.clone();
        let hosted = tokio::task::spawn_blocking(move || log.host(&name, id, &config, &indexes)).await;
        let hosted = hosted.unwrap_or(Err(LogError::Closed))?;
        let replica = |index: u32| {
            let partition = Arc::clone(hosted.partition(index)?);
            Some((
                PartitionId { topic: id, index },
                Replica { partition, replicas: Arc::default(), in_sync: Arc::default() },
            ))
        };
        for (id, replica) in new.into_iter().filter_map(replica) {
            self.feeder.watch(id, &replica);
            self.replicas.change([(id, Some(replica))]);
        }
        Ok(())
    }

    async fn partition(&mut self, id: PartitionId, state: &PartitionState) -> bool {
        let PartitionState { leader, leader_epoch, partition_epoch, .. } = *state;
        let now = Assigned { leader, leader_epoch, partition_epoch };
        let before = self.assigned.get(&id).copied();
        if before == Some(now) {
            return true;
        }
        let Some(Replica { partition, .. }) = self.replicas.get(id) else { return false };
        let others = |ids: &[NodeId]| ids.iter().copied().filter(|id| *id != self.node).collect();
        let done = if leader == Some(self.node) {
            self.fetchers.unfollow(id, None).await;
            let (followers, in_sync) = (others(&state.replicas), others(&state.isr));
            let max_lag_ms = self.max_lag_ms;
            lead(&partition, Leadership { epoch: leader_epoch, partition_epoch, followers, in_sync, max_lag_ms }).await
        } else if before.is_some_and(|before| (before.leader, before.leader_epoch) == (leader, leader_epoch)) {
            Ok(())
        } else {
            self.fetchers.unfollow(id, None).await;
            let settled = partition.follow(leader_epoch).await;
            if let (Ok(()), Some(leader)) = (&settled, leader) {
                self.fetchers.follow(id, leader, leader_epoch).await;
            }
            settled
        };
        if done.is_ok() {
            let (replicas, in_sync) = (state.replicas.clone().into(), state.isr.clone().into());
            self.replicas.change([(id, Some(Replica { partition: Arc::clone(&partition), replicas, in_sync }))]);
        }
        self.feeder.moved(id);
        if let Err(error) = &done {
            // It is tried again with the next change, or in a while.
            if let Some(suppressed) = self.reports.admit(&error.to_string()) {
                let topic = partition.topic();
                error!(topic, partition = id.index, %error, suppressed, "a partition does not take its role");
            }
        } else {
            self.assigned.insert(id, now);
        }
        done.is_ok()
    }
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
