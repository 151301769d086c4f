//! The QUIC door: MQTT over QUIC by EMQX's convention, the sessions of the TCP door over quinn's streams.
//!
//! A client may change its address (connection migration): the session does not notice.

mod connection;
mod endpoint;
mod sessions;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::log_limit::LogLimit;
use crate::mqtt::Broker;
use sessions::Sessions;

/// With more connections than this in their handshake, newcomers must prove their address (a retry) before they get memory;
/// beyond the larger number they are refused.
const RETRY_ABOVE: usize = 256;
const MAX_HANDSHAKES: usize = 2048;
const _: () = assert!(RETRY_ABOVE < MAX_HANDSHAKES);

/// How long connections may take to drain on shutdown, and their last packets to leave.
const DRAIN: Duration = Duration::from_secs(8);
const LINGER: Duration = Duration::from_secs(1);

static OVERLOAD: LogLimit = LogLimit::new(1);

/// A bound QUIC listener.
pub struct QuicListener {
    endpoint: Endpoint,
    address: SocketAddr,
    handshakes: Arc<Semaphore>,
}

impl QuicListener {
    /// Wraps a bound socket; `tls` gets ALPN `mqtt`. Needs a tokio runtime.
    pub fn new(socket: UdpSocket, tls: rustls::ServerConfig) -> anyhow::Result<QuicListener> {
        let config = endpoint::server_config(tls).context("these certificates cannot serve QUIC")?;
        let address = socket.local_addr()?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
            .with_context(|| format!("cannot serve QUIC on {address}"))?;
        Ok(QuicListener { endpoint, address, handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)) })
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Replaces certificate and client authorities for new connections.
    pub fn set_tls(&self, tls: rustls::ServerConfig) -> anyhow::Result<()> {
        let config = endpoint::server_config(tls).context("these certificates cannot serve QUIC")?;
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// Accepts connections until shutdown; then they drain.
    pub async fn serve(&self, broker: Arc<Broker>, shutdown: CancellationToken) {
        self.serve_sessions(broker, shutdown).await;
    }

    /// Lets a newcomer in, has it prove its address first, or refuses it, by how many handshakes are under way.
    fn admit(&self, incoming: Incoming) -> Option<(Incoming, OwnedSemaphorePermit)> {
        let Ok(permit) = self.handshakes.clone().try_acquire_owned() else {
            if let Some(suppressed) = OVERLOAD.admit() {
                tracing::warn!(suppressed, "refusing QUIC connections: {MAX_HANDSHAKES} handshakes are under way");
            }
            incoming.refuse();
            return None;
        };
        let under_way = MAX_HANDSHAKES - self.handshakes.available_permits();
        if under_way <= RETRY_ABOVE || incoming.remote_address_validated() {
            return Some((incoming, permit));
        }
        // A newcomer that cannot be told to retry (it has been) is let in.
        incoming.retry().err().map(|error| (error.into_incoming(), permit))
    }

    async fn serve_sessions<S: Sessions>(&self, sessions: S, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let incoming = tokio::select! {
                () = shutdown.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            if let Some((incoming, permit)) = self.admit(incoming) {
                connections.spawn(connection::serve(incoming, permit, sessions.clone(), shutdown.clone()));
            }
        }
        self.endpoint.set_server_config(None);
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("{} QUIC connections did not drain within {DRAIN:?}", connections.len());
        }
        self.endpoint.close(0u32.into(), b"shutting down");
        let _ = timeout(LINGER, self.endpoint.wait_idle()).await;
    }
}
