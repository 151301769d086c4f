//! A handle to one partition: appends go to its leader, reads to the replica on this node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use forebay_disk::{
    ActiveProducer, AppendData, Appended, Chain, ClosedSegment, EpochCache, Fetched, Partition as Replica, Watermarks,
};
use forebay_log::{AppendError, Epoch, Millis, NodeId, Offset, ReadError};
use tokio::sync::watch;

use super::placement::Placement;
use super::topic::Seat;

/// What is known of the offsets of a partition that has no replica on this node.
const UNKNOWN: Watermarks = Watermarks {
    log_start: Offset::ZERO,
    local_start: Offset::ZERO,
    high_watermark: Offset::ZERO,
    log_end: Offset::ZERO,
};

/// Completes when the append is durable, or refused.
pub struct Ticket(forebay_disk::Ticket);

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// The way to a partition's leader.
enum Route {
    /// This node leads: its replica.
    Here(Arc<Replica>),
}

/// A handle to one partition. Cheap to share; reads run on the caller's thread.
pub struct Partition {
    topic: Arc<str>,
    index: u32,
    /// This node.
    here: NodeId,
    seat: ArcSwap<Seat>,
}

impl Partition {
    pub(super) fn new(topic: Arc<str>, index: u32, here: NodeId, seat: Seat) -> Partition {
        Partition { topic, index, here, seat: ArcSwap::from_pointee(seat) }
    }

    /// It lies elsewhere from now on.
    pub fn place(&self, placement: Arc<Placement>) {
        if !Arc::ptr_eq(&self.seat.load().placement, &placement) {
            self.seat.rcu(|seat| Seat { placement: Arc::clone(&placement), ..Seat::clone(seat) });
        }
    }

