//! A handle to one partition: appends go to its shard, reads run on the caller's thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_log::limits::MAX_PENDING_APPEND_BYTES;
use forebay_log::partition::{
    ActiveProducer, Append, AppendData, Appended, ClosedSegment, EpochCache, Event, Watermarks, check_batches,
};
use forebay_log::record::NO_KEY;
use forebay_log::{AppendError, Epoch, Millis, Offset, ReadError, TopicConfig};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::chain::{Chain, Term};
use crate::engine::PartitionKey;
use crate::machine::Token;
use crate::read::{find_time, read_batches};
use crate::segment_file::SegmentFile;
use crate::shard::{Mailbox, Request};
use crate::shared::Shared;
use crate::space::Space;

/// Completes when the append is durable, or refused.
pub struct Ticket {
    receiver: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
    }
}

/// Whole stored batches: the first may start before the offset asked for.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub batches: Bytes,
    pub watermarks: Watermarks,
}

/// A handle to one partition. Cheap to share; reads run on the caller's thread.
pub struct Partition {
    pub(crate) key: PartitionKey,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Mailbox,
    /// [`MAX_PENDING_APPEND_BYTES`] of the node, one permit a byte.
    pub(crate) admission: Arc<Semaphore>,
    pub(crate) space: Arc<Space>,
    pub(crate) config: Arc<ArcSwap<TopicConfig>>,
}

