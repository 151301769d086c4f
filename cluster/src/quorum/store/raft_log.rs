//! openraft's log over the journal: what is written goes to disk first, what is read comes from memory.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::watch;

use super::format::{Kind, State};
use super::journal::Journal;
use super::memory::Memory;
use super::{Covered, blocking, recover};
use crate::quorum::disk::Disk;
use crate::quorum::frame;
use crate::quorum::limits;
use crate::quorum::raft::{Entry, LogId, StorageError, Types, Vote};

/// The log of a node of the quorum. Clones share it.
#[derive(Clone)]
pub(in crate::quorum) struct LogStore {
    /// Locked for as long as a write takes, only on threads that may block. Locked before `memory`.
    pub(super) journal: Arc<Mutex<Journal>>,
    /// Locked for moments.
    memory: Arc<Mutex<Memory>>,
    covered: watch::Receiver<Covered>,
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    /// Opens the journal in `folder`; nothing is purged that is not `covered` by a snapshot. A journal that has
    /// `begun` must be there. Blocks.
    ///
    /// # Errors
    /// IO errors; `InvalidData` for what is damaged, with file, position and what to do.
    pub(in crate::quorum) fn open(
        disk: Disk,
        folder: &Path,
        begun: bool,
        covered: watch::Receiver<Covered>,
    ) -> io::Result<LogStore> {
        let (journal, memory) = recover::open(disk, folder.to_owned(), begun)?;
        Ok(LogStore { journal: Arc::new(Mutex::new(journal)), memory: Arc::new(Mutex::new(memory)), covered })
    }

    pub(in crate::quorum) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Makes the journal on disk what it is in memory, after a write that failed for good, and tries whether it can be written to
    /// again. The vote counts as not elected, as after a restart. Blocks.
    ///
    /// # Errors
    /// IO errors: it can not.
    pub(in crate::quorum) fn repair(&self) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.repair()?;
        let state = {
            let mut memory = self.memory();
            memory.vote = memory.vote.map(|vote| Vote { committed: false, ..vote });
            State { vote: memory.vote, purged: memory.purged }
        };
        match &state.vote {
            Some(vote) => journal.write(Kind::Vote, &serde_json::to_vec(vote)?, &state),
            None => Ok(()),
        }
    }

    /// Writes one frame where blocking does no harm, then has memory follow.
    async fn write(
        &self,
        verb: ErrorVerb,
        kind: Kind,
        body: Result<Vec<u8>, String>,
        then: impl FnOnce(&mut Journal, &Mutex<Memory>) + Send + 'static,
    ) -> Result<(), StorageError> {
        let subject = if kind == Kind::Vote { ErrorSubject::Vote } else { ErrorSubject::Logs };
        let store = self.clone();
        let write = move || {
            let body = body.map_err(io::Error::other)?;
            let mut journal = store.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let state = {
                let memory = store.memory();
                State { vote: memory.vote, purged: memory.purged }
            };
            journal.write(kind, &body, &state)?;
            then(&mut journal, &store.memory);
            Ok(())
        };
        blocking(write).await.map_err(|error| StorageIOError::new(subject, verb, AnyError::error(error)).into())
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.memory().get(range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.memory().get(start..end, limits::MAX_APPEND))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let body = serde_json::to_vec(&vote).map_err(|error| error.to_string());
        self.write(ErrorVerb::Write, Kind::Vote, body, move |_, memory| lock(memory).vote = Some(vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.memory().vote)
    }

    /// Kept for the status only. It is not on disk, so after a restart nothing is known to be committed until the leader
    /// says so.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.memory().committed = committed;
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut body = Vec::with_capacity(entries.iter().map(frame::size).sum());
        let put = entries.iter().try_for_each(|entry| frame::put_entry(&mut body, entry));
        let fits = if self.memory().follows(&entries) { put } else { Err("entries with a gap".to_owned()) };
        let then = move |journal: &mut Journal, memory: &Mutex<Memory>| {
            journal.highest = journal.highest.max(entries.last().map(|entry| entry.log_id.index));
            lock(memory).append(entries);
        };
        self.write(ErrorVerb::Write, Kind::Entries, fits.map(|()| body), then).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let body = log_id.index.to_le_bytes().to_vec();
        let then = move |_: &mut Journal, memory: &Mutex<Memory>| lock(memory).truncate(log_id.index);
        self.write(ErrorVerb::Delete, Kind::Truncate, Ok(body), then).await
    }

    /// openraft asks for this as soon as it has given a snapshot away to be installed. Purged before that is durable, the entries
    /// would be in neither after a crash.
    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let mut covered = self.covered.clone();
        let reaches = |covered: &Covered| covered.last >= Some(log_id);
        let told = covered.wait_for(|covered| covered.ended || reaches(covered)).await;
        if !told.is_ok_and(|covered| reaches(&covered)) {
            let error = AnyError::error("the snapshot that covers what is to be purged was not written");
            return Err(StorageIOError::new(ErrorSubject::Snapshot(None), ErrorVerb::Write, error).into());
        }
        let body = serde_json::to_vec(&log_id).map_err(|error| error.to_string());
        let then = move |journal: &mut Journal, memory: &Mutex<Memory>| {
            lock(memory).purge(log_id);
            journal.remove_purged(log_id.index);
        };
        self.write(ErrorVerb::Delete, Kind::Purge, body, then).await
    }
}
