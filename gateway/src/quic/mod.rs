//! The QUIC door: MQTT over QUIC by EMQX's convention, the sessions of the TCP door over quinn's streams.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::mqtt::Broker;

/// A bound QUIC listener.
pub struct QuicListener {
    _private: (),
}

impl QuicListener {
    /// Wraps a bound socket; `tls` gets ALPN `mqtt`.
    pub fn new(socket: UdpSocket, tls: rustls::ServerConfig) -> anyhow::Result<QuicListener> {
        let _ = (socket, tls);
        todo!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
    /// Replaces certificate and client authorities for new connections.
    pub fn set_tls(&self, tls: rustls::ServerConfig) -> anyhow::Result<()> {
        let _ = tls;
        todo!()
    }
    /// Accepts connections until shutdown; then they drain.
    pub async fn serve(&self, broker: Arc<Broker>, shutdown: CancellationToken) {
        let _ = (broker, shutdown);
        todo!()
    }
}
