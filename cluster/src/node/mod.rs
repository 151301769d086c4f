//! One node of a cluster: its part of the quorum and of the replication, over its links to the others.

mod admission;
mod assign;
mod identity;
mod in_sync;
mod limits;
mod presence;
mod report;
mod roles;
mod service;
#[cfg(test)]
mod tests;
mod voters;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use forebay_disk::{Files, Log, Topic};
use forebay_log::cluster::controller::{Limits, Register};
use forebay_log::cluster::{LevelRange, Reply, Request};
use forebay_log::{Incarnation, NodeId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::controller::{Active, AskError, Client, limits::QUEUE};
use crate::forward::{Forwarder, Receiver};
use crate::kinds;
use crate::link::{self, Counters, Identity, Links, Local, Server};
use crate::metadata::{Metadata, MetadataMachine};
use crate::quorum::{self, Disk, Quorum, QuorumError};
use crate::replication::{Feeder, Fetchers, Replicas};
use crate::topic_config;
use assign::Assigner;
use identity::Kept;
pub use in_sync::IsrChanges;
pub use presence::Standing;
pub use report::{Behind, Report};
use service::{NodeService, QuorumLinks};
pub use voters::VoterError;

/// How long the controller may take for each topic that a node brings.
const ADOPT_PATIENCE: Duration = Duration::from_secs(10);

/// How a node takes part in its cluster.
pub struct Options {
    pub node: NodeId,
    /// The first quorum, with the addresses of its cluster listeners; just this node for a cluster of one. A node that is not among
    /// them asks these to let it in.
    pub voters: BTreeMap<NodeId, String>,
    /// Where others and clients reach this node, by the listener's name.
    pub addresses: BTreeMap<String, String>,
    pub rack: Option<String>,
    /// Where other nodes connect; a cluster of one needs none.
    pub listener: Option<TcpListener>,
    pub server_tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    pub client_tls: Option<Arc<ArcSwap<rustls::ClientConfig>>>,
    pub links: link::Options,
    pub timings: quorum::Timings,
    pub controller: Limits,
    /// Bytes a second for followers that are not in sync; `None` is no limit.
    pub catch_up_rate: Option<u64>,
    /// `replica.lag.time.max.ms`
    pub replica_lag_time_max_ms: i64,
    /// The id of the cluster, if this node is the one to make it.
    pub new_cluster: Uuid,
}

impl Options {
    /// Defaults for a cluster of one.
    #[must_use]
    pub fn alone(node: NodeId) -> Options {
        Options {
            node,
            voters: BTreeMap::from([(node, String::new())]),
            addresses: BTreeMap::new(),
            rack: None,
            listener: None,
            server_tls: None,
            client_tls: None,
            links: link::Options::default(),
            timings: quorum::Timings::default(),
            controller: Limits::default(),
            catch_up_rate: None,
            replica_lag_time_max_ms: forebay_log::limits::REPLICA_LAG_TIME_MAX_MS,
            new_cluster: Uuid::new_v4(),
        }
    }
}

/// Why a node does not take part.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the node's identity: {0}")]
    Identity(std::io::Error),
    #[error("the controller quorum: {0}")]
    Quorum(#[from] QuorumError),
    #[error(
        "the data directory holds topics of a node that ran alone; a cluster of several begins with empty directories: start \
         this node without cluster.peers, or with another node.data_dir"
    )]
    NotEmpty,
    #[error("the topics that this node had cannot be taken into its cluster: {0}")]
    Adopt(AskError),
}

/// A node's part of its cluster. Clones share it; it ends with [`Cluster::shutdown`] or the last clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    _tasks: Arc<Vec<AbortOnDropHandle<()>>>,
}

pub(crate) struct Inner {
    node: NodeId,
    incarnation: Incarnation,
    log: Log,
    links: Arc<Links>,
    quorum: Quorum,
    client: Client,
    feeder: Arc<Feeder>,
    receiver: Arc<Receiver>,
    replicas: Arc<Replicas>,
    forwarder: Arc<Forwarder>,
    metadata: watch::Receiver<Metadata>,
    applied: watch::Receiver<u64>,
    standing: watch::Receiver<Standing>,
    stopping: watch::Sender<bool>,
    shutdown: CancellationToken,
    isr_changes: IsrChanges,
    kept: Arc<Kept>,
}

impl Inner {
    async fn ask(&self, request: Request, timeout: Duration) -> Result<Reply, AskError> {
        self.client.ask(request, timeout).await
    }
}

