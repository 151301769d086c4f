//! Accepts links of other nodes until shutdown.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::budget::Budget;
use super::greet::{LINGER, greet};
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
    /// Connections of each address that are not links yet.
    unfinished: Mutex<BTreeMap<IpAddr, usize>>,
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
            unfinished: Mutex::default(),
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

/// A connection that is not a link yet, among those of its address. One address must not take all the handshakes' turns.
struct Knock {
    door: Arc<Door>,
    address: IpAddr,
}

impl Knock {
    fn admit(door: &Arc<Door>, address: IpAddr) -> Option<Knock> {
        let mut unfinished = door.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let count = unfinished.entry(address).or_insert(0);
        if *count >= door.server.options.handshakes_each.max(1) {
            return None;
        }
        *count += 1;
        Some(Knock { door: Arc::clone(door), address })
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut unfinished = self.door.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = unfinished.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                unfinished.remove(&self.address);
            }
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
        let Some(knock) = Knock::admit(&self, address.ip()) else { return };
        let greeted = async {
            let _handshake = self.handshakes.acquire().await;
            greet(&self.server, stream, address).await
        };
        // With the wait for a handshake's turn: who has taken the turns for as long has long been given up by then.
        let patience = self.server.options.handshake_timeout.saturating_mul(2) + LINGER;
        let greeted = timeout(patience, self.shutdown.run_until_cancelled(greeted)).await;
        drop(knock);
        let Ok(Some(Some(greeted))) = greeted else { return };
        let serving = Serving::new(self.server.clone(), &self.budget, greeted.peer, self.tracker.clone());
        serving.run(greeted.reader, greeted.writer, self.shutdown.clone()).await;
    }
}
