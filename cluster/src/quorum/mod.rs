//! The controller quorum: an opaque state machine that openraft keeps the same on every node.
//!
//! A [`Quorum`] is one node's part. Bytes go between nodes over a [`Transport`], which gives what arrives to
//! [`Quorum::serve`]. What is proposed on the leader is in the journal of a majority, synced, before any machine sees it.
//!
//! openraft logs under the target `openraft`, much of it at `info` and each failed message at `error`: a program should
//! keep that target off. What its user should know is logged here, and told by [`Quorum::failure`].

mod disk;
mod election;
mod errors;
mod frame;
pub mod limits;
mod machine;
mod members;
mod network;
mod open;
mod options;
mod raft;
mod running;
mod serve;
mod state_machine;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod transport;
mod watch;
mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use disk::Disk;
pub use errors::{ConfirmError, MemberError, ProposeError, QuorumError};
pub use machine::Machine;
pub use options::{Options, Timings};
pub use status::{Follower, Leadership, Status};
pub use transport::{Answer, NodeId, Transport, TransportError};

/// One node's part of the quorum. Clones share it; it stops when it is shut down or the last clone is dropped.
#[derive(Clone)]
pub struct Quorum {
    inner: Arc<Inner>,
    leadership: Receiver<Leadership>,
    failure: Receiver<Option<QuorumError>>,
    _tasks: Arc<Tasks>,
}

struct Inner {
    options: Options,
    log: store::LogStore,
    machine: state_machine::StateMachine,
    running: ArcSwap<running::Running>,
    election: election::Election,
    /// No other run is begun.
    closing: CancellationToken,
}

/// What runs beside openraft's own tasks. Ends them all when it goes.
struct Tasks {
    inner: Arc<Inner>,
    _watch: AbortOnDropHandle<()>,
    _elections: AbortOnDropHandle<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.inner.closing.cancel();
        let raft = self.inner.raft();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { raft.shutdown().await });
        }
    }
}

impl Inner {
    fn raft(&self) -> raft::Raft {
        self.running.load().raft.clone()
    }

    fn has_stopped(&self) -> bool {
        self.closing.is_cancelled() || self.running.load().has_stopped()
    }
}

impl Quorum {
    /// Has `entry` committed and returns its index when it is applied to this node's machine.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Unknown` leaves open whether it is applied.
    pub async fn propose(&self, entry: Bytes) -> Result<u64, ProposeError> {
        let (size, most) = (entry.len(), limits::MAX_ENTRY);
        if size > most {
            return Err(ProposeError::TooLarge { size, most });
        }
        if self.inner.has_stopped() {
            return Err(ProposeError::Closed);
        }
        let raft = self.inner.raft();
        let written = raft.client_write(raft::Payload(entry));
        match tokio::time::timeout(self.inner.options.timings.proposal, written).await {
            Ok(Ok(written)) => Ok(written.log_id.index),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id })
            }
            Ok(Err(error)) => Err(ProposeError::Unknown(error.to_string())),
            Err(_) => Err(ProposeError::Unknown("a majority has not answered in time".to_owned())),
        }
    }

    /// Who leads, and when that changes.
    #[must_use]
    pub fn leadership(&self) -> Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Why the quorum has stopped on this node, without having been told to, while it has. After a fault of the disk it goes on
    /// when the disk is well again; after an entry that this release cannot read it does not.
    #[must_use]
    pub fn failure(&self) -> Receiver<Option<QuorumError>> {
        self.failure.clone()
    }

    /// Asks a majority whether this node still leads. Everything that was committed before the call is then applied here,
    /// up to the index returned at least.
    ///
    /// # Errors
    /// See [`ConfirmError`].
    pub async fn confirm_leader(&self) -> Result<u64, ConfirmError> {
        if self.inner.has_stopped() {
            return Err(ConfirmError::Closed);
        }
        let raft = self.inner.raft();
        let confirmed = raft.ensure_linearizable();
        match tokio::time::timeout(self.inner.options.timings.proposal, confirmed).await {
            Ok(Ok(log_id)) => Ok(log_id.map_or(0, |log_id| log_id.index)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(ConfirmError::NotLeader { leader: to.leader_id })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ConfirmError::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(_))) => Err(ConfirmError::Closed),
        }
    }

    /// A hint: the connection to the leader has ended, so it is probably gone. Unless it is heard from again, or a
    /// majority does not agree, there is an election as soon as its lease is over instead of after the election timeout.
    pub fn elect_now(&self) {
        self.inner.election.leader_gone();
    }

    /// Asks for a snapshot of what is applied, which is there at once after a restart. One that is being made may be of less.
    pub async fn snapshot(&self) {
        let _ = self.inner.raft().trigger().snapshot().await;
    }

    /// What this node knows of the quorum.
    #[must_use]
    pub fn status(&self) -> Status {
        let leadership = self.inner.leadership();
        let (last_log, committed) = {
            let memory = self.inner.log.memory();
            (memory.last(), memory.committed)
        };
        let running = self.inner.running.load_full();
        let metrics = running.metrics.borrow().clone();
        let members = metrics.membership_config.membership();
        let mut status = Status {
            node: self.inner.options.node,
            term: leadership.term,
            leader: leadership.leader,
            last_log: last_log.map(|id| id.index),
            committed: committed.max(metrics.last_applied).map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            ..Status::default()
        };
        for (&id, node) in members.nodes() {
            let votes = members.voter_ids().any(|voter| voter == id);
            let role = if votes { &mut status.voters } else { &mut status.learners };
            role.insert(id, node.addr.clone());
        }
        let heard = running.peers.heard();
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
        status.followers = others
            .map(|(id, matched)| {
                let heard = heard.get(id);
                let answered = heard.map(|heard| heard.answered.elapsed());
                let caught_up = heard.and_then(|heard| heard.caught_up).map(|at| at.elapsed());
                (*id, Follower { matched: matched.map(|id| id.index), answered, caught_up })
            })
            .collect();
        status
    }

    /// Stops. What is being proposed may be committed or not.
    pub async fn shutdown(&self) {
        self.inner.closing.cancel();
        let _ = self.inner.raft().shutdown().await;
    }
}
