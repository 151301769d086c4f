//! Who decides on topics where there is no cluster: the node itself, whose disk holds every partition and which leads them all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_disk::{LogError, NewTopic};
use forebay_log::cluster::Refusal;
use forebay_log::cluster::controller::Assignment;
use forebay_log::{NodeId, TopicConfig};

use super::placement::{Node, Placement};
use super::topic::{Known, Seat};

/// A node of its own.
pub(super) struct Alone {
    pub(super) here: NodeId,
    local: forebay_disk::Log,
    placement: Arc<Placement>,
    nodes: ArcSwap<Vec<Node>>,
}

impl Alone {
    pub(super) fn new(here: NodeId, local: forebay_disk::Log) -> Alone {
        let nodes = ArcSwap::from_pointee(vec![Node { id: here, kafka: None, rack: None }]);
        Alone { here, local, placement: Arc::new(Placement::on(here)), nodes }
    }

    pub(super) async fn create_topics(&self, wanted: Vec<NewTopic>) -> Result<(), LogError> {
        self.local.create_topics(wanted).await.map(drop)
    }

    pub(super) async fn place_topic(
        &self,
        name: String,
        replicas: Assignment,
        config: &TopicConfig,
        validate_only: bool,
    ) -> Result<Vec<Vec<NodeId>>, LogError> {
        let partitions = match replicas {
            Assignment::Placed { partitions, replication_factor: 1 } => partitions,
            Assignment::Placed { replication_factor, .. } => {
                let why = format!("replication factor {replication_factor} is more than the one node there is");
                return Err(LogError::TooFewNodes(why));
            }
            Assignment::Explicit { replicas } => {
                self.check_assignment(&replicas)?;
                u32::try_from(replicas.len()).unwrap_or(u32::MAX)
            }
        };
        if !validate_only {
            self.create_topics(vec![NewTopic { name, partitions, config: config.clone() }]).await?;
        }
        Ok(vec![vec![self.here]; partitions as usize])
    }

    pub(super) async fn add_partitions(
        &self,
        name: &str,
        count: u32,
        assignment: Option<Vec<Vec<NodeId>>>,
        validate_only: bool,
    ) -> Result<(), LogError> {
        if let Some(replicas) = assignment {
            let topic = self.local.topic(name).ok_or_else(|| LogError::UnknownTopic(name.to_owned()))?;
            self.check_assignment(&replicas)?;
            if topic.partitions.len() + replicas.len() != count as usize {
                let why = "one list of replicas for each new partition is needed".to_owned();
                return Err(Refusal::InvalidReplicaAssignment { why }.into());
            }
        }
        if validate_only { Ok(()) } else { self.local.add_partitions(name, count).await }
    }

    /// This node is the only replica there is.
    fn check_assignment(&self, replicas: &[Vec<NodeId>]) -> Result<(), LogError> {
        if replicas.iter().all(|replicas| *replicas == [self.here]) {
            return Ok(());
        }
        let why = format!("each partition must be assigned to node {}", self.here);
        Err(Refusal::InvalidReplicaAssignment { why }.into())
    }

    pub(super) async fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.local.delete_topic(name).await
    }

    pub(super) async fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        self.local.alter_topic(name, config).await
    }

    /// All topics and where their partitions lie.
    pub(super) fn known(&self) -> Vec<Known> {
        let seat = |replica| Seat { placement: Arc::clone(&self.placement), replica: Some(Arc::clone(replica)) };
        let topics = self.local.topics();
        let known = topics.values().map(|topic| Known {
            name: topic.name.clone(),
            id: topic.id,
            config: topic.config(),
            partitions: topic.partitions.iter().map(seat).collect(),
        });
        known.collect()
    }

    pub(super) fn advertise(&self, host: String, port: u16) {
        self.nodes.store(Arc::new(vec![Node { id: self.here, kafka: Some((host, port)), rack: None }]));
    }

    pub(super) fn nodes(&self) -> Arc<Vec<Node>> {
        self.nodes.load_full()
    }

    pub(super) fn controller(&self) -> Option<NodeId> {
        Some(self.here)
    }
}
