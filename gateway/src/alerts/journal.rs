//! The topic `_alerts`: appends transitions durably and reads back which were appended before a crash.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use forebay_cluster::{AppendData, Claim, Fetched, Log, LogError, Partition};
use forebay_log::record::{BatchProblem, Batches, Record, RecordChunk, RecordReader};
use forebay_log::{AppendError, Millis, Offset, ReadError, TopicConfig};
use forebay_sinks::Transition;
use tokio::time::Instant;
use uuid::Uuid;

use super::limits::{CATCH_UP, JOURNAL_CHUNK_BYTES, READ_BYTES};
use crate::state::require_open;

/// The topic that holds every transition; users may read it.
pub(crate) const TOPIC: &str = "_alerts";

/// How long every transition is there at least, before only the last one of each alert is: time for a receiver that is down.
const COMPACTION_LAG_MS: i64 = 7 * 86_400_000;

/// The configs of the topic.
pub(crate) fn config() -> TopicConfig {
    TopicConfig { min_compaction_lag_ms: COMPACTION_LAG_MS, ..TopicConfig::internal() }
}

/// The one partition of `_alerts`: transitions of all sources in one order.
#[derive(Clone)]
pub(super) struct Journal {
    pub(super) partition: Arc<Partition>,
    pub(super) topic_id: Uuid,
    /// Up to where it is known to reach by what was recorded here: where there is no replica, nothing else tells.
    recorded: Arc<AtomicI64>,
}

impl Journal {
    /// Opens the topic, making it at the first start.
    pub(super) async fn open(log: &Log) -> Result<Journal, LogError> {
        let topic = match log.topic(TOPIC) {
            Some(topic) => {
                // Made by a version that did not compact: without the lag, a receiver could miss what it has not got yet.
                if topic.config().min_compaction_lag_ms == 0 {
                    let config = TopicConfig { min_compaction_lag_ms: COMPACTION_LAG_MS, ..(*topic.config()).clone() };
                    log.alter_topic(TOPIC, config).await?;
                }
                topic
            }
            None => match log.create_topic(TOPIC, 1, config()).await {
                // Another node of the cluster was first.
                Err(LogError::TopicExists(_)) => {
                    log.topic(TOPIC).ok_or_else(|| LogError::UnknownTopic(TOPIC.into()))?
                }
                made => made?,
            },
        };
        let first = topic.partitions.first().cloned();
        let partition = first.ok_or_else(|| LogError::UnknownTopic(TOPIC.to_owned()))?;
        // What was recorded before a crash would be recorded again.
        if partition.is_here() {
            require_open(&partition)?;
        }
        Ok(Journal { partition, topic_id: topic.id, recorded: Arc::default() })
    }

    /// Where the next transition will stand, or before that where there is no replica here.
    pub(super) fn end(&self) -> Offset {
        Offset(self.recorded.load(Ordering::Acquire)).max(self.partition.watermarks().high_watermark)
    }

    /// Appends transitions in order; on return they are durable. Those of one source record share a chunk.
    ///
    /// # Errors
    /// How many of them are durable, from the first on, and why the next ones are not: none behind a refused one is.
    pub(super) async fn append(
        &self,
        now: Millis,
        claim: &Claim,
        transitions: &[Transition],
    ) -> Result<(), (usize, AppendError)> {
        let mut chunk = RecordChunk::new();
        let mut durable = 0;
        for (index, transition) in transitions.iter().enumerate() {
            let value = transition.to_json();
            chunk.push(now, Some(transition.fingerprint.as_bytes()), Some(&value), &[]);
            let more = transitions.get(index + 1);
            let same_record = more.is_some_and(|next| next.source.offset == transition.source.offset);
            if more.is_none() || (chunk.bytes() >= JOURNAL_CHUNK_BYTES && !same_record) {
                // One after the other: what is refused must not be overtaken.
                let data = AppendData::Chunk(std::mem::take(&mut chunk));
                let appended = match self.partition.submit_as(claim, data).await {
                    Ok(ticket) => ticket.await,
                    Err(error) => Err(error),
                };
                let appended = appended.map_err(|error| (durable, error))?;
                self.recorded.fetch_max(appended.last_offset.next().0, Ordering::AcqRel);
                durable = index + 1;
            }
        }
        Ok(())
    }

