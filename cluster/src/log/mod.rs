//! The log as doors and services see it: topics and partitions, on whichever node they lie.

mod alone;
mod appends;
mod authority;
mod chain;
mod claimed;
mod clustered;
mod partition;
mod placement;
mod reads;
#[cfg(test)]
mod tests;
mod ticket;
mod topic;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_disk::{Files, LogError, LogOptions, LogStats, NewTopic};
use forebay_log::cluster::controller::Assignment;
use forebay_log::{NodeId, TopicConfig};
use tokio::sync::watch;

pub use chain::Chain;
pub use partition::Partition;
pub use placement::{Node, Placement};
pub use ticket::Ticket;
pub use topic::{Topic, Topics};

use alone::Alone;
use authority::Authority;
use clustered::Clustered;

use crate::forward::Forwarder;
use crate::node::Cluster;

/// The log of the cluster, seen from one of its nodes. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    /// What lies on this node.
    local: forebay_disk::Log,
    /// Decides on topics and on where they lie.
    authority: Authority,
    /// The way to leaders on other nodes.
    forwarder: Option<Arc<Forwarder>>,
    topics: ArcSwap<Topics>,
    changed: watch::Sender<u64>,
    /// The one that takes over what has changed holds this.
    refreshing: Mutex<()>,
}

impl Log {
    /// Opens `files` (the data directory) as a node of its own, number 1. Blocking.
    ///
    /// # Errors
    /// As [`forebay_disk::Log::open`].
    pub fn open(files: Arc<dyn Files>, options: LogOptions) -> Result<Log, LogError> {
        Log::open_as(1, files, options)
    }

