//! Opening a quorum: reads what is stored, starts openraft, and begins a new quorum where there is none.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, ServerState};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::disk::Disk;
use super::election::Election;
use super::errors::QuorumError;
use super::machine::Machine;
use super::network::Peers;
use super::options::Options;
use super::raft::Raft;
use super::state_machine::StateMachine;
use super::store::{LogStore, SnapshotFile, damage};
use super::transport::Transport;
use super::{Inner, Quorum, Tasks};

/// How long the only voter may take to have everything applied at its start.
const ALONE_TIMEOUT: Duration = Duration::from_secs(60);

impl Quorum {
    /// Opens this node's part of the quorum: restores `machine`, which must be empty, from the last snapshot, and starts.
    ///
    /// The only voter leads and has applied everything when this returns. Others become leader or follower later.
    ///
    /// # Errors
    /// When something stored is damaged or cannot be read, or the options contradict each other.
    pub async fn open(
        options: Options,
        disk: Disk,
        machine: Box<dyn Machine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Quorum, QuorumError> {
        let config = Arc::new(options.raft()?);
        let folder = options.folder.clone();
        let read = move || {
            let snapshot = SnapshotFile::new(disk.clone(), &folder);
            let log = LogStore::open(disk, &folder, snapshot.covered())?;
            let machine = StateMachine::open(machine, snapshot)?;
            if log.memory().purged > machine.last() {
                return Err(damage(&folder.join("snapshot"), "it is missing, or older than what was purged for it"));
            }
            Ok((log, machine))
        };
        let read: io::Result<_> = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.into()));
        let (log, machine) = read.map_err(|error| QuorumError::Storage(error.to_string()))?;
        let peers = Peers::new(transport, log.clone(), options.timings.election_max);
        let raft = Raft::new(options.node, config, peers.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| QuorumError::Storage(error.to_string()))?;
        let metrics = raft.metrics();
        let _ = peers.metrics.set(metrics.clone());
        let election = Election::default();
        let inner = Arc::new(Inner { options, raft, metrics, log, peers, election });
        inner.start().await?;
        let (leads, leadership) = watch::channel(inner.leadership());
        let (failed, failure) = watch::channel(None);
        let watch = tokio::spawn(Arc::clone(&inner).run_watch(leads, failed));
        let elections = tokio::spawn(Arc::clone(&inner).run_elections());
        let tasks = Tasks {
            raft: inner.raft.clone(),
            _watch: AbortOnDropHandle::new(watch),
            _elections: AbortOnDropHandle::new(elections),
        };
        Ok(Quorum { inner, leadership, failure, _tasks: Arc::new(tasks) })
    }
}

impl Inner {
    /// Begins a new quorum where this is the first of its voters; others wait for that one for a while. The only voter
    /// needs no timeout to know that it leads.
    async fn start(&self) -> Result<(), QuorumError> {
        let stopped = |error: &dyn std::fmt::Display| QuorumError::Stopped(error.to_string());
        let node = self.options.node;
        let initialized = self.raft.is_initialized().await.map_err(|error| stopped(&error))?;
        if !initialized && self.options.voters.keys().next() == Some(&node) {
            self.begin().await;
        }
        let voters = self
            .raft
            .with_raft_state(|state| state.membership_state.effective().membership().voter_ids().collect::<Vec<_>>());
        if voters.await.map_err(|error| stopped(&error))? != [node] {
            return Ok(());
        }
        if initialized {
            self.raft.trigger().elect().await.map_err(|error| stopped(&error))?;
        }
        let wait = self.raft.wait(Some(ALONE_TIMEOUT));
        let leads = wait.metrics(
            |metrics| {
                let applied = metrics.last_applied.map(|id| id.index);
                metrics.state == ServerState::Leader && applied.is_some() && applied == metrics.last_log_index
            },
            "the only voter leads",
        );
        leads.await.map(|_| ()).map_err(|error| stopped(&error))
    }

    /// Begins a new quorum of the configured voters. It changes nothing where one has begun already.
    pub(super) async fn begin(&self) {
        let nodes = self.options.voters.iter().map(|(id, address)| (*id, BasicNode::new(address)));
        if let Err(error) = self.raft.initialize(nodes.collect::<BTreeMap<_, _>>()).await {
            tracing::debug!(%error, "no new quorum is begun here");
        }
    }
}
