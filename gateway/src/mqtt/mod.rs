//! The MQTT doors: codec, sessions, delivery to subscribers, and the connection loop that TCP, TLS and QUIC share.

pub mod codec;
pub mod connection;
pub mod packet;
pub mod topic;

use std::sync::Arc;

use forebay_disk::Log;
use forebay_log::AppendError;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ingest::Router;
use crate::metrics::Metrics;
use crate::reader::Reader;

/// All that the MQTT doors of a node share: sessions, subscriptions, retained messages.
pub struct Broker {
    _private: (),
}

/// One session, for `/api/v1/clients` and the console.
#[derive(Debug, Clone, Serialize)]
pub struct ClientInfo {
    pub client_id: String,
    pub connected: bool,
    /// "tcp", "tls", "ws", "wss" or "quic"
    pub transport: &'static str,
    pub address: String,
    /// "3.1.1" or "5.0"
    pub version: &'static str,
    pub subscriptions: usize,
    pub inflight: usize,
}

impl Broker {
    /// Loads sessions and retained messages and starts the delivery to subscribers.
    pub async fn start(
        log: Log,
        reader: Reader,
        router: Arc<Router>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Broker>> {
        let _ = (log, reader, router, config, metrics, shutdown);
        todo!()
    }
    /// Publishes for the program itself (alert receivers), as a client called `client_id` would at QoS 1; returns when durable.
    pub async fn publish(&self, client_id: &str, topic: &str, payload: &[u8], retain: bool) -> Result<(), AppendError> {
        let _ = (client_id, topic, payload, retain);
        todo!()
    }
    pub fn clients(&self, limit: usize) -> Vec<ClientInfo> {
        let _ = limit;
        todo!()
    }
    pub fn connected(&self) -> usize {
        todo!()
    }
}

/// Accepts MQTT on TCP, or on TLS with `tls` (replaced on SIGHUP), until shutdown; then connections drain.
pub async fn serve(
    broker: Arc<Broker>,
    listener: TcpListener,
    tls: Option<Arc<arc_swap::ArcSwap<rustls::ServerConfig>>>,
    shutdown: CancellationToken,
) {
    let _ = (broker, listener, tls, shutdown);
    todo!()
}
