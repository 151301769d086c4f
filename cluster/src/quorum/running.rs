//! One run of openraft over what is stored. The first error of the disk ends it; another run can take its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, ServerState};
use tokio::sync::watch::Receiver;

use super::errors::QuorumError;
use super::network::Peers;
use super::options::Options;
use super::raft::{Metrics, Raft};
use super::state_machine::StateMachine;
use super::store::LogStore;

/// How long the only voter may take to have everything applied at its start.
const ALONE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Running {
    pub(super) raft: Raft,
    pub(super) metrics: Receiver<Metrics>,
    pub(super) peers: Peers,
}

impl Running {
    /// Starts openraft. `peers` and `machine` must be of no other run. The only voter leads and has applied everything when this
    /// returns.
    ///
    /// # Errors
    /// What is stored cannot be read or written, or the machine refuses it.
    pub(super) async fn start(
        options: &Options,
        log: LogStore,
        machine: StateMachine,
        peers: Peers,
    ) -> Result<Running, QuorumError> {
        let config = Arc::new(options.raft()?);
        let raft = Raft::new(options.node, config, peers.clone(), log, machine.clone()).await;
        let raft = raft.map_err(|error| QuorumError::Storage(error.to_string()))?;
        let metrics = raft.metrics();
        let _ = peers.metrics.set(metrics.clone());
        let running = Running { raft, metrics, peers };
        if let Err(error) = running.settle(options).await {
            let _ = running.raft.shutdown().await;
            let refused = machine.refused().map(|why| QuorumError::Storage(why.to_owned()));
            return Err(refused.unwrap_or(error));
        }
        Ok(running)
    }

    pub(super) fn has_stopped(&self) -> bool {
        // A task that panicked says nothing more.
        self.metrics.borrow().running_state.is_err() || self.metrics.has_changed().is_err()
    }

    /// Begins a new quorum where this is the first of its voters; others wait for that one for a while. The only voter
    /// needs no timeout to know that it leads.
    async fn settle(&self, options: &Options) -> Result<(), QuorumError> {
        let stopped = |error: &dyn std::fmt::Display| QuorumError::Stopped(error.to_string());
        let node = options.node;
        let initialized = self.raft.is_initialized().await.map_err(|error| stopped(&error))?;
        if !initialized && options.voters.keys().next() == Some(&node) {
            self.begin(options).await;
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
    pub(super) async fn begin(&self, options: &Options) {
        let nodes = options.voters.iter().map(|(id, address)| (*id, BasicNode::new(address)));
        if let Err(error) = self.raft.initialize(nodes.collect::<BTreeMap<_, _>>()).await {
            tracing::debug!(%error, "no new quorum is begun here");
        }
    }
}
