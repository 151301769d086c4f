//! Who decides on topics and on where they lie: the node itself, or the cluster's controller.

use std::sync::Arc;

use forebay_disk::{LogError, NewTopic};
use forebay_log::cluster::controller::Assignment;
use forebay_log::{NodeId, TopicConfig};
use uuid::Uuid;

use super::alone::Alone;
use super::clustered::Clustered;
use super::placement::Node;
use super::topic::Known;
use crate::node::Cluster;

pub(super) enum Authority {
    Alone(Alone),
    Cluster(Clustered),
}

impl Authority {
    pub(super) fn here(&self) -> NodeId {
        match self {
            Authority::Alone(alone) => alone.here,
            Authority::Cluster(clustered) => clustered.here,
        }
    }

    pub(super) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Authority::Alone(_) => None,
            Authority::Cluster(clustered) => Some(clustered.cluster()),
        }
    }

    pub(super) fn cluster_id(&self) -> Option<Uuid> {
        match self {
            Authority::Alone(_) => None,
            Authority::Cluster(clustered) => clustered.cluster_id(),
        }
    }

    pub(super) async fn create_topics(&self, wanted: Vec<NewTopic>) -> Result<(), LogError> {
        match self {
            Authority::Alone(alone) => alone.create_topics(wanted).await,
            Authority::Cluster(clustered) => clustered.create_topics(wanted).await,
        }
    }

    pub(super) async fn place_topic(
        &self,
        name: String,
        replicas: Assignment,
        config: &TopicConfig,
        validate_only: bool,
    ) -> Result<Vec<Vec<NodeId>>, LogError> {
        match self {
            Authority::Alone(alone) => alone.place_topic(name, replicas, config, validate_only).await,
            Authority::Cluster(clustered) => clustered.place_topic(name, replicas, config, validate_only).await,
        }
    }

    pub(super) async fn add_partitions(
        &self,
        name: &str,
        count: u32,
        assignment: Option<Vec<Vec<NodeId>>>,
        validate_only: bool,
    ) -> Result<(), LogError> {
        match self {
            Authority::Alone(alone) => alone.add_partitions(name, count, assignment, validate_only).await,
            Authority::Cluster(clustered) => clustered.add_partitions(name, count, assignment, validate_only).await,
        }
    }

    /// Replicas of a topic that nobody has said a number for.
    pub(super) fn default_replication_factor(&self) -> u16 {
        match self {
            Authority::Alone(_) => 1,
            Authority::Cluster(clustered) => clustered.default_replication_factor(),
        }
    }

    pub(super) async fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        match self {
            Authority::Alone(alone) => alone.delete_topic(name).await,
            Authority::Cluster(clustered) => clustered.delete_topic(name).await,
        }
    }

    pub(super) async fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<(), LogError> {
        match self {
            Authority::Alone(alone) => alone.alter_topic(name, config).await,
            Authority::Cluster(clustered) => clustered.alter_topic(name, config).await,
        }
    }

    pub(super) fn known(&self) -> Vec<Known> {
        match self {
            Authority::Alone(alone) => alone.known(),
            Authority::Cluster(clustered) => clustered.known(),
        }
    }

    /// In a cluster the registration tells the addresses.
    pub(super) fn advertise(&self, host: String, port: u16) {
        if let Authority::Alone(alone) = self {
            alone.advertise(host, port);
        }
    }

    pub(super) fn nodes(&self) -> Arc<Vec<Node>> {
        match self {
            Authority::Alone(alone) => alone.nodes(),
            Authority::Cluster(clustered) => clustered.nodes(),
        }
    }

    pub(super) fn controller(&self) -> Option<NodeId> {
        match self {
            Authority::Alone(alone) => alone.controller(),
            Authority::Cluster(clustered) => clustered.controller(),
        }
    }
}
