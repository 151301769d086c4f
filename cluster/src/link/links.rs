//! The links of this node to others: one for each peer and lane, made when needed and made again when lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::body::Body;
use super::dial::Dialler;
use super::error::LinkError;
use super::identity::{Admission, Lane, Local, NodeId, still_fits};
use super::limits::Options;
use super::line::{Keeper, Line};
use super::live::{Link, deadline};
use super::state::PeerState;

/// Requests to other nodes. Dropping it closes all links.
pub struct Links {
    dialler: Arc<Dialler>,
    peers: Mutex<BTreeMap<NodeId, Entry>>,
}

struct Entry {
    address: watch::Sender<String>,
    state: watch::Receiver<PeerState>,
    lines: [Line; Lane::ALL.len()],
    _stop: DropGuard,
}

impl Links {
    /// No peers yet. With `tls`, whatever it holds when a connection is made decides which certificate is shown and
    /// which ones are believed; a peer's must be for the host of its address. `admission` is asked of each node that is
    /// connected to.
    pub fn new(
        local: Arc<Local>,
        tls: Option<Arc<ArcSwap<rustls::ClientConfig>>>,
        admission: Arc<dyn Admission>,
        options: Options,
    ) -> Links {
        Links { dialler: Arc::new(Dialler { local, tls, admission, options }), peers: Mutex::default() }
    }

    /// This node, as it presents itself.
    pub fn local(&self) -> &Arc<Local> {
        &self.dialler.local
    }

    /// A peer and its address (`host:port`), new or changed. Its control link is dialled at once. Call it inside a
    /// tokio runtime.
    pub fn set_peer(&self, node: NodeId, address: &str) {
        self.peers(|peers| match peers.get(&node) {
            Some(entry) => {
                entry.address.send_if_modified(|current| {
                    let changed = current != address;
                    address.clone_into(current);
                    changed
                });
            }
            None => {
                peers.insert(node, self.start(node, address));
            }
        });
    }

    fn start(&self, node: NodeId, address: &str) -> Entry {
        let stop = CancellationToken::new();
        let (address, addressed) = watch::channel(address.to_owned());
        let (state, watched) = watch::channel(PeerState::Connecting);
        let mut state = Some(state);
        let lines = Lane::ALL.map(|lane| {
            let keeper = Keeper {
                dialler: self.dialler.clone(),
                node,
                lane,
                address: addressed.clone(),
                state: if lane == Lane::Control { state.take() } else { None },
                stop: stop.clone(),
            };
            keeper.start()
        });
        Entry { address, state: watched, lines, _stop: stop.drop_guard() }
    }

    /// Closes the links to a peer; who watches it sees its channel close.
    pub fn remove_peer(&self, node: NodeId) {
        self.peers(|peers| peers.remove(&node));
    }

    /// The peers and their addresses.
    pub fn addresses(&self) -> Vec<(NodeId, String)> {
        self.peers(|peers| peers.iter().map(|(node, entry)| (*node, entry.address.borrow().clone())).collect())
    }

    /// Whether a peer is there, now and from now on; `None` when it is no peer.
    pub fn watch(&self, node: NodeId) -> Option<watch::Receiver<PeerState>> {
        self.peers(|peers| peers.get(&node).map(|entry| entry.state.clone()))
    }

    /// The link that is up, waiting for it if need be. For who sends several requests that must arrive in order.
    ///
    /// # Errors
    /// [`LinkError::NotSent`] when there is none in time.
    pub async fn link(&self, node: NodeId, lane: Lane, timeout: Duration) -> Result<Link, LinkError> {
        self.fitting(&self.line(node, lane)?, deadline(timeout)).await
    }

    /// The link that is up, unless the node at its end has turned out to be none of the cluster's: then it is dialled again, and
    /// refused.
    async fn fitting(&self, line: &Line, deadline: Instant) -> Result<Link, LinkError> {
        let Dialler { local, admission, .. } = self.dialler.as_ref();
        loop {
            let link = line.link(deadline).await?;
            match still_fits(local, admission.as_ref(), &link.peer().identity) {
                Ok(()) => return Ok(link),
                Err(refusal) => link.end(&refusal.text, true),
            }
        }
    }

    /// Sends a request, waiting for a link if need be, and waits for the answer, `timeout` in all.
    ///
    /// # Errors
    /// As the variants of [`LinkError`] say. A request that was surely not sent when its link broke is sent on the next
    /// one.
    pub async fn request(
        &self,
        node: NodeId,
        lane: Lane,
        kind: u16,
        version: u16,
        body: Body,
        timeout: Duration,
    ) -> Result<Bytes, LinkError> {
        let encode = move |_: &Link| Ok((version, body.clone()));
        Box::pin(self.exchange(node, lane, kind, encode, timeout)).await.map(|(_, answer)| answer)
    }

    /// As [`Links::request`], in the newest version that both nodes speak: `encode` makes the body for it. Returns that
    /// version, in which the answer is, too.
    ///
    /// # Errors
    /// As [`Links::request`].
    pub async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        kind: u16,
        encode: impl Fn(u16) -> Body + Send,
        timeout: Duration,
    ) -> Result<(u16, Bytes), LinkError> {
        let encode = move |link: &Link| link.common(kind).map(|version| (version, encode(version)));
        Box::pin(self.exchange(node, lane, kind, encode, timeout)).await
    }

    /// Sends a request that nobody answers, in the newest version that both nodes speak. It may be lost with the link.
    ///
    /// # Errors
    /// [`LinkError::NotSent`], [`LinkError::Unsupported`] or [`LinkError::TooLarge`].
    pub async fn send(
        &self,
        node: NodeId,
        lane: Lane,
        kind: u16,
        encode: impl Fn(u16) -> Body + Send,
        timeout: Duration,
    ) -> Result<(), LinkError> {
        let deadline = deadline(timeout);
        let link = self.fitting(&self.line(node, lane)?, deadline).await?;
        let version = link.common(kind)?;
        link.send_by(kind, version, encode(version), deadline).await
    }

    async fn exchange(
        &self,
        node: NodeId,
        lane: Lane,
        kind: u16,
        encode: impl Fn(&Link) -> Result<(u16, Body), LinkError> + Send,
        timeout: Duration,
    ) -> Result<(u16, Bytes), LinkError> {
        let (line, deadline) = (self.line(node, lane)?, deadline(timeout));
        loop {
            let link = self.fitting(&line, deadline).await?;
            let (version, body) = encode(&link)?;
            let answer = match link.submit_by(kind, version, body, deadline).await {
                Ok(pending) => pending.answer().await,
                Err(error) => Err(error),
            };
            match answer {
                Err(error) if error.is_safe_to_repeat() && link.is_ended() && Instant::now() < deadline => {}
                answer => return answer.map(|answer| (version, answer)),
            }
        }
    }

    fn line(&self, node: NodeId, lane: Lane) -> Result<Line, LinkError> {
        let line = self.peers(|peers| peers.get(&node).map(|entry| entry.lines[lane as usize].clone()));
        line.ok_or_else(|| LinkError::NotSent(format!("node {node} is no peer")))
    }

    fn peers<T>(&self, f: impl FnOnce(&mut BTreeMap<NodeId, Entry>) -> T) -> T {
        f(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