    /// Waits until all below `end` is committed, as far as this node knows.
    ///
    /// # Errors
    /// That does not come about in time: it was lost with the leader who had it, the replica here is behind, or nobody tells.
    pub(super) async fn reaches(&self, end: Offset) -> Result<(), AppendError> {
        let deadline = Instant::now() + CATCH_UP;
        while self.end() < end {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AppendError::Offline(format!("{TOPIC} up to offset {end} is not here in time")));
            }
            self.partition.advanced(Offset(end.0 - 1), left).await;
        }
        Ok(())
    }

    /// The ids of the transitions from `from` on that records of a source partition caused, up to [`Journal::end`].
    ///
    /// # Errors
    /// They cannot be read now, here or at the leader.
    pub(super) async fn emitted_since(
        &self,
        from: Offset,
        topic: &str,
        partition: u32,
    ) -> Result<HashSet<String>, ReadError> {
        let (mut emitted, end) = (HashSet::new(), self.end());
        let mut next = from.max(self.partition.watermarks().local_start);
        while next < end {
            let before = next;
            match self.read(next).await {
                Ok(fetched) => visit(fetched.batches, &mut next, |record| {
                    if let Some(transition) = record.ok().as_ref().and_then(parse)
                        && transition.source.topic == topic
                        && transition.source.partition == partition
                    {
                        emitted.insert(transition.id);
                    }
                }),
                // What was there before is of no use to anybody any more.
                Err(ReadError::OutOfRange { start, .. }) if start > next => next = start,
                // Those that are lost are recorded again, with the same ids.
                Err(error) => next = behind_damage(&error, next).ok_or(error)?,
            }
            if next <= before {
                // A leader that has just begun may not know yet how much is committed.
                return Err(ReadError::Offline(format!("{TOPIC} cannot be read up to offset {end} yet")));
            }
        }
        Ok(emitted)
    }

    /// Batches from `from` on, of the replica here or of the leader.
    async fn read(&self, from: Offset) -> Result<Fetched, ReadError> {
        if !self.partition.is_here() {
            return self.partition.fetch_from_leader(from, READ_BYTES).await;
        }
        let partition = self.partition.clone();
        let read = tokio::task::spawn_blocking(move || partition.read(from, READ_BYTES)).await;
        read.unwrap_or_else(|_| Err(ReadError::Offline("the node stops".to_owned())))
    }
}

/// Where to go on behind damaged records at `next`; `None` for all other errors.
pub(super) fn behind_damage(error: &ReadError, next: Offset) -> Option<Offset> {
    match error {
        ReadError::Corrupt { next: behind, .. } => Some(*behind).filter(|behind| *behind > next),
        _ => None,
    }
}

/// The transition that a record of `_alerts` holds.
pub(super) fn parse(record: &Record) -> Option<Transition> {
    let mut transition: Transition = serde_json::from_slice(record.value.as_ref()?).ok()?;
    transition.fingerprint = String::from_utf8(record.key.as_ref()?.to_vec()).ok()?;
    Some(transition)
}

/// Hands over the records at or after `next` of whole batches; `next` moves behind them. A batch that cannot be read yields one
/// error and is passed over.
pub(super) fn visit(batches: Bytes, next: &mut Offset, mut take: impl FnMut(Result<Record, BatchProblem>)) {
    let from = *next;
    for batch in Batches::new(batches) {
        let (header, batch) = match batch {
            Ok(batch) => batch,
            Err(problem) => return take(Err(problem)),
        };
        *next = header.next_offset().max(*next);
        if header.is_control() {
            continue;
        }
        match RecordReader::new(&header, &batch) {
            Ok(reader) => {
                let wanted = |record: &Result<Record, _>| record.as_ref().map_or(true, |record| record.offset >= from);
                reader.filter(wanted).for_each(&mut take);
            }
            Err(problem) => take(Err(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_cluster::{LogOptions, RealFiles};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn transitions_that_cannot_be_read_back_are_not_taken_for_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let files = RealFiles::open(folder.path()).expect("a directory");
            Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).expect("a log")
        };
        let log = open();
        drop(Journal::open(&log).await.expect("made at the first start"));
        tokio::task::spawn_blocking(move || log.shutdown()).await.expect("stopped");
        std::fs::write(folder.path().join("log/_alerts-0/partition.state"), "damaged").expect("damaged");
        let log = open();
        let error = Journal::open(&log).await.err().expect("refused").to_string();
        assert!(error.contains("_alerts-0") && error.contains("cannot be opened"), "{error}");
        tokio::task::spawn_blocking(move || log.shutdown()).await.expect("stopped");
    }
}
