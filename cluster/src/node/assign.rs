//! Makes this node's log what the cluster's metadata says: which partitions are here, who leads them, with which configs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_disk::{Log, LogError, Partition};
use forebay_log::cluster::{Image, Topic};
use forebay_log::replication::PartitionId;
use forebay_log::{Incarnation, NodeId};
use tokio::sync::watch;
use tracing::error;
use uuid::Uuid;

use super::roles::{Assigned, Taken};
use crate::link::Reports;
use crate::metadata::Metadata;
use crate::replication::{Feeder, Fetchers, Replica, Replicas};
use crate::topic_config;

/// How soon what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

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
    pub(super) max_lag_ms: i64,
    /// The cluster that what is here belongs to. Another one knows nothing of it, so that all of it would have to go.
    cluster: Option<Uuid>,
    pub(super) assigned: BTreeMap<PartitionId, Assigned>,
    configs: BTreeMap<Uuid, BTreeMap<String, String>>,
    pub(super) reports: Reports,
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
            let taken = if known { self.assign(&image).await } else { Taken::Whole };
            if known && taken != Taken::NotYet {
                self.applied.send_replace(image.version().0);
            }
            let changed = async { metadata.changed().await.is_ok() };
            let goes_on = match taken {
                Taken::Whole => changed.await,
                Taken::Part | Taken::NotYet => tokio::time::timeout(AGAIN, changed).await.unwrap_or(true),
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn assign(&mut self, image: &Image) -> Taken {
        let Some(cluster) = image.cluster() else { return Taken::NotYet };
        let ours = *self.cluster.get_or_insert(cluster);
        if cluster != ours {
            let what = "the partitions on this node belong to another cluster than the one it has come to: nothing is changed here";
            if let Some(suppressed) = self.reports.admit(what) {
                error!(%ours, %cluster, suppressed, "{what}");
            }
            return Taken::NotYet;
        }
        let mut taken = if self.let_go(image).await { Taken::Whole } else { Taken::Part };
        for topic in image.topics() {
            if let Err(error) = self.topic(topic).await {
                // Its partitions are led by others, or by nobody: those of other topics do not wait.
                taken = Taken::Part;
                if let Some(suppressed) = self.reports.admit(&format!("{}: {error}", topic.name)) {
                    let topic = &topic.name;
                    error!(topic, %error, suppressed, "this node cannot take its part of a topic; tried again");
                }
            }
        }
        taken.and(self.take_roles(image).await)
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

    /// Makes what is missing of a topic here.
    async fn topic(&mut self, topic: &Topic) -> Result<(), LogError> {
        let mine = topic.partitions().filter(|(_, state)| state.replicas.contains(&self.node));
        let mine: Vec<u32> = mine.map(|(index, _)| index).collect();
        let here = |index| self.replicas.get(PartitionId { topic: topic.id, index }).is_some();
        let new: Vec<u32> = mine.iter().copied().filter(|index| !here(*index)).collect();
        if !new.is_empty() {
            self.host(topic, new).await?;
        }
        if !mine.is_empty() && self.configs.get(&topic.id) != Some(&topic.config) {
            self.log.alter_topic(&topic.name, topic_config::from_map(&topic.name, &topic.config)).await?;
            self.configs.insert(topic.id, topic.config.clone());
        }
        Ok(())
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
        let made: Vec<(PartitionId, Replica)> = new.into_iter().filter_map(replica).collect();
        made.iter().for_each(|(id, replica)| self.feeder.watch(*id, replica));
        self.replicas.change(made.into_iter().map(|(id, replica)| (id, Some(replica))));
        Ok(())
    }
}
