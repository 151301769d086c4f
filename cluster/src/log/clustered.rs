//! Who decides on topics in a cluster: the controller, whose decisions every node follows in the cluster's metadata.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_disk::{LogError, NewTopic};
use forebay_log::cluster::controller::{Assignment, CreateTopic};
use forebay_log::cluster::{PartitionState, Refusal, Reply, Request, Topic};
use forebay_log::{NodeId, TopicConfig};
use uuid::Uuid;

use super::placement::{Node, Placement};
use super::topic::{Known, Seat};
use crate::controller::AskError;
use crate::node::Cluster;
use crate::topic_config;

/// How long a change of the topics may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The listener's name in a node's registration.
const KAFKA: &str = "kafka";

/// A node of a cluster.
pub(super) struct Clustered {
    pub(super) here: NodeId,
    local: forebay_disk::Log,
    cluster: Cluster,
    /// Replicas of a topic that nobody has said a number for.
    replication_factor: u16,
    parsed: Mutex<Parsed>,
}

/// What was made of the metadata and is still as it was: handles and configs that have not changed stay the same.
#[derive(Default)]
struct Parsed {
    configs: HashMap<Uuid, (BTreeMap<String, String>, Arc<TopicConfig>)>,
    placements: HashMap<(Uuid, u32), Arc<Placement>>,
}

impl Clustered {
    pub(super) fn new(local: forebay_disk::Log, cluster: Cluster, replication_factor: u16) -> Clustered {
        let here = cluster.node();
        Clustered { here, local, cluster, replication_factor, parsed: Mutex::default() }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) async fn create_topics(&self, wanted: Vec<NewTopic>) -> Result<(), LogError> {
        wanted.iter().try_for_each(NewTopic::check)?;
        // All at once: the controller decides on them together.
        let made = wanted.into_iter().map(|NewTopic { name, partitions, config }| async move {
            let replicas = Assignment::Placed { partitions, replication_factor: self.replication_factor };
            self.place_topic(name, replicas, &config, false).await.map(drop)
        });
        futures_util::future::join_all(made).await.into_iter().collect()
    }

