//! openraft's state machine over the quorum's [`Machine`], with its snapshots.

use std::io::{self, Cursor};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, BasicNode, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder, Snapshot,
    StorageIOError,
};

use super::limits::MAX_SNAPSHOT;
use super::machine::Machine;
use super::raft::{Entry, LogId, Payload, SnapshotMeta, StorageError, StoredMembership, Types};
use super::store::{SnapshotFile, blocking};
use super::transport::NodeId;

/// The machine and how far it is. Clones share it.
#[derive(Clone)]
pub(super) struct StateMachine {
    /// Locked for as long as a snapshot takes to make, only on threads that may block.
    applied: Arc<Mutex<Applied>>,
    file: SnapshotFile,
    refused: Arc<OnceLock<String>>,
    /// Of openraft: tasks of an earlier one may still be at work.
    run: u64,
}

struct Applied {
    run: u64,
    machine: Box<dyn Machine>,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// Restores the machine from the last snapshot. Blocks.
    ///
    /// # Errors
    /// IO errors; `InvalidData` when the snapshot is damaged or the machine refuses it.
    pub(super) fn open(mut machine: Box<dyn Machine>, file: SnapshotFile) -> io::Result<StateMachine> {
        let mut meta = SnapshotMeta::default();
        if let Some((stored, state)) = file.read()? {
            let refused = |what: String| io::Error::new(io::ErrorKind::InvalidData, unreadable(&what));
            machine.restore(&state).map_err(refused)?;
            meta = stored;
        }
        let applied = Applied { run: 0, machine, last: meta.last_log_id, membership: meta.last_membership };
        Ok(StateMachine { applied: Arc::new(Mutex::new(applied)), file, refused: Arc::default(), run: 0 })
    }

    /// The machine as it is, for another run of openraft; this one is given nothing more. Blocks.
    pub(super) fn begin_run(&self) -> StateMachine {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.run += 1;
        self.file.set_ended(false);
        StateMachine { run: applied.run, ..self.clone() }
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, Applied>> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if applied.run == self.run { Ok(applied) } else { Err(io::Error::other("another run has begun")) }
    }

    /// Writes a snapshot of the machine as it is. Blocks.
    ///
    /// # Errors
    /// IO errors.
    pub(super) fn save(&self) -> io::Result<()> {
        if self.last().is_some() { self.take_snapshot().map(drop) } else { Ok(()) }
    }

    /// The last entry that is applied.
    pub(super) fn last(&self) -> Option<LogId> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// Runs `act` where blocking does no harm.
    async fn with<T: Send + 'static>(
        &self,
        subject: ErrorSubject<NodeId>,
        verb: ErrorVerb,
        act: impl FnOnce(&StateMachine) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let shared = self.clone();
        let done = blocking(move || act(&shared).inspect_err(|_| shared.end())).await;
        done.map_err(|error| StorageIOError::new(subject, verb, AnyError::error(error)).into())
    }

    /// openraft gives it nothing more after an error.
    fn end(&self) {
        if let Ok(_current) = self.lock() {
            self.file.set_ended(true);
        }
    }

    /// Applies up to the first entry that the machine refuses: that one and what follows count as not applied, so that no
    /// snapshot covers them.
    fn apply_all(&self, entries: Vec<Entry>) -> io::Result<()> {
        let mut applied = self.lock()?;
        for entry in entries {
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Payload(bytes)) => {
                    applied.machine.apply(entry.log_id.index, &bytes).map_err(|why| self.refuse(why))?;
                }
                EntryPayload::Membership(members) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            applied.last = Some(entry.log_id);
        }
        Ok(())
    }

    fn refuse(&self, why: String) -> io::Error {
        let _ = self.refused.set(why.clone());
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    /// Why the machine cannot go on in this process, once it has refused an entry or a snapshot.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }

    fn take_snapshot(&self) -> io::Result<(SnapshotMeta, Vec<u8>)> {
        let (last_log_id, last_membership, state) = {
            let applied = self.lock()?;
            (applied.last, applied.membership.clone(), applied.machine.snapshot())
        };
        if state.len() as u64 > MAX_SNAPSHOT {
            // Here it is as good as any; whoever needs it from this node will refuse it.
            let (bytes, most) = (state.len(), MAX_SNAPSHOT);
            tracing::error!(bytes, most, "the metadata is too large: nodes that were away for long cannot catch up");
        }
        let snapshot_id = snapshot_id(last_log_id, &state);
        let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
        self.file.write(&meta, &state)?;
        Ok((meta, state))
    }

    fn install(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        if meta.snapshot_id != snapshot_id(meta.last_log_id, state) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a snapshot was damaged on its way here"));
        }
        let mut applied = self.lock()?;
        // The machine changes when the snapshot is durable, and the snapshot on disk only to one that the machine takes.
        applied.machine.check(state).map_err(|why| self.refuse(unreadable(&why)))?;
        self.file.write(meta, state)?;
        applied.machine.restore(state).map_err(|why| self.refuse(unreadable(&why)))?;
        applied.last = meta.last_log_id;
        applied.membership = meta.last_membership.clone();
        Ok(())
    }
}

fn unreadable(what: &str) -> String {
    format!("the state machine refused a snapshot: {what}")
}

/// Names a snapshot by what it covers and its checksum, so that whoever receives it can check it.
fn snapshot_id(last: Option<LogId>, state: &[u8]) -> String {
    let (term, index) = last.map_or((0, 0), |last| (last.leader_id.term, last.index));
    format!("{term}-{index}-{:08x}", crc32c::crc32c(state))
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (meta, state) =
            self.with(ErrorSubject::Snapshot(None), ErrorVerb::Write, StateMachine::take_snapshot).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(state)) })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = StateMachine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, openraft::StoredMembership<NodeId, BasicNode>), StorageError> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let answers = vec![(); entries.len()];
        let apply = move |shared: &StateMachine| shared.apply_all(entries);
        self.with(ErrorSubject::StateMachine, ErrorVerb::Write, apply).await?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::SnapshotMeta<NodeId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let meta = meta.clone();
        let install = move |shared: &StateMachine| shared.install(&meta, snapshot.get_ref());
        self.with(ErrorSubject::Snapshot(None), ErrorVerb::Write, install).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let read = |shared: &StateMachine| shared.file.read();
        let stored = self.with(ErrorSubject::Snapshot(None), ErrorVerb::Read, read).await?;
        Ok(stored.map(|(meta, state)| Snapshot { meta, snapshot: Box::new(Cursor::new(state)) }))
    }
}
