//! Tells the controller that this node is there, and which nodes are not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_log::cluster::controller::{HeartbeatReply, Register};
use forebay_log::cluster::{Refusal, Reply, Request};
use forebay_log::limits::{HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS};
use forebay_log::{Incarnation, MetadataVersion, NodeId};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Inner;
use super::identity::Identity;
use crate::controller::AskError;
use crate::link::{PeerState, Reports};

/// How long the controller waits for a node that says nothing.
const SESSION: Duration = Duration::from_millis(SESSION_TIMEOUT_MS.unsigned_abs());
const INTERVAL: Duration = Duration::from_millis(HEARTBEAT_INTERVAL_MS.unsigned_abs());
/// How long one heartbeat or registration looks for the controller.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first pause of a node that is not active.
const AGAIN: Duration = Duration::from_millis(20);

/// What this node is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It has registered with its current incarnation.
    pub registered: bool,
    /// It may lead and be in sync.
    pub active: bool,
    /// It wanted to end, and may.
    pub may_shut_down: bool,
    /// Until when the controller gives what this node leads to nobody else without having told it. Moved on without a word to
    /// those who watch.
    pub lease: Option<Instant>,
}

impl Standing {
    /// Whether what this node leads has no other leader yet for certain: one that was stopped for a while may have been succeeded
    /// without having heard of it.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.lease.is_some_and(|until| Instant::now() < until)
    }
}

/// Registers, then says that this node is there, until it ends. Also ends when the cluster knows of a later process of this node.
pub(super) async fn run(
    inner: Arc<Inner>,
    register: Register,
    applied: watch::Receiver<u64>,
    standing: watch::Sender<Standing>,
) {
    let reports = Reports::default();
    let (mut applied_news, mut pause) = (applied.clone(), AGAIN);
    loop {
        let now = *standing.borrow();
        let done = if now.registered {
            beat(&inner, &applied, &standing).await
        } else {
            let cluster = inner.metadata.borrow().image.cluster();
            let request = Request::Register(Register { cluster, ..register.clone() });
            inner.ask(request, PATIENCE).await.map(|_| {
                info!(node = inner.node.0, incarnation = register.incarnation.0, "registered with the controller");
                standing.send_modify(|standing| standing.registered = true);
            })
        };
        if let Err(AskError::Refused(Refusal::StaleIncarnation { known, .. })) = &done
            && !now.registered
        {
            // What other nodes hold of that one must not be taken for this one's.
            return count_on(&inner, *known).await;
        }
        match done {
            Ok(()) => {}
            Err(AskError::Refused(Refusal::NotRegistered { .. })) => {
                standing.send_modify(|standing| *standing = Standing::default());
            }
            Err(error) => {
                if let Some(suppressed) = reports.admit(&error.to_string()) {
                    if matches!(error, AskError::Refused(_)) {
                        error!(%error, suppressed, "the controller does not take this node");
                    } else {
                        warn!(%error, suppressed, "this node is not known to be there");
                    }
                }
            }
        }
        // A node that is not active yet tells at once that it has caught up further; without news it asks less and less often.
        if standing.borrow().active {
            tokio::time::sleep(INTERVAL).await;
            pause = AGAIN;
            continue;
        }
        tokio::time::sleep(AGAIN).await;
        let news = tokio::time::timeout(pause.saturating_sub(AGAIN), applied_news.changed()).await;
        pause = if matches!(news, Ok(Ok(()))) { AGAIN } else { (pause * 2).min(INTERVAL) };
    }
}

/// This process cannot take part; its next one can.
async fn count_on(inner: &Inner, known: Incarnation) {
    let kept = Arc::clone(&inner.kept);
    let later = move |own: &mut Identity| own.incarnation = own.incarnation.max(known);
    let counted = tokio::task::spawn_blocking(move || kept.change(later)).await;
    let text = "the cluster knows of a later process of this node than its data directory does: it was put back from a backup, or \
                two nodes have this id. Make sure of one, then start it again";
    match counted.unwrap_or_else(|error| Err(error.into())) {
        Ok(()) => error!(node = inner.node.0, %known, "{text}"),
        Err(cause) => error!(node = inner.node.0, %known, %cause, "{text}; and what to go on from cannot be noted"),
    }
}

async fn beat(
    inner: &Inner,
    applied: &watch::Receiver<u64>,
    standing: &watch::Sender<Standing>,
) -> Result<(), AskError> {
    let (id, incarnation) = (inner.node, inner.incarnation);
    let applied = MetadataVersion(*applied.borrow());
    let wants_shutdown = *inner.stopping.borrow();
    if wants_shutdown {
        // Whatever the answer is, or if it is lost.
        quietly(standing, |standing| standing.lease = None);
    }
    let asked = Instant::now();
    let request = Request::Heartbeat { id, incarnation, applied, full: inner.log.disk_full(), wants_shutdown };
    let reply = inner.ask(request, PATIENCE).await?;
    if let Reply::Heartbeat(HeartbeatReply { fenced, stopping, may_shut_down }) = reply {
        let active = !fenced && !stopping;
        quietly(standing, |standing| standing.lease = active.then_some(asked + SESSION));
        standing.send_if_modified(|standing| {
            let now = Standing { registered: true, active, may_shut_down, lease: standing.lease };
            let changed = *standing != now;
            *standing = now;
            changed
        });
    }
    Ok(())
}

fn quietly(standing: &watch::Sender<Standing>, change: impl FnOnce(&mut Standing)) {
    standing.send_if_modified(|standing| {
        change(standing);
        false
    });
}

/// Follows the nodes of the cluster: dials them, and tells the controller at once when one's process is gone.
pub(super) async fn watch_peers(inner: Arc<Inner>) {
    let mut metadata = inner.metadata.clone();
    let mut watched: BTreeMap<NodeId, tokio_util::task::AbortOnDropHandle<()>> = BTreeMap::new();
    loop {
        {
            let image = metadata.borrow_and_update().image.clone();
            for (id, node) in image.nodes().filter(|(id, _)| *id != inner.node) {
                if let Some(address) = node.address("cluster") {
                    inner.links.set_peer(id.0, address);
                    watched.entry(id).or_insert_with(|| {
                        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(watch_peer(Arc::clone(&inner), id)))
                    });
                }
            }
            if image.cluster().is_some() {
                let gone: Vec<NodeId> = watched.keys().copied().filter(|id| image.node(*id).is_none()).collect();
                for id in gone {
                    watched.remove(&id);
                    inner.links.remove_peer(id.0);
                }
            }
        }
        if metadata.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_peer(inner: Arc<Inner>, id: NodeId) {
    let Some(mut state) = inner.links.watch(id.0) else { return };
    let mut last_up = None;
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            PeerState::Up { incarnation } => last_up = Some(Incarnation(incarnation)),
            PeerState::Down { refused: true, .. } => {
                if let Some(incarnation) = last_up.take() {
                    let leads = inner.quorum.leadership().borrow().leader;
                    if leads.and_then(|leader| i32::try_from(leader).ok()) == Some(id.0) {
                        inner.quorum.elect_now();
                    }
                    let suspect = Request::Suspect { id, incarnation, by: inner.node };
                    // If nobody takes it, the node's session ends all the same.
                    let _ = inner.ask(suspect, SESSION).await;
                }
            }
            PeerState::Down { .. } | PeerState::Connecting => {}
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
