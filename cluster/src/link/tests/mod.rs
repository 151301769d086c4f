//! Tests over real sockets of this machine.

mod fuzz;
mod handshake;
mod liveness;
mod order;
mod raw;
mod requests;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;

const CLUSTER: &str = "the-cluster";
const SERVER: NodeId = 1;
const CLIENT: NodeId = 2;
/// Long enough for whatever should happen.
const LONG: Duration = Duration::from_secs(30);

/// Answers what it was sent.
const ECHO: u16 = 1;
/// As echo, when the service's gate lets it.
const GATED: u16 = 2;
/// Begins in order, answers when the gate lets it.
const ORDERED: u16 = 3;
/// Answers as many bytes as it is told.
const BIG: u16 = 4;
/// Answers an error.
const FAILS: u16 = 5;
/// Panics.
const PANICS: u16 = 6;
/// Only the client knows it.
const NEWER: u16 = 7;

fn kinds() -> Kinds {
    Kinds::new([ECHO, GATED, ORDERED, BIG, FAILS, PANICS].map(|kind| (kind, 0, 3)))
}

fn identity(node: NodeId) -> Identity {
    let directory = Uuid::from_u128(node as u128);
    Identity { cluster_id: CLUSTER.to_owned(), node, incarnation: 70, directory }
}

fn quick() -> Options {
    Options {
        ping_interval: Duration::from_millis(100),
        dead_after: Duration::from_secs(1),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        ..Options::default()
    }
}

#[derive(Default)]
struct Recorder {
    /// First bytes of the bodies, in the order in which requests were begun.
    begun: Mutex<Vec<u32>>,
    one_way: AtomicUsize,
    /// Bytes of requests that are handled now, and the most at any time.
    busy: AtomicUsize,
    busiest: AtomicUsize,
    gate: Gate,
}

struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Gate {
        Gate(Semaphore::new(0))
    }
}

impl Recorder {
    fn open(&self) {
        self.gate.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn begun(&self) -> Vec<u32> {
        self.begun.lock().unwrap().clone()
    }

    async fn wait_begun(&self, count: usize) {
        eventually("requests begun", || self.begun().len() >= count).await;
    }
}

struct TestService(Arc<Recorder>);

impl Service for TestService {
    fn begin(&self, _: &Arc<Peer>, request: Request) -> Begun {
        let recorder = self.0.clone();
        let number = request.body.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
        let bytes = request.body.len();
        if request.one_way {
            recorder.one_way.fetch_add(1, Ordering::SeqCst);
        }
        let begin = move || {
            recorder.begun.lock().unwrap().push(number);
            let busy = recorder.busy.fetch_add(bytes, Ordering::SeqCst) + bytes;
            recorder.busiest.fetch_max(busy, Ordering::SeqCst);
            recorder
        };
        let echo = Body::from(request.body);
        match request.kind {
            GATED => {
                let recorder = begin();
                Begun::beside(async move {
                    recorder.gate.0.acquire().await.unwrap().forget();
                    recorder.busy.fetch_sub(bytes, Ordering::SeqCst);
                    Ok(echo)
                })
            }
            ORDERED => Begun::in_order(async move {
                // The earlier, the slower to begin: only order keeps them in order. Longer ones take long themselves.
                let micros = u64::from(200 - number.min(200)) + (bytes as u64 - 4) * 1000;
                tokio::time::sleep(Duration::from_micros(micros)).await;
                let recorder = begin();
                Rest::new(async move {
                    recorder.gate.0.acquire().await.unwrap().forget();
                    Ok(echo)
                })
            }),
            BIG => Begun::beside(async move {
                let chunk = Bytes::from(vec![7; 1 << 20]);
                let parts = (0..number as usize).step_by(1 << 20).map(|at| (number as usize - at).min(1 << 20));
                Ok(Body::new(Bytes::new(), parts.map(|length| chunk.slice(..length)).collect()))
            }),
            FAILS => Begun::beside(async { Err(ServiceError::new(42, "not today")) }),
            PANICS => Begun::beside(async { panic!("a service that breaks off, on purpose") }),
            _ => Begun::beside(async move { Ok(echo) }),
        }
    }
}

fn everybody() -> Arc<dyn Admission> {
    Arc::new(|_: &Identity| Ok(()))
}

/// A server that runs until it is dropped.
struct Running {
    address: SocketAddr,
    local: Arc<Local>,
    recorder: Arc<Recorder>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type ServerTls = Option<Arc<ArcSwap<rustls::ServerConfig>>>;
type ClientTls = Option<Arc<ArcSwap<rustls::ClientConfig>>>;

impl Running {
    async fn start(options: Options) -> Running {
        Running::with(Local::new(identity(SERVER), kinds()), everybody(), options, None, "127.0.0.1:0").await
    }

    async fn with(
        local: Arc<Local>,
        admission: Arc<dyn Admission>,
        options: Options,
        tls: ServerTls,
        address: &str,
    ) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let recorder = Arc::new(Recorder::default());
        let service = Arc::new(TestService(recorder.clone()));
        let server = Server { local: local.clone(), tls, service, admission, options };
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(server.serve(listener, shutdown.clone()));
        Running { address, local, recorder, shutdown, task }
    }
}

fn links_of(local: Arc<Local>, options: Options, tls: ClientTls, address: SocketAddr) -> Links {
    let links = Links::new(local, tls, everybody(), options);
    links.set_peer(SERVER, &address.to_string());
    links
}

fn links_to(address: SocketAddr, options: Options) -> Links {
    links_of(Local::new(identity(CLIENT), kinds()), options, None, address)
}

fn numbered(number: u32, length: usize) -> Body {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(length.max(4), number as u8);
    Body::from(Bytes::from(body))
}

async fn echo(links: &Links, lane: Lane, text: &'static str) -> Result<Bytes, LinkError> {
    links.request(SERVER, lane, ECHO, 0, Body::from(Bytes::from_static(text.as_bytes())), LONG).await
}

async fn wait_for(state: &mut watch::Receiver<PeerState>, what: impl Fn(&PeerState) -> bool) -> PeerState {
    let found = timeout(LONG, state.wait_for(|state| what(state))).await;
    found.expect("the state never came").expect("no longer a peer").clone()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let holds = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, holds).await.unwrap_or_else(|_| panic!("never: {what}"));
}