    /// As [`Log::open`], for the node of this number.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_as(node_id: u32, files: Arc<dyn Files>, options: LogOptions) -> Result<Log, LogError> {
        let local = forebay_disk::Log::open_as(node_id, files, options)?;
        Ok(Log::alone(NodeId(i32::try_from(node_id).unwrap_or(i32::MAX)), local))
    }

    /// The log of a node without a cluster: its topics are those of `local`, whoever changes them, and it leads them all.
    pub fn alone(here: NodeId, local: forebay_disk::Log) -> Log {
        let authority = Authority::Alone(Alone::new(here, local.clone()));
        Log::with(local, authority, None)
    }

    /// The log of a cluster, as one of its nodes sees it. `local` is what lies on this node.
    pub fn of_cluster(local: forebay_disk::Log, cluster: Cluster, replication_factor: u16) -> Log {
        let forwarder = cluster.forwarder();
        let (mut metadata, mut applied) = (cluster.metadata(), cluster.applied());
        let authority = Authority::Cluster(Clustered::new(local.clone(), cluster, replication_factor));
        let log = Log::with(local, authority, Some(forwarder));
        let follower = Arc::downgrade(&log.inner);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = metadata.changed() => if changed.is_err() { return },
                    changed = applied.changed() => if changed.is_err() { return },
                }
                let Some(inner) = follower.upgrade() else { return };
                inner.refresh();
            }
        });
        log
    }

    fn with(local: forebay_disk::Log, authority: Authority, forwarder: Option<Arc<Forwarder>>) -> Log {
        let (changed, refreshing) = (watch::channel(0).0, Mutex::new(()));
        let inner = Arc::new(Inner { local, authority, forwarder, topics: ArcSwap::default(), changed, refreshing });
        let follower = Arc::downgrade(&inner);
        inner.local.on_topics_changed(move || {
            if let Some(inner) = follower.upgrade() {
                inner.refresh();
            }
        });
        inner.refresh();
        Log { inner }
    }

    /// The identity of this cluster, made at its first start.
    pub fn cluster_id(&self) -> String {
        let of_cluster = self.inner.authority.cluster_id();
        of_cluster.map_or_else(|| self.inner.local.cluster_id(), forebay_disk::kafka_id)
    }

    /// The cluster that this node is part of; none of a node without one.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.inner.authority.cluster()
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.authority.here()
    }

    /// The nodes that are up.
    pub fn nodes(&self) -> Arc<Vec<Node>> {
        self.inner.authority.nodes()
    }

    /// The node that decides on the cluster's metadata; none while there is none that could.
    pub fn controller(&self) -> Option<NodeId> {
        self.inner.authority.controller()
    }

    /// Tells all nodes where Kafka clients reach this one.
    pub fn advertise(&self, host: String, port: u16) {
        self.inner.authority.advertise(host, port);
    }

    /// Makes a topic; it is durable on return.
    ///
    /// # Errors
    /// A bad name or count, a topic of that name, a disk that fails.
    pub async fn create_topic(&self, name: &str, partitions: u32, config: TopicConfig) -> Result<Arc<Topic>, LogError> {
        let made = self.create_topics(vec![NewTopic { name: name.to_owned(), partitions, config }]).await?;
        made.into_iter().next().ok_or(LogError::Closed)
    }

    /// Makes topics; they are durable on return, and come back in the order of their names. On a node alone all or none are made; in
    /// a cluster the controller decides on each, and after an error some may be there.
    ///
    /// # Errors
    /// As `create_topic`; one that was deleted again in the meantime is unknown.
    pub async fn create_topics(&self, wanted: Vec<NewTopic>) -> Result<Vec<Arc<Topic>>, LogError> {
        let mut names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        self.inner.authority.create_topics(wanted).await?;
        let made = names.into_iter().map(|name| self.topic(&name).ok_or(LogError::UnknownTopic(name)));
        made.collect()
    }

    /// Makes a topic whose replicas go where `replicas` says, durable on return, or only checks that it could be made. Returns
    /// the replicas of each partition, the preferred leader first.
    ///
    /// # Errors
    /// As `create_topic`; fewer nodes than replicas, replicas that are not possible.
    pub async fn place_topic(
        &self,
        name: &str,
        replicas: Assignment,
        config: &TopicConfig,
        validate_only: bool,
    ) -> Result<Vec<Vec<NodeId>>, LogError> {
        self.inner.authority.place_topic(name.to_owned(), replicas, config, validate_only).await
    }

    /// Replicas of a topic that nobody has said a number for.
    pub fn default_replication_factor(&self) -> u16 {
        self.inner.authority.default_replication_factor()
    }

    /// Gives a topic more partitions, `count` in all; they are durable on return.
    ///
    /// # Errors
    /// No such topic, a count that is not more than it has or too large, a disk that fails.
    pub async fn add_partitions(&self, name: &str, count: u32) -> Result<(), LogError> {
        self.inner.authority.add_partitions(name, count, None, false).await
    }

    /// [`Log::add_partitions`] with the replicas of each new partition, or only a check that it could be done.
    ///
    /// # Errors
    /// As `add_partitions`; replicas that are not possible.
    pub async fn place_partitions(
        &self,
        name: &str,
        count: u32,
        replicas: Option<Vec<Vec<NodeId>>>,
        validate_only: bool,
    ) -> Result<(), LogError> {
        self.inner.authority.add_partitions(name, count, replicas, validate_only).await
    }

    /// Deletes a topic; that is durable on return.
    ///
    /// # Errors
    /// No such topic, a disk that fails.
    pub async fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.inner.authority.delete_topic(name).await
    }

    /// Gives a topic new configs; durable on return.
    ///
    /// # Errors
    /// No such topic, a disk that fails.
    pub async fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        self.inner.authority.alter_topic(name, config).await
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.topics.load().get(name).cloned()
    }

    /// All topics by name, a snapshot. A topic and its partitions keep their handles while they stay; one that gets more
    /// partitions is another handle, of the same partitions and more.
    pub fn topics(&self) -> Arc<Topics> {
        self.inner.topics.load_full()
    }

    /// Changes whenever a topic was made, altered or deleted, when [`Log::topics`] shows it.
    pub fn topics_changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Whether appends are refused now because this node's disk is full.
    pub fn disk_full(&self) -> bool {
        self.inner.local.disk_full()
    }

    /// Counters of this node's log since it was opened.
    pub fn stats(&self) -> LogStats {
        self.inner.local.stats()
    }

    /// How long this node's disk has not finished a sync that goes on now: a disk that hangs gives no error.
    pub fn sync_stalled(&self) -> Duration {
        self.inner.local.sync_stalled()
    }

    /// Flushes everything and stops the shards of this node. Blocking. Later appends are refused with
    /// [`forebay_log::AppendError::Closed`].
    pub fn shutdown(&self) {
        self.inner.local.shutdown();
    }
}

impl Inner {
    /// Takes over what has changed.
    fn refresh(&self) {
        let refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.authority.known();
        self.topics.store(Arc::new(topic::following(
            &self.topics.load(),
            known,
            self.authority.here(),
            self.forwarder.as_ref(),
        )));
        self.changed.send_modify(|version| *version += 1);
        drop(refreshing);
    }
}
