//! Opening a quorum: reads what is stored, and starts what runs on it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::disk::Disk;
use super::election::Election;
use super::errors::QuorumError;
use super::machine::Machine;
use super::network::Peers;
use super::options::Options;
use super::running::Running;
use super::state_machine::StateMachine;
use super::store::{self, LogStore, SnapshotFile, damage};
use super::transport::Transport;
use super::{Inner, Quorum, Tasks};

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
        let (folder, begun) = (options.folder.clone(), options.begun);
        let read = move || {
            let snapshot = SnapshotFile::new(disk.clone(), &folder);
            let log = LogStore::open(disk, &folder, begun, snapshot.covered())?;
            let machine = StateMachine::open(machine, snapshot)?;
            if log.memory().purged > machine.last() {
                return Err(damage(&folder.join("snapshot"), "it is missing, or older than what was purged for it"));
            }
            Ok((log, machine))
        };
        let (log, machine) = store::blocking(read).await.map_err(|error| QuorumError::Storage(error.to_string()))?;
        let peers = Peers::new(transport, log.clone(), options.timings.election_max);
        let running = Running::start(&options, log.clone(), machine.clone(), peers).await?;
        let (running, closing) = (ArcSwap::from_pointee(running), CancellationToken::new());
        let inner = Arc::new(Inner { options, log, machine, running, election: Election::default(), closing });
        let (leads, leadership) = watch::channel(inner.leadership());
        let (failed, failure) = watch::channel(None);
        let watch = tokio::spawn(Arc::clone(&inner).run_watch(leads, failed));
        let elections = tokio::spawn(Arc::clone(&inner).run_elections());
        let tasks = Tasks {
            inner: Arc::clone(&inner),
            _watch: AbortOnDropHandle::new(watch),
            _elections: AbortOnDropHandle::new(elections),
        };
        Ok(Quorum { inner, leadership, failure, _tasks: Arc::new(tasks) })
    }
}