    /// This node's replica is another from now on, or none.
    pub(super) fn hold(&self, replica: Option<Arc<Replica>>) {
        let same = match (&self.seat.load().replica, &replica) {
            (Some(ours), Some(replica)) => Arc::ptr_eq(ours, replica),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.seat.rcu(|seat| Seat { replica: replica.clone(), ..Seat::clone(seat) });
        }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where it lies and who leads it.
    pub fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.seat.load().placement)
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.seat.load().placement.leader
    }

    /// Whether this node leads it. One that takes no writes is led all the same: it says itself why it takes none.
    pub fn leads(&self) -> bool {
        let seat = self.seat.load();
        let chosen = seat.replica.as_deref().filter(|_| seat.placement.leader == Some(self.here));
        chosen.is_some_and(|replica| replica.leads() || replica.offline().is_some())
    }

    /// The latest that is known: the replica here may hear of its leader before the placement tells, and after.
    pub fn leader_epoch(&self) -> Epoch {
        let seat = self.seat.load();
        let heard = seat.replica.as_deref().map_or(Epoch(0), Replica::leader_epoch);
        heard.max(seat.placement.leader_epoch)
    }

    /// Whether a replica of it lies on this node.
    pub fn is_here(&self) -> bool {
        self.seat.load().replica.is_some()
    }

    fn replica(&self) -> Option<Arc<Replica>> {
        self.seat.load().replica.clone()
    }

    /// The replica here, for what only a replica can do.
    fn held(&self) -> Result<Arc<Replica>, AppendError> {
        self.replica().ok_or(AppendError::NotLeader)
    }

    fn readable(&self) -> Result<Arc<Replica>, ReadError> {
        self.replica().ok_or_else(|| ReadError::Offline(self.elsewhere()))
    }

    fn elsewhere(&self) -> String {
        format!("partition {}-{} has no replica on this node", self.topic, self.index)
    }

    fn route(&self) -> Result<Route, AppendError> {
        let seat = self.seat.load();
        let chosen = seat.replica.as_ref().filter(|_| seat.placement.leader == Some(self.here));
        chosen.map(|replica| Route::Here(Arc::clone(replica))).ok_or(AppendError::NotLeader)
    }

    /// Hands `data` to the partition's leader, waiting while too much is pending in the node (back-pressure). The ticket
    /// completes when the records are durable on every in-sync replica. Appends submitted one after the other keep their
    /// order.
    ///
    /// # Errors
    /// What refuses the data at once: batches that are not valid, a full disk, a deleted topic, a node that stops, a
    /// partition without a leader that can be reached.
    pub async fn submit(&self, data: AppendData) -> Result<Ticket, AppendError> {
        match self.route()? {
            Route::Here(replica) => replica.submit(data).await.map(Ticket),
        }
    }

    /// [`Partition::submit`], content with the leader alone, whatever `min.insync.replicas` says (Kafka's acks=1).
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_to_leader(&self, data: AppendData) -> Result<Ticket, AppendError> {
        match self.route()? {
            Route::Here(replica) => replica.submit_to_leader(data).await.map(Ticket),
        }
    }

    /// [`Partition::submit`] as the next of a chain: once an append of the chain was refused, later ones are too, those on
    /// their way included.
    ///
    /// # Errors
    /// As `submit`, and after an earlier refusal.
    pub async fn submit_chained(&self, chain: &Chain, data: AppendData) -> Result<Ticket, AppendError> {
        match self.route().inspect_err(|_| chain.break_off())? {
            Route::Here(replica) => replica.submit_chained(chain, data).await.map(Ticket),
        }
    }

    /// `submit`, and wait for the ticket.
    ///
    /// # Errors
    /// Why the records were not kept.
    pub async fn append(&self, data: AppendData) -> Result<Appended, AppendError> {
        self.submit(data).await?.await
    }

    /// Whole batches of the replica here, from the one that holds `from`, at least one, up to `max_bytes`, below the high
    /// watermark; empty at the high watermark. CRCs are checked. Blocking file reads, normally from the page cache.
    ///
    /// # Errors
    /// [`ReadError::Tiered`] below the local start; [`ReadError::Corrupt`] when the batch asked for is damaged;
    /// [`ReadError::Offline`] while the replica cannot be opened, and where there is none.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        self.readable()?.read(from, max_bytes)
    }

    /// The first record with a timestamp at or after `at` in the local log: its offset and timestamp.
    ///
    /// # Errors
    /// IO errors, damage in the stretch searched, and no replica here.
    pub fn offset_for_time(&self, at: Millis) -> Result<Option<(Offset, Millis)>, ReadError> {
        self.readable()?.offset_for_time(at)
    }

    /// Of the replica here.
    pub fn watermarks(&self) -> Watermarks {
        self.seat.load().replica.as_deref().map_or(UNKNOWN, Replica::watermarks)
    }

    /// Follows the watermarks of the replica here; long polls and tailers wait on it. Closed where there is none.
    pub fn watch(&self) -> watch::Receiver<Watermarks> {
        self.replica().map_or_else(|| watch::channel(UNKNOWN).1, |replica| replica.watch())
    }

    /// Which leader epoch began where.
    pub fn epochs(&self) -> Arc<EpochCache> {
        self.replica().map(|replica| replica.epochs()).unwrap_or_default()
    }

    /// The idempotent producers that the partition remembers.
    ///
    /// # Errors
    /// The partition is not open, or the log shuts down.
    pub async fn producers(&self) -> Result<Vec<ActiveProducer>, AppendError> {
        self.held()?.producers().await
    }

    /// Whether there may be batches without records, which compaction leaves where others were.
    pub fn may_have_empty_batches(&self) -> bool {
        self.seat.load().replica.as_deref().is_some_and(Replica::may_have_empty_batches)
    }

    /// Why the replica here takes no writes, when it does not.
    pub fn offline(&self) -> Option<String> {
        self.seat.load().replica.as_deref().and_then(Replica::offline)
    }

    /// Why nothing can be read here, when that is so: the replica could not be opened, or there is none. The watermarks say
    /// nothing then.
    pub fn unopened(&self) -> Option<String> {
        self.seat.load().replica.as_deref().map_or_else(|| Some(self.elsewhere()), Replica::unopened)
    }

    /// Bytes on the local disk.
    pub fn local_bytes(&self) -> u64 {
        self.seat.load().replica.as_deref().map_or(0, Replica::local_bytes)
    }

    /// Closed segments here that lie wholly below the high watermark, oldest first.
    pub fn closed_segments(&self) -> Vec<ClosedSegment> {
        self.seat.load().replica.as_deref().map(Replica::closed_segments).unwrap_or_default()
    }

    /// Rolls the active segment if it holds records, so that it becomes a closed one.
    ///
    /// # Errors
    /// As an append.
    pub async fn roll(&self) -> Result<(), AppendError> {
        self.held()?.roll().await
    }

    /// Records below `end` are in the lake: local retention may let them go. Durable on return.
    ///
    /// # Errors
    /// As an append.
    pub async fn set_tiered(&self, end: Offset) -> Result<(), AppendError> {
        self.held()?.set_tiered(end).await
    }

    /// Whether records in the lake stay on the local disk too, until told otherwise or a restart: the lake cannot give them
    /// back now.
    ///
    /// # Errors
    /// The log shuts down.
    pub async fn hold_local(&self, hold: bool) -> Result<(), AppendError> {
        self.held()?.hold_local(hold).await
    }

    /// Moves the log start up to `to` (DeleteRecords, retention); local segments wholly below are removed. Durable on
    /// return.
    ///
    /// # Errors
    /// As an append.
    pub async fn set_log_start(&self, to: Offset) -> Result<(), AppendError> {
        match self.route()? {
            Route::Here(replica) => replica.set_log_start(to).await,
        }
    }
}
