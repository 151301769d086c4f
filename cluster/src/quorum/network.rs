//! openraft's network over a [`Transport`], and what the leader learns of its followers from their answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, RaftNetwork, RaftNetworkFactory};
use serde::{Deserialize, Serialize};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::frame;
use super::limits;
use super::raft::{LogId, Metrics, SnapshotMeta, Types, Vote};
use super::store::LogStore;
use super::transport::{NodeId, Transport, TransportError};
use super::wire::{self, Kind};

/// The head of [`Kind::Append`]; the entries are its body.
#[derive(Serialize, Deserialize)]
pub(super) struct AppendHead {
    pub(super) vote: Vote,
    pub(super) prev: Option<LogId>,
    pub(super) commit: Option<LogId>,
    /// No majority has answered the leader for the longest election timeout.
    #[serde(default)]
    pub(super) deaf: bool,
}

/// The head of [`Kind::Snapshot`]; the piece is its body.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) offset: u64,
    pub(super) done: bool,
}

/// When a follower last answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) answered: Instant,
    pub(super) caught_up: Option<Instant>,
}

/// The other nodes. Clones share it.
#[derive(Clone)]
pub(super) struct Peers {
    pub(super) transport: Arc<dyn Transport>,
    log: LogStore,
    heard: Arc<Mutex<BTreeMap<NodeId, Heard>>>,
    patience: Duration,
    /// This node's term as a leader, and since when.
    leads: Arc<Mutex<Option<(u64, Instant)>>>,
    /// openraft's metrics, once it runs.
    pub(super) metrics: Arc<OnceLock<Receiver<Metrics>>>,
}

impl Peers {
    /// `patience`: a leader whom no majority has answered for so long is deaf.
    pub(super) fn new(transport: Arc<dyn Transport>, log: LogStore, patience: Duration) -> Peers {
        let (heard, leads, metrics) = Default::default();
        Peers { transport, log, heard, patience, leads, metrics }
    }

    /// The same nodes, for another run.
    pub(super) fn begin_run(&self) -> Peers {
        Peers { leads: Arc::default(), metrics: Arc::default(), ..self.clone() }
    }

    /// Whether this node, the leader of `term`, sends without being heard.
    fn is_deaf(&self, term: u64) -> bool {
        let since = {
            let mut leads = self.leads.lock().unwrap_or_else(PoisonError::into_inner);
            leads.filter(|(led, _)| *led == term).unwrap_or_else(|| *leads.insert((term, Instant::now()))).1
        };
        let acknowledged = self.metrics.get().and_then(|metrics| metrics.borrow().millis_since_quorum_ack);
        acknowledged.map_or(since.elapsed(), Duration::from_millis) > self.patience
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, BTreeMap<NodeId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _node: &BasicNode) -> Peer {
        Peer { target, peers: self.clone(), large: None }
    }
}

/// One of the other nodes.
pub(super) struct Peer {
    target: NodeId,
    peers: Peers,
    /// A large append that is on its way, and from where to where it reaches.
    large: Option<(Span, Carried)>,
}

type Span = (Vote, Option<LogId>, Option<LogId>);
type Carried = AbortOnDropHandle<Result<Bytes, TransportError>>;

type RpcError<E> = RPCError<NodeId, BasicNode, RaftError<NodeId, E>>;

impl Peer {
    async fn call<Q, A, E>(&self, kind: Kind, head: &Q, body: &[u8], timeout: Duration) -> Result<A, RpcError<E>>
    where
        Q: Serialize + Sync,
        A: serde::de::DeserializeOwned,
        E: std::error::Error + serde::de::DeserializeOwned,
    {
        let network = |what| RPCError::Network(NetworkError::new(&TransportError { unreachable: false, what }));
        let request = wire::request(kind, head, body).map_err(network)?;
        Self::read(self.target, self.peers.transport.call(self.target, request, timeout).await)
    }

