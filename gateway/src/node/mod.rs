//! One node: opens the log, starts every service and door in order, and drains them in reverse.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_disk::{Files, Log};
use tokio_util::sync::CancellationToken;

use crate::alerts::Alerts;
use crate::config::Config;
use crate::ingest::Router;
use crate::lake::Lake;
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::reader::Reader;

/// Everything a running node shares.
pub struct Gateway {
    pub config: Arc<Config>,
    pub log: Log,
    pub reader: Reader,
    pub router: Arc<Router>,
    pub lake: Option<Arc<Lake>>,
    pub broker: Arc<Broker>,
    pub alerts: Arc<Alerts>,
    pub metrics: Arc<Metrics>,
    pub addresses: Addresses,
    pub started: std::time::Instant,
    pub shutdown: CancellationToken,
}

/// Where the listeners are bound.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub mqtt: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
    pub ws: Option<SocketAddr>,
    pub wss: Option<SocketAddr>,
    pub quic: Option<SocketAddr>,
    pub kafka: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    pub gateway: Arc<Gateway>,
}

impl Node {
    /// Starts a node on `files` (its data directory). Returns once every listener accepts.
    pub async fn start(config: Config, files: Arc<dyn Files>) -> anyhow::Result<Node> {
        let _ = (config, files);
        todo!()
    }
    /// The line `forebay ready node=1 mqtt=... http=...`.
    pub fn ready_line(&self) -> String {
        todo!()
    }
    /// No new connections, acks in flight finished, everything flushed; at most 10 s.
    pub async fn drain(self) {
        todo!()
    }
}
