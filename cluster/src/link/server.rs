//! Accepts links of other nodes until shutdown.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::budget::Budget;
use super::greet::greet;
use super::identity::{Admission, Local};
use super::limits::{ACCEPT_RETRY, Options};
use super::service::Service;
use super::serving::Serving;

/// The side that answers.
pub struct Server {
    pub local: Arc<Local>,
    /// With TLS, whatever it holds when a connection comes in decides; it should ask for the client's certificate.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    pub service: Arc<dyn Service>,
    /// Asked of each node that wants a link.
    pub admission: Arc<dyn Admission>,
    pub options: Options,
}

/// What connections are spawned with.
struct Door {
    server: Arc<Server>,
    budget: Arc<Budget>,
    handshakes: Arc<Semaphore>,
    shutdown: CancellationToken,
    /// Ends what has not drained in time.
    end: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    /// Serves until `shutdown`; then says goodbye on all links and waits, at most the drain timeout, for answers under
    /// way.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(self.options.connections.max(1)));
        let drain = self.options.drain_timeout;
        let door = Arc::new(Door {
            budget: Arc::new(Budget::new(&self.options)),
            handshakes: Arc::new(Semaphore::new(self.options.handshakes.max(1))),
            server: Arc::new(self),
            shutdown: shutdown.clone(),
            end: CancellationToken::new(),
            tracker: TaskTracker::new(),
        });
        loop {
            let accepted = async {
                let permit = connections.clone().acquire_owned().await;
                (listener.accept().await, permit)
            };
            let Some((accepted, permit)) = shutdown.run_until_cancelled(accepted).await else { break };
            match accepted {
                Ok((stream, address)) => {
                    let connection = door.clone().connection(stream, address, permit.ok());
                    let end = door.end.clone();
                    door.tracker.spawn(async move { end.run_until_cancelled(Box::pin(connection)).await });
                }
                Err(error) => {
                    if let Some(suppressed) = door.server.local.reports.admit(&error.to_string()) {
                        warn!(%error, suppressed, "cannot accept links of other nodes");
                    }
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
        // Who dials now is to see at once that nobody listens.
        drop(listener);
        door.tracker.close();
        if timeout(drain, door.tracker.wait()).await.is_err() {
            door.end.cancel();
        }
    }
}

impl Door {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        _permit: Option<OwnedSemaphorePermit>,
    ) {
        let greeted = async {
            let _handshake = self.handshakes.acquire().await;
            greet(&self.server, stream, address).await
        };
        let Some(Some(greeted)) = self.shutdown.run_until_cancelled(greeted).await else { return };
        let serving = Serving::new(self.server.clone(), &self.budget, greeted.peer, self.tracker.clone());
        serving.run(greeted.reader, greeted.writer, self.shutdown.clone()).await;
    }
}