impl Partition {
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }
    pub fn index(&self) -> u32 {
        self.shared.index
    }
    pub fn leader_epoch(&self) -> Epoch {
        Epoch(self.shared.epoch.load(Ordering::Acquire))
    }
    /// Which leader epoch began where.
    pub fn epochs(&self) -> Arc<EpochCache> {
        self.shared.epochs.load_full()
    }
    /// The idempotent producers that the partition remembers.
    ///
    /// # Errors
    /// The partition is not open, or the log shuts down.
    pub async fn producers(&self) -> Result<Vec<ActiveProducer>, AppendError> {
        let (reply, answer) = oneshot::channel();
        let event = Event::DescribeProducers(Token::Producers(reply));
        self.mailbox.send(Request::Event(self.key, event)).await?;
        answer.await.map_err(|_| self.shared.unanswered())
    }
    pub fn watermarks(&self) -> Watermarks {
        *self.shared.marks.borrow()
    }
    /// Follows the watermarks; long polls and tailers wait on it.
    pub fn watch(&self) -> watch::Receiver<Watermarks> {
        self.shared.marks.subscribe()
    }
    /// Whether there may be batches without records, which compaction leaves where others were.
    pub fn may_have_empty_batches(&self) -> bool {
        self.config.load().compact || self.shared.compacted.load(Ordering::Acquire) > 0
    }
    /// Why the partition takes no writes, when it does not.
    pub fn offline(&self) -> Option<String> {
        self.shared.offline.load().as_deref().cloned()
    }
    /// Why the partition could not be opened, when that is so: its watermarks say nothing then, and nothing can be read.
    pub fn unopened(&self) -> Option<String> {
        let why = self.shared.offline.load();
        why.as_deref().filter(|_| self.shared.segments.load().is_empty()).cloned()
    }
    /// Bytes on the local disk.
    pub fn local_bytes(&self) -> u64 {
        self.shared.local_bytes.load(Ordering::Acquire)
    }

    /// Hands `data` to the partition's shard, waiting while too much is pending in the node (back-pressure). The ticket
    /// completes when the records are durable. Appends submitted one after the other keep their order.
    ///
    /// # Errors
    /// What refuses the data at once: batches that are not valid, a full disk, a deleted topic, a node that stops.
    pub async fn submit(&self, data: AppendData) -> Result<Ticket, AppendError> {
        self.submit_to(None, data, true).await
    }

    /// [`Partition::submit`], content with this replica alone, whatever `min.insync.replicas` says (Kafka's acks=1).
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_to_leader(&self, data: AppendData) -> Result<Ticket, AppendError> {
        self.submit_to(None, data, false).await
    }

    /// [`Partition::submit`] or, unless it waits for `all`, [`Partition::submit_to_leader`] as the next of a chain: once an append
    /// of the chain was refused, later ones are too, those on their way included.
    ///
    /// # Errors
    /// As `submit`, and after an earlier refusal.
    pub async fn submit_chained(&self, chain: &Chain, all: bool, data: AppendData) -> Result<Ticket, AppendError> {
        chain.check()?;
        let submitted = self.submit_to(Some(chain.clone()), data, all).await;
        submitted.inspect_err(|_| chain.break_off())
    }

    /// [`Partition::submit`], refused with [`AppendError::FencedLeaderEpoch`] or [`AppendError::NotLeader`] unless the partition
    /// takes it while this node leads it in the term's leader epoch, before the term is ended.
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_in(&self, term: &Term, data: AppendData) -> Result<Ticket, AppendError> {
        self.submit_to(Some(Chain::of(term)), data, true).await
    }

    async fn submit_to(&self, chain: Option<Chain>, data: AppendData, all: bool) -> Result<Ticket, AppendError> {
        let config = self.config.load();
        match &data {
            AppendData::Batches(batches) => check_batches(batches, &config)?,
            AppendData::Chunk(chunk) if config.compact && !chunk.is_keyed() => {
                return Err(AppendError::Invalid(NO_KEY));
            }
            AppendData::Chunk(_) => {}
        }
        drop(config);
        if self.space.is_full() && !self.shared.internal {
            return Err(AppendError::DiskFull);
        }
        if let Some(why) = self.shared.offline.load().as_deref() {
            return Err(AppendError::Offline(why.clone()));
        }
        let bytes = data.bytes().max(1);
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_PENDING_APPEND_BYTES);
        let permits = permits.ok_or(AppendError::TooLarge { bytes, limit: MAX_PENDING_APPEND_BYTES })?;
        let admission = Arc::clone(&self.admission).acquire_many_owned(permits).await;
        let permit = admission.map_err(|_| AppendError::Closed)?;
        if self.shared.removed.load(Ordering::Acquire) {
            return Err(AppendError::Offline("the topic is deleted".to_owned()));
        }
        let (reply, receiver) = oneshot::channel();
        let append = Append { data, all, token: Token::Append { reply, permit: Some(permit), chain } };
        self.mailbox.send(Request::Event(self.key, Event::Append(vec![append]))).await?;
        Ok(Ticket { receiver })
    }

    /// `submit`, and wait for the ticket.
    ///
    /// # Errors
    /// Why the records were not kept.
    pub async fn append(&self, data: AppendData) -> Result<Appended, AppendError> {
        self.submit(data).await?.await
    }

    /// Whole batches from the one that holds `from`, at least one, up to `max_bytes`, below the high watermark; empty at
    /// the high watermark. CRCs are checked. Blocking file reads, normally from the page cache.
    ///
    /// # Errors
    /// [`ReadError::Tiered`] below the local start; [`ReadError::Corrupt`] when the batch asked for is damaged;
    /// [`ReadError::Offline`] while the partition cannot be opened.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        self.read_below(from, max_bytes, self.watermarks().high_watermark)
    }

    pub(crate) fn read_below(&self, from: Offset, max_bytes: usize, end: Offset) -> Result<Fetched, ReadError> {
        let mut retried = false;
        self.check_open()?;
        loop {
            let watermarks = self.watermarks();
            self.check_range(from, &watermarks)?;
            if from >= end {
                return Ok(Fetched { batches: Bytes::new(), watermarks });
            }
            match self.read_local(from, end, max_bytes) {
                Ok(batches) => return Ok(Fetched { batches, watermarks }),
                // Retention may have removed the segment meanwhile: the watermarks tell.
                Err(_) if !retried => retried = true,
                Err(error) => {
                    self.check_range(from, &self.watermarks())?;
                    if matches!(error, ReadError::Corrupt { .. }) {
                        self.shared.stats.corrupt_batch();
                    }
                    return Err(error);
                }
            }
        }
    }

    fn check_open(&self) -> Result<(), ReadError> {
        self.unopened().map_or(Ok(()), |why| Err(ReadError::Offline(why)))
    }

    fn check_range(&self, asked: Offset, marks: &Watermarks) -> Result<(), ReadError> {
        // A new leader may not know yet how far the high watermark was: who has read up to there is not out of range.
        if asked < marks.log_start || asked > marks.log_end {
            return Err(ReadError::OutOfRange { asked, start: marks.log_start, end: marks.high_watermark });
        }
        if asked < marks.local_start {
            return Err(ReadError::Tiered { asked, local_start: marks.local_start });
        }
        Ok(())
    }

    fn read_local(&self, from: Offset, limit: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        let segments = self.shared.segments.load_full();
        let holder = segments.partition_point(|segment| segment.base <= from).checked_sub(1);
        let Some(segment) = holder.and_then(|at| segments.get(at)) else {
            return Err(ReadError::Storage(format!("offset {from} is in no segment")));
        };
        let end = self.end_of(segment, limit);
        read_batches(segment, from, limit, max_bytes).map_err(|error| match error {
            ReadError::Corrupt { file, position, what, next } if next <= from => {
                ReadError::Corrupt { file, position, what, next: end }
            }
            error => error,
        })
    }

    /// The first record with a timestamp at or after `at` in the local log: its offset and timestamp.
    ///
    /// # Errors
    /// IO errors, and damage in the stretch searched.
    pub fn offset_for_time(&self, at: Millis) -> Result<Option<(Offset, Millis)>, ReadError> {
        self.check_open()?;
        let marks = self.watermarks();
        for segment in self.shared.segments.load_full().iter().filter(|segment| segment.max_timestamp() >= at) {
            let start = segment.base.max(marks.local_start);
            let found = find_time(segment, start, self.end_of(segment, marks.high_watermark), at)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn end_of(&self, segment: &SegmentFile, limit: Offset) -> Offset {
        let segments = self.shared.segments.load();
        let next = segments.partition_point(|known| known.base <= segment.base);
        segments.get(next).map_or(limit, |next| next.base.min(limit))
    }

    /// About how many bytes of the log here lie at and behind `from`: as exact as the offset index.
    pub fn bytes_from(&self, from: Offset) -> u64 {
        if from >= self.watermarks().log_end {
            return 0;
        }
        let segments = self.shared.segments.load_full();
        let holder = segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        let behind: u64 = segments.iter().skip(holder).map(|segment| segment.readable()).sum();
        let hint = segments.get(holder).filter(|segment| segment.base <= from).map(|segment| segment.hint(from));
        behind.saturating_sub(hint.and_then(Result::ok).map_or(0, |hint| hint.position))
    }

    /// Closed segments wholly below the high watermark, oldest first.
    pub fn closed_segments(&self) -> Vec<ClosedSegment> {
        Vec::clone(&self.shared.closed.load())
    }

    /// Rolls the active segment if it holds records, so that it becomes a closed one.
    ///
    /// # Errors
    /// As an append.
    pub async fn roll(&self) -> Result<(), AppendError> {
        self.control(Event::Roll).await
    }

    /// Records below `end` are in the lake: local retention may let them go. Durable on return.
    ///
    /// # Errors
    /// As an append.
    pub async fn set_tiered(&self, end: Offset) -> Result<(), AppendError> {
        self.control(|token| Event::SetTiered(end, token)).await
    }

    /// Whether records in the lake stay on the local disk too, until told otherwise or a restart: the lake cannot give them
    /// back now.
    ///
    /// # Errors
    /// The log shuts down.
    pub async fn hold_local(&self, hold: bool) -> Result<(), AppendError> {
        self.mailbox.send(Request::Event(self.key, Event::HoldLocal(hold))).await
    }

    /// Sends an event to the partition's shard and waits for its answer.
    pub(crate) async fn control(&self, event: impl FnOnce(Token) -> Event<Token>) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Request::Event(self.key, event(Token::Control(reply)))).await?;
        answer.await.unwrap_or_else(|_| Err(self.shared.unanswered()))
    }

    /// Moves the log start up to `to` (DeleteRecords, retention); local segments wholly below are removed. Durable on
    /// return.
    ///
    /// # Errors
    /// As an append.
    pub async fn set_log_start(&self, to: Offset) -> Result<(), AppendError> {
        self.control(|token| Event::SetLogStart(to, token)).await
    }
}
