//! Counters of the links, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::NodeId;
use super::limits::MAX_PEERS;

/// What happened on the links of this node since it was started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that ended before a link was made of them: garbage, timeouts, TLS.
    pub failed_handshakes: AtomicU64,
    /// Links refused, by this node or another one.
    pub refused: AtomicU64,
    peers: Mutex<BTreeMap<NodeId, Arc<PeerCounters>>>,
}

/// What happened between this node and one other.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Connections that are up now, of both directions and all lanes.
    pub connections: AtomicI64,
    /// Connections that were made.
    pub connects: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Requests sent to the other node.
    pub requests_out: AtomicU64,
    /// Requests that it sent.
    pub requests_in: AtomicU64,
    /// Requests sent that ended without an answer's body.
    pub errors_out: AtomicU64,
    /// Its requests that were answered with an error.
    pub errors_in: AtomicU64,
}

impl Counters {
    /// The counters of one other node. Beyond a bound, a node that was not counted before gets some that nobody sees.
    pub fn peer(&self, node: NodeId) -> Arc<PeerCounters> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&node) {
            Some(counters) => counters.clone(),
            None if peers.len() >= MAX_PEERS => Arc::default(),
            None => peers.entry(node).or_default().clone(),
        }
    }

    /// All nodes that there ever was a link with.
    pub fn peers(&self) -> Vec<(NodeId, Arc<PeerCounters>)> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(node, counters)| (*node, counters.clone())).collect()
    }
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// A connection that is up, until it is dropped.
pub(super) struct Connected(Arc<PeerCounters>);

impl Connected {
    pub(super) fn new(counters: Arc<PeerCounters>) -> Connected {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        add(&counters.connects, 1);
        Connected(counters)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
