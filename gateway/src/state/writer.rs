//! The one writer of a state topic: appends changes in order, many at once, and compacts between them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use forebay_cluster::{AppendData, Partition, Term, Ticket};
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Millis, Offset};
use tokio::sync::{mpsc, oneshot};

use super::live::Live;
use super::{Change, lock};

/// Appends that may be under way at once; they share group commits.
const MAX_IN_FLIGHT: usize = 256;
/// Bytes of the live set rewritten as one chunk.
const COMPACT_CHUNK_BYTES: usize = 256 << 10;

/// Changes to be made durable together.
pub(super) struct Command {
    pub(super) changes: Vec<Change>,
    pub(super) done: oneshot::Sender<Result<(), AppendError>>,
}

/// Owns the order of a state topic's changes.
pub(super) struct Writer {
    partition: Arc<Partition>,
    live: Arc<Mutex<Live>>,
    queue: mpsc::Receiver<Command>,
    /// Writes as the partition's leader of this term, and otherwise to whoever leads it.
    term: Option<Term>,
    in_flight: VecDeque<(Ticket, Command)>,
}

impl Writer {
    pub(super) fn new(partition: Arc<Partition>, live: Arc<Mutex<Live>>, queue: mpsc::Receiver<Command>) -> Writer {
        Writer { partition, live, queue, term: None, in_flight: VecDeque::new() }
    }

    /// As the partition's leader of this term.
    pub(super) fn in_term(self, term: Term) -> Writer {
        Writer { term: Some(term), ..self }
    }

    async fn hand_over(&self, chunk: RecordChunk) -> Result<Ticket, AppendError> {
        match &self.term {
            Some(term) => self.partition.submit_in(term, AppendData::Chunk(chunk)).await,
            None => self.partition.submit(AppendData::Chunk(chunk)).await,
        }
    }

    /// Until the state topic's last handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            // Tickets of one partition complete in order, so the oldest is the one to wait for.
            let room = self.in_flight.len() < MAX_IN_FLIGHT;
            match self.in_flight.front_mut() {
                None => {
                    let Some(command) = self.queue.recv().await else { return };
                    self.submit(command).await;
                }
                Some((ticket, _)) => tokio::select! {
                    biased;
                    result = ticket => self.finish(result.map(|_| ())),
                    Some(command) = self.queue.recv(), if room => {
                        self.submit(command).await;
                    }
                },
            }
            if lock(&self.live).wants_compaction() {
                self.compact().await;
            }
        }
    }

    async fn submit(&mut self, command: Command) {
        let now = Millis::from_system(SystemTime::now());
        let mut chunk = RecordChunk::new();
        for (key, value) in &command.changes {
            chunk.push(now, Some(key), value.as_deref(), &[]);
        }
        match self.hand_over(chunk).await {
            Ok(ticket) => self.in_flight.push_back((ticket, command)),
            // Whoever asked may be gone; then nobody is to be told.
            Err(error) => drop(command.done.send(Err(error))),
        }
    }

    fn finish(&mut self, result: Result<(), AppendError>) {
        let Some((_, command)) = self.in_flight.pop_front() else { return };
        if result.is_ok() {
            let mut live = lock(&self.live);
            for (key, value) in command.changes {
                live.apply(key, value);
            }
        }
        let _ = command.done.send(result);
    }

    /// Writes the live set at the tail, then moves the log start up to it. A crash in between leaves both: replaying the
    /// old records and then the live set gives the live set.
    async fn compact(&mut self) {
        while let Some((ticket, _)) = self.in_flight.front_mut() {
            let result = ticket.await;
            self.finish(result.map(|_| ()));
        }
        let entries = lock(&self.live).entries();
        match self.rewrite(&entries).await {
            Ok(start) => {
                lock(&self.live).compacted();
                tracing::debug!(topic = self.partition.topic(), entries = entries.len(), %start, "state topic compacted");
            }
            Err(error) => {
                lock(&self.live).compaction_failed();
                tracing::warn!(topic = self.partition.topic(), %error, "state topic not compacted, its log keeps growing");
            }
        }
    }

    async fn rewrite(&self, entries: &[(Bytes, Bytes)]) -> Result<Offset, AppendError> {
        let now = Millis::from_system(SystemTime::now());
        let mut start = None;
        let mut chunk = RecordChunk::new();
        for (index, (key, value)) in entries.iter().enumerate() {
            chunk.push(now, Some(key), Some(value), &[]);
            if chunk.bytes() >= COMPACT_CHUNK_BYTES || index + 1 == entries.len() {
                let appended = self.hand_over(std::mem::take(&mut chunk)).await?.await?;
                start.get_or_insert(appended.base_offset);
            }
        }
        let start = start.unwrap_or_else(|| self.partition.watermarks().log_end);
        self.partition.set_log_start(start).await?;
        Ok(start)
    }
}