    /// Makes one topic with these replicas; returns those of each partition.
    pub(super) async fn place_topic(
        &self,
        name: String,
        replicas: Assignment,
        config: &TopicConfig,
        validate_only: bool,
    ) -> Result<Vec<Vec<NodeId>>, LogError> {
        let id = Uuid::new_v4();
        let config = topic_config::to_map(config);
        let topic = CreateTopic { id, name: name.clone(), replicas, config, validate_only };
        match self.ask(&name, Request::CreateTopic(topic)).await {
            Ok(reply) if validate_only => Ok(placed(reply)),
            Ok(reply) => {
                self.applied(|image| image.topic(id).is_some()).await?;
                Ok(placed(reply))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn add_partitions(
        &self,
        name: &str,
        count: u32,
        assignment: Option<Vec<Vec<NodeId>>>,
        validate_only: bool,
    ) -> Result<(), LogError> {
        let (topic, had) = self.known_topic(name)?;
        let request = Request::CreatePartitions { topic, count, had: Some(had), assignment, validate_only };
        self.ask(name, request).await?;
        if validate_only {
            return Ok(());
        }
        self.applied(|image| image.topic(topic).is_none_or(|topic| topic.partitions.len() >= count as usize)).await
    }

    pub(super) async fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let (topic, _) = self.known_topic(name)?;
        match self.ask(name, Request::DeleteTopic { topic }).await {
            // It was there: it is deleted, and the answer was lost.
            Ok(_) | Err(LogError::UnknownTopic(_)) => {}
            Err(error) => return Err(error),
        }
        self.applied(|image| image.topic(topic).is_none()).await
    }

    pub(super) async fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        let ((topic, _), config) = (self.known_topic(name)?, topic_config::to_map(&config));
        let request = Request::AlterConfigs { topic, config: config.clone(), validate_only: false };
        self.ask(name, request).await?;
        self.applied(|image| image.topic(topic).is_none_or(|topic| topic.config == config)).await
    }

    /// The topic's id and how many partitions it has, as far as this node knows.
    fn known_topic(&self, name: &str) -> Result<(Uuid, u32), LogError> {
        let metadata = self.cluster.metadata();
        let count = |topic: &Topic| u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let known = metadata.borrow().image.topic_named(name).map(|topic| (topic.id, count(topic)));
        known.ok_or_else(|| LogError::UnknownTopic(name.to_owned()))
    }

    pub(super) fn default_replication_factor(&self) -> u16 {
        self.replication_factor
    }

    async fn ask(&self, name: &str, request: Request) -> Result<Reply, LogError> {
        self.cluster.ask(request, PATIENCE).await.map_err(|error| refused(name, error))
    }

    /// Waits until the metadata says so here and this node has taken its part in it.
    async fn applied(&self, is_so: impl Fn(&forebay_log::cluster::Image) -> bool + Send) -> Result<(), LogError> {
        let late = || LogError::Unavailable("it is decided, but this node has not heard of it in time".to_owned());
        let mut metadata = self.cluster.metadata();
        let known = tokio::time::timeout(PATIENCE, metadata.wait_for(|metadata| is_so(&metadata.image))).await;
        let version = known.map_err(|_| late())?.map_err(|_| LogError::Closed)?.image.version().0;
        let mut applied = self.cluster.applied();
        let taken = tokio::time::timeout(PATIENCE, applied.wait_for(|applied| *applied >= version)).await;
        taken.map_err(|_| late())?.map_err(|_| LogError::Closed)?;
        Ok(())
    }

    /// All topics and where their partitions lie.
    pub(super) fn known(&self) -> Vec<Known> {
        let metadata = self.cluster.metadata();
        let image = metadata.borrow().image.clone();
        let local = self.local.topics();
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        parsed.configs.retain(|id, _| image.topic(*id).is_some());
        parsed.placements.retain(|(id, index), _| image.partition(*id, *index).is_some());
        let known = image.topics().map(|topic| {
            let here = local.get(&topic.name).filter(|here| here.id == topic.id);
            let seat = |(index, state): (u32, &PartitionState)| Seat {
                placement: parsed.placement((topic.id, index), state),
                replica: here.and_then(|here| here.partition(index)).cloned(),
            };
            let partitions = topic.partitions().map(seat).collect();
            Known { name: topic.name.clone(), id: topic.id, config: parsed.config(topic), partitions }
        });
        known.collect()
    }

    pub(super) fn nodes(&self) -> Arc<Vec<Node>> {
        let metadata = self.cluster.metadata();
        let image = metadata.borrow().image.clone();
        let up = image.nodes().filter(|(_, node)| node.is_active()).map(|(id, node)| {
            let kafka = node.address(KAFKA).and_then(|address| address.rsplit_once(':'));
            let kafka = kafka.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
            Node { id, kafka, rack: node.rack().map(str::to_owned) }
        });
        Arc::new(up.collect())
    }

    pub(super) fn controller(&self) -> Option<NodeId> {
        self.cluster.quorum().leader.and_then(|id| i32::try_from(id).ok()).map(NodeId)
    }

    pub(super) fn cluster_id(&self) -> Option<Uuid> {
        self.cluster.metadata().borrow().image.cluster()
    }
}

impl Parsed {
    fn config(&mut self, topic: &Topic) -> Arc<TopicConfig> {
        match self.configs.get(&topic.id) {
            Some((map, config)) if *map == topic.config => Arc::clone(config),
            _ => {
                let config = Arc::new(topic_config::from_map(&topic.name, &topic.config));
                self.configs.insert(topic.id, (topic.config.clone(), Arc::clone(&config)));
                config
            }
        }
    }

    fn placement(&mut self, id: (Uuid, u32), state: &PartitionState) -> Arc<Placement> {
        let PartitionState { leader, leader_epoch, partition_epoch, .. } = *state;
        match self.placements.get(&id) {
            Some(known) if known.partition_epoch == partition_epoch => Arc::clone(known),
            _ => {
                let (replicas, isr) = (state.replicas.clone(), state.isr.clone());
                let (adding, removing) = (state.adding.clone(), state.removing.clone());
                let placement =
                    Arc::new(Placement { leader, leader_epoch, partition_epoch, replicas, isr, adding, removing });
                self.placements.insert(id, Arc::clone(&placement));
                placement
            }
        }
    }
}

fn placed(reply: Reply) -> Vec<Vec<NodeId>> {
    match reply {
        Reply::Placed { replicas, .. } => replicas,
        _ => Vec::new(),
    }
}

fn refused(name: &str, error: AskError) -> LogError {
    match error {
        AskError::Refused(Refusal::TopicExists { name }) => LogError::TopicExists(name),
        AskError::Refused(Refusal::UnknownTopicId { .. }) => LogError::UnknownTopic(name.to_owned()),
        AskError::Refused(refusal @ Refusal::InvalidTopic { .. }) => LogError::InvalidTopic(refusal.to_string()),
        AskError::Refused(refusal @ Refusal::InvalidReplicationFactor { .. }) => {
            LogError::TooFewNodes(refusal.to_string())
        }
        AskError::Refused(refusal) => LogError::NotPossible(refusal),
        AskError::Unavailable(why) => LogError::Unavailable(why),
    }
}