impl Cluster {
    /// Starts this node's part. The log must have been opened without leading by itself (`LogOptions::alone` off). A cluster of one
    /// is complete when this returns, apart from its registration; others go on to find each other.
    ///
    /// # Errors
    /// What is stored of the quorum or of this node's identity cannot be read or written.
    pub async fn start(options: Options, files: Arc<dyn Files>, log: Log) -> Result<Cluster, StartError> {
        let Options { node, voters, addresses, rack, listener, server_tls, client_tls, .. } = options;
        let disk = Disk::of(&log, files);
        let own_disk = disk.clone();
        let begun = tokio::task::spawn_blocking(move || Kept::begin(own_disk, node)).await;
        let kept = Arc::new(begun.unwrap_or_else(|error| Err(error.into())).map_err(StartError::Identity)?);
        let identity = kept.get();
        let identity::Identity { directory, incarnation, cluster, .. } = identity;
        let had: Vec<_> = if identity.adopted { Vec::new() } else { log.topics().values().cloned().collect() };
        let alone = voters.keys().all(|voter| *voter == node);
        if !had.is_empty() && !alone {
            return Err(StartError::NotEmpty);
        }
        let (machine, metadata) = MetadataMachine::new();
        let cluster_id = cluster.map(|id| id.to_string()).unwrap_or_default();
        let me = Identity { cluster_id, node: node.0, incarnation: incarnation.0, directory };
        let local = Local::new(me, kinds::spoken());
        let admission = admission::admission(metadata.clone(), voters.keys().copied().collect());
        let links = Links::new(Arc::clone(&local), client_tls, Arc::clone(&admission), options.links.clone());
        let links = Arc::new(links);
        for (id, address) in voters.iter().filter(|(id, _)| **id != node) {
            links.set_peer(id.0, address);
        }
        let shutdown = CancellationToken::new();
        let service = Arc::new(NodeService::default());
        let mut tasks = Vec::new();
        let mut run = |task: AbortOnDropHandle<()>| tasks.push(task);
        let raft_voters = if voters.contains_key(&node) { raft_ids(&voters) } else { BTreeMap::new() };
        let quorum_options = quorum::Options {
            timings: options.timings,
            begun: identity.begun,
            ..quorum::Options::new(raft_id(node), raft_voters)
        };
        let transport = Arc::new(QuorumLinks(Arc::clone(&links)));
        let quorum = Quorum::open(quorum_options, disk, Box::new(machine), transport).await?;
        // With what is stored of the metadata it knows whom to talk to. Who has come before waits in the listen queue.
        if let Some(listener) = listener {
            let server = Server {
                local: Arc::clone(&local),
                tls: server_tls,
                service: Arc::clone(&service) as _,
                admission,
                options: options.links,
            };
            run(spawn(server.serve(listener, shutdown.clone())));
        }

        let (requests, asked) = mpsc::channel(QUEUE);
        let client = Client { node, quorum: quorum.clone(), requests, links: Arc::clone(&links) };
        let replicas = Arc::new(Replicas::default());
        let feeder = Feeder::new(Arc::clone(&replicas), options.catch_up_rate);
        let fetchers = Fetchers::new(Arc::clone(&links), Arc::clone(&replicas), incarnation.0 << 48);
        let (applied_to, applied) = watch::channel(0);
        let (stands, standing) = watch::channel(Standing::default());
        let max_lag = options.replica_lag_time_max_ms;
        let receiver = Receiver::new(node, metadata.clone(), Arc::clone(&replicas));
        let forwarder = Arc::new(Forwarder::new(Arc::clone(&links), Arc::clone(&receiver), standing.clone()));
        let assigner = Assigner::new(
            (node, incarnation),
            log.clone(),
            Arc::clone(&replicas),
            Arc::clone(&feeder),
            fetchers,
            applied_to,
            max_lag,
        )
        .of_cluster(cluster);
        let proposals = log.isr_proposals();
        let inner = Arc::new(Inner {
            node,
            incarnation,
            log,
            links,
            quorum: quorum.clone(),
            client,
            feeder,
            receiver,
            replicas,
            forwarder,
            metadata: metadata.clone(),
            applied: applied.clone(),
            standing,
            stopping: watch::channel(false).0,
            shutdown,
            isr_changes: IsrChanges::default(),
            kept: Arc::clone(&kept),
        });
        // Once: this is the only place.
        let _ = service.inner.set(Arc::downgrade(&inner));
        let active = Active {
            node,
            quorum,
            metadata: metadata.clone(),
            requests: asked,
            limits: options.controller,
            new_cluster: options.new_cluster,
            started: Instant::now(),
        };
        let levels = LevelRange::OURS;
        let process = Uuid::new_v4();
        let register = Register { id: node, incarnation, process, directory, addresses, rack, levels, cluster: None };
        run(spawn(active.run()));
        if !identity.adopted {
            adopt(&inner, had).await.map_err(StartError::Adopt)?;
        }
        // Only now: a start that ended before this takes them in again.
        let noting = Arc::clone(&kept);
        let noted = tokio::task::spawn_blocking(move || noting.change(|own| (own.adopted, own.begun) = (true, true)));
        noted.await.unwrap_or_else(|error| Err(error.into())).map_err(StartError::Identity)?;
        run(spawn(assigner.run(metadata.clone())));
        run(spawn(presence::run(Arc::clone(&inner), register, applied, stands)));
        run(spawn(presence::watch_peers(Arc::clone(&inner))));
        run(spawn(admission::name_cluster(local, metadata.clone(), kept)));
        run(spawn(admission::remember_directories(inner.quorum.clone(), metadata)));
        if let Some(proposals) = proposals {
            run(spawn(in_sync::run(Arc::clone(&inner), proposals)));
        }
        Ok(Cluster { inner, _tasks: Arc::new(tasks) })
    }

