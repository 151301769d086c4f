//! A node as the image has it: whether it has registered, where it is reached, whether it counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::LevelRange;
use crate::units::{Incarnation, MetadataVersion};

/// Whether a node may lead and be in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Not heard of, or not caught up yet.
    #[default]
    Fenced,
    Unfenced,
    /// In a controlled shutdown: others take its leaderships.
    Stopping,
}

/// A node that may be in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// None until a process of it has been here.
    #[serde(default)]
    pub registration: Option<Registration>,
    pub liveness: Liveness,
    /// Its replicas move to others, and it gets no new ones.
    #[serde(default)]
    pub draining: bool,
}

/// What the node's process said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub incarnation: Incarnation,
    /// The process's own number: another one with the same incarnation is not it.
    #[serde(default)]
    pub process: Uuid,
    pub directory: Uuid,
    /// `host:port` by the listener's name.
    pub addresses: BTreeMap<String, String>,
    #[serde(default)]
    pub rack: Option<String>,
    pub levels: LevelRange,
    /// The metadata that the registration is the last record of: who has applied it knows of it.
    pub since: MetadataVersion,
}

impl Node {
    /// Whether it may lead and be in sync: it is heard of, and stays.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.liveness == Liveness::Unfenced
    }

    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.registration.as_ref().map(|registration| registration.incarnation)
    }

    #[must_use]
    pub fn rack(&self) -> Option<&str> {
        self.registration.as_ref().and_then(|registration| registration.rack.as_deref())
    }

    /// Where a listener of the node is reached, `host:port`.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<&str> {
        self.registration.as_ref()?.addresses.get(listener).map(String::as_str)
    }
}
