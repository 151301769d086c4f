//! Accepts MQTT connections on TCP and TLS. A storm of reconnects waits in the system's listen queue, not in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Broker;
use super::connection::{self, Peer};
use super::limits::{CLOSE_TIMEOUT, DRAIN_TIMEOUT, MAX_TLS_HANDSHAKES, TLS_TIMEOUT};
use crate::log_limit::LogLimit;

/// Pause when the system cannot give another socket.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts MQTT on TCP, or on TLS with `tls` (replaced on SIGHUP), until shutdown; then connections drain.
pub async fn serve(
    broker: Arc<Broker>,
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    shutdown: CancellationToken,
) {
    static LIMIT: LogLimit = LogLimit::new(1);
    let tracker = TaskTracker::new();
    let handshakes = Arc::new(Semaphore::new(MAX_TLS_HANDSHAKES));
    loop {
        let accepted = async {
            let permit = broker.sockets.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let Some((accepted, permit)) = shutdown.run_until_cancelled(accepted).await else { break };
        match accepted {
            Ok((stream, address)) => {
                let (broker, shutdown) = (broker.clone(), shutdown.clone());
                let tls = tls.as_ref().map(|tls| (TlsAcceptor::from(tls.load_full()), handshakes.clone()));
                tracker.spawn(async move {
                    let _permit = permit;
                    connect(broker, stream, address, tls, shutdown).await;
                });
            }
            Err(error) => {
                broker.metrics.accept_failed("mqtt");
                if let Some(suppressed) = LIMIT.admit() {
                    warn!(%error, suppressed, "cannot accept MQTT connections");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    tracker.close();
    if timeout(DRAIN_TIMEOUT + CLOSE_TIMEOUT, tracker.wait()).await.is_err() {
        warn!(connections = tracker.len(), "MQTT connections did not drain in time");
    }
}

async fn connect(
    broker: Arc<Broker>,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<(TlsAcceptor, Arc<Semaphore>)>,
    shutdown: CancellationToken,
) {
    // Acks are small and must not wait for more.
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(%address, %error, "connection lost at once");
    }
    let address = address.to_string();
    let Some((acceptor, handshakes)) = tls else {
        let (reader, writer) = stream.into_split();
        let peer = Peer { transport: "tcp", address };
        connection::run(broker, peer, reader, writer, shutdown, None).await;
        return;
    };
    if let Some(stream) = Box::pin(handshake(acceptor, handshakes, stream, &address, &shutdown)).await {
        let (reader, writer) = tokio::io::split(stream);
        let peer = Peer { transport: "tls", address };
        connection::run(broker, peer, reader, writer, shutdown, None).await;
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    stream: TcpStream,
    address: &str,
    shutdown: &CancellationToken,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    static LIMIT: LogLimit = LogLimit::new(10);
    let handshake = async {
        // Sockets that stay silent, as those left over from a lost link, must not hold up the others.
        match timeout(TLS_TIMEOUT, stream.peek(&mut [0])).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Ok(Err(error)),
            Err(elapsed) => return Err(elapsed),
        }
        let _permit = handshakes.acquire().await;
        timeout(TLS_TIMEOUT, acceptor.accept(stream)).await
    };
    let what = match shutdown.run_until_cancelled(handshake).await? {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "timeout".to_owned(),
    };
    if let Some(suppressed) = LIMIT.admit() {
        warn!(address, suppressed, "TLS handshake failed: {what}");
    }
    None
}
