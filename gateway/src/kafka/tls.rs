//! TLS on the Kafka port: the handshake runs in the connection's own task, so that no slow client holds up the others.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authentication::Login;
use super::limits::{LOG_LINES, TLS_TIMEOUT};
use super::{Shared, connection};
use crate::log_limit::LogLimit;
use crate::security::of_certificate;

static FAILED: LogLimit = LogLimit::new(LOG_LINES);

/// Serves a connection that begins with a TLS handshake, until it ends.
pub(super) async fn run(shared: Arc<Shared>, tls: Arc<rustls::ServerConfig>, stream: TcpStream, peer: SocketAddr) {
    let handshake = Box::pin(handshake(&shared, tls, stream));
    let stream = match shared.shutdown.run_until_cancelled(handshake).await {
        Some(Ok(stream)) => stream,
        Some(Err(reason)) => {
            shared.door.metrics.kafka.authentication_failures.inc();
            if let Some(suppressed) = FAILED.admit() {
                tracing::warn!(%peer, reason, suppressed, "a TLS handshake on the Kafka port failed");
            }
            return;
        }
        None => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let principal = certificate.and_then(|certificate| of_certificate(certificate));
    let login = Login::new(&shared, peer, principal);
    let (reader, writer) = tokio::io::split(stream);
    connection::run(shared, reader, writer, peer, login).await;
}

async fn handshake(
    shared: &Shared,
    tls: Arc<rustls::ServerConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    // Sockets that stay silent must not take the turns of those that speak.
    match timeout(TLS_TIMEOUT, stream.peek(&mut [0])).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("the client says nothing".to_owned()),
    }
    let _turn = shared.handshakes.acquire().await;
    match timeout(TLS_TIMEOUT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(accepted) => accepted.map_err(|error| error.to_string()),
        Err(_) => Err("the client is too slow".to_owned()),
    }
}
