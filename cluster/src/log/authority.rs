//! Who decides on topics and on where they lie: the node itself, or the cluster's controller.

use std::sync::Arc;

use forebay_disk::{LogError, NewTopic};
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

    pub(super) async fn add_partitions(&self, name: &str, count: u32) -> Result<(), LogError> {
        match self {
            Authority::Alone(alone) => alone.add_partitions(name, count).await,
            Authority::Cluster(clustered) => clustered.add_partitions(name, count).await,
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