    /// Which start of this node this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// The cluster's metadata, and when it changes.
    #[must_use]
    pub fn metadata(&self) -> watch::Receiver<Metadata> {
        self.inner.metadata.clone()
    }

    /// Up to which version of the metadata this node has taken its part.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.clone()
    }

    /// What this node is to the cluster.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.clone()
    }

    /// Asks the controller, wherever it is. A request may be decided twice when its first answer was lost.
    ///
    /// # Errors
    /// A refusal, or no controller in time.
    pub async fn ask(&self, request: Request, timeout: Duration) -> Result<Reply, AskError> {
        self.inner.ask(request, timeout).await
    }

    pub(crate) fn forwarder(&self) -> Arc<Forwarder> {
        Arc::clone(&self.inner.forwarder)
    }

    /// What this node knows of the quorum.
    #[must_use]
    pub fn quorum(&self) -> quorum::Status {
        self.inner.quorum.status()
    }

    /// Why the quorum has stopped on this node, once it has.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<QuorumError>> {
        self.inner.quorum.failure()
    }

    /// Appends that this node took and sent on to leaders on other nodes.
    #[must_use]
    pub fn forwarded_appends(&self) -> u64 {
        self.inner.forwarder.sent()
    }

    /// How often in-sync replicas of what this node leads became fewer and more.
    #[must_use]
    pub fn isr_changes(&self) -> &IsrChanges {
        &self.inner.isr_changes
    }

    /// Counters of the links.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.links.local().counters
    }

    /// Gives this node's leaderships to others first, within `patience` (controlled shutdown), then ends its part.
    pub async fn shutdown(&self, patience: Duration) {
        self.inner.stopping.send_replace(true);
        let mut standing = self.inner.standing.clone();
        let handed_over = standing.wait_for(|standing| standing.may_shut_down || !standing.registered);
        let _ = tokio::time::timeout(patience, handed_over).await;
        self.inner.shutdown.cancel();
        self.inner.quorum.shutdown().await;
    }
}

/// Takes what the log had before the node was in a cluster into the cluster's metadata.
async fn adopt(inner: &Inner, had: Vec<Arc<Topic>>) -> Result<(), AskError> {
    for topic in had {
        let leader_epochs = topic.partitions.iter().map(|partition| partition.leader_epoch()).collect();
        let (id, name, node) = (topic.id, topic.name.clone(), inner.node);
        let config = topic_config::to_map(&topic.config());
        tracing::info!(topic = name, "taken into the cluster's metadata");
        inner.ask(Request::AdoptTopic { id, name, config, node, leader_epochs }, ADOPT_PATIENCE).await?;
    }
    Ok(())
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn raft_id(node: NodeId) -> u64 {
    u64::try_from(node.0).unwrap_or(u64::MAX)
}

fn raft_ids(voters: &BTreeMap<NodeId, String>) -> BTreeMap<u64, String> {
    voters.iter().map(|(id, address)| (raft_id(*id), address.clone())).collect()
}
