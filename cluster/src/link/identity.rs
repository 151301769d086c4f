//! Who a node is: what it says of itself when a link begins, and what the other side holds against it.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::counters::Counters;
use super::error::{LinkError, Refusal, RefusalCode};
use super::kinds::Kinds;
use super::reports::Reports;

/// A node's id (Kafka's `node.id`).
pub type NodeId = i32;

/// Which connection between two nodes: what is on one never waits behind what is on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// The quorum, heartbeats, requests to the controller: small, and never behind bulk.
    Control,
    /// Fetches of followers. What must arrive so that others may be answered, so it is apart from those.
    Data,
    /// Forwarded appends and whatever else is answered only when followers have fetched it. On one lane with the
    /// fetches, as many of these as may be in flight would keep out the very fetches that they wait for.
    Forward,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Forward];

    pub(super) fn to_wire(self) -> u8 {
        self as u8
    }

    pub(super) fn from_wire(lane: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|l| l.to_wire() == lane)
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id; empty while the node belongs to none yet.
    pub cluster_id: String,
    pub node: NodeId,
    /// Another one at each start of the process, so that a restart is noticed.
    pub incarnation: u64,
    /// The id of the data directory (Kafka's `directory.id`).
    pub directory: Uuid,
}

/// This node, as its links present it. One for the process, shared by both sides.
#[derive(Debug)]
pub struct Local {
    identity: ArcSwap<Identity>,
    pub kinds: Kinds,
    pub counters: Counters,
    pub(super) reports: Reports,
}

impl Local {
    pub fn new(identity: Identity, kinds: Kinds) -> Arc<Local> {
        Arc::new(Local {
            identity: ArcSwap::from_pointee(identity),
            kinds,
            counters: Counters::default(),
            reports: Reports::default(),
        })
    }

    pub fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    /// The node belongs to a cluster now. Links that are made from now on say so.
    pub fn set_cluster_id(&self, cluster_id: &str) {
        self.identity.rcu(|identity| Identity { cluster_id: cluster_id.to_owned(), ..Identity::clone(identity) });
    }
}

/// The node at the other end of a link.
#[derive(Debug, Clone)]
pub struct Peer {
    pub identity: Identity,
    pub kinds: Kinds,
    pub lane: Lane,
    pub address: SocketAddr,
}

impl Peer {
    /// The newest version of `kind` that both nodes speak.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] when there is none.
    pub fn common(&self, local: &Local, kind: u16) -> Result<u16, LinkError> {
        local.kinds.common(&self.kinds, kind)
    }
}

/// Decides whether a node may have a link, beside its cluster id and the node that it meant, which are checked before.
/// Asked on both sides, of the other one, at the handshake and at each request; must not block.
pub trait Admission: Send + Sync + 'static {
    /// # Errors
    /// Why not, and what to do about it.
    fn admit(&self, peer: &Identity) -> Result<(), Refusal>;
}

impl<F: Fn(&Identity) -> Result<(), Refusal> + Send + Sync + 'static> Admission for F {
    fn admit(&self, peer: &Identity) -> Result<(), Refusal> {
        self(peer)
    }
}

/// Whether the ids of the two clusters, of which either may have none yet, allow a link.
pub(super) fn same_cluster(ours: &Identity, theirs: &Identity) -> Result<(), Refusal> {
    if ours.cluster_id == theirs.cluster_id || ours.cluster_id.is_empty() || theirs.cluster_id.is_empty() {
        return Ok(());
    }
    let text = format!(
        "node {} belongs to cluster {}, node {} to cluster {}: check the addresses of the cluster's nodes in the config of \
         both; a node that is to change its cluster starts with an empty data directory",
        ours.node, ours.cluster_id, theirs.node, theirs.cluster_id
    );
    Err(Refusal::new(RefusalCode::WrongCluster, text))
}

/// Whether a link that is up may go on. Asked at each request: which cluster a node belongs to, and which nodes belong to that, may
/// have become known after the handshake.
pub(super) fn still_fits(local: &Local, admission: &dyn Admission, peer: &Identity) -> Result<(), Refusal> {
    same_cluster(&local.identity(), peer)?;
    admission.admit(peer)
}

/// Whether the node that was meant is the one that was found.
pub(super) fn meant_node(meant: NodeId, found: NodeId) -> Result<(), Refusal> {
    if meant == found {
        return Ok(());
    }
    let text = format!("this address is node {found}'s, and node {meant} was meant: check the addresses in the config");
    Err(Refusal::new(RefusalCode::WrongNode, text))
}