    /// openraft waits for an append as long as for a heartbeat and then sends it again. What takes longer on a slow line
    /// would never be answered in time, so it goes on behind openraft's back, and the next attempt waits for its answer.
    async fn call_large<A, E>(&mut self, span: Span, head: &AppendHead, body: &[u8]) -> Result<A, RpcError<E>>
    where
        A: serde::de::DeserializeOwned,
        E: std::error::Error + serde::de::DeserializeOwned,
    {
        let network = |what| RPCError::Network(NetworkError::new(&TransportError { unreachable: false, what }));
        if self.large.as_ref().is_none_or(|(on_its_way, _)| *on_its_way != span) {
            let request = wire::request(Kind::Append, head, body).map_err(network)?;
            let (transport, target) = (Arc::clone(&self.peers.transport), self.target);
            let carry = async move { transport.call(target, request, limits::LARGE_APPEND_TIMEOUT).await };
            self.large = Some((span, AbortOnDropHandle::new(tokio::spawn(carry))));
        }
        let Some((_, carried)) = &mut self.large else { return Err(network("nothing was sent".to_owned())) };
        let answer = carried.await;
        self.large = None;
        Self::read(self.target, answer.map_err(|error| network(error.to_string()))?)
    }

    #[expect(clippy::result_large_err, reason = "the error is openraft's")]
    fn read<A, E>(target: NodeId, answer: Result<Bytes, TransportError>) -> Result<A, RpcError<E>>
    where
        A: serde::de::DeserializeOwned,
        E: std::error::Error + serde::de::DeserializeOwned,
    {
        let network = |what| RPCError::Network(NetworkError::new(&TransportError { unreachable: false, what }));
        let answer = answer.map_err(|error| {
            if error.unreachable {
                RPCError::Unreachable(Unreachable::new(&error))
            } else {
                RPCError::Network(NetworkError::new(&error))
            }
        })?;
        match wire::open_answer::<Result<A, RaftError<NodeId, E>>>(&answer).map_err(network)? {
            Ok(answer) => Ok(answer),
            // A node that has stopped is as good as out of reach.
            Err(RaftError::Fatal(fatal)) => Err(RPCError::Unreachable(Unreachable::new(&fatal))),
            Err(error) => Err(RPCError::RemoteError(RemoteError::new(target, error))),
        }
    }

    /// Notes an answer to what was sent at `sent`; `whole`: the follower then had all of the log.
    fn heard(&self, sent: Instant, whole: bool) {
        let mut heard = self.peers.heard();
        let before = heard.get(&self.target).and_then(|heard| heard.caught_up);
        let caught_up = if whole { Some(sent) } else { before };
        heard.insert(self.target, Heard { answered: Instant::now(), caught_up });
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        let deaf = self.peers.is_deaf(rpc.vote.leader_id.term);
        let head = AppendHead { vote: rpc.vote, prev: rpc.prev_log_id, commit: rpc.leader_commit, deaf };
        let mut body = Vec::with_capacity(rpc.entries.iter().map(frame::size).sum());
        let put = rpc.entries.iter().try_for_each(|entry| frame::put_entry(&mut body, entry));
        put.map_err(|what| NetworkError::new(&TransportError { unreachable: false, what }))?;
        let upto = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let (sent, end) = (Instant::now(), self.peers.log.memory().last());
        let answer = if body.len() > limits::MAX_APPEND {
            self.call_large((rpc.vote, rpc.prev_log_id, upto), &head, &body).await?
        } else {
            self.call(Kind::Append, &head, &body, option.hard_ttl()).await?
        };
        self.heard(sent, matches!(answer, AppendEntriesResponse::Success) && upto >= end);
        Ok(answer)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId, InstallSnapshotError>>>
    {
        let head = SnapshotHead { vote: rpc.vote, meta: rpc.meta, offset: rpc.offset, done: rpc.done };
        let sent = Instant::now();
        let answer = self.call(Kind::Snapshot, &head, &rpc.data, option.hard_ttl()).await?;
        self.heard(sent, false);
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        self.call(Kind::Vote, &rpc, &[], option.hard_ttl()).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(limits::UNREACHABLE_PAUSE))
    }
}
