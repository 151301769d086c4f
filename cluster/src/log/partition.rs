//! A handle to one partition: appends go to its leader (`appends`), reads to the replica on this node.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use forebay_disk::{ActiveProducer, ClosedSegment, EpochCache, Fetched, Partition as Replica, Watermarks};
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Millis, NodeId, Offset, ReadError};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::placement::Placement;
use super::topic::Seat;
use crate::forward::Forwarder;

/// What is known of the offsets of a partition that has no replica on this node.
const UNKNOWN: Watermarks = Watermarks {
    log_start: Offset::ZERO,
    local_start: Offset::ZERO,
    high_watermark: Offset::ZERO,
    log_end: Offset::ZERO,
};

/// A handle to one partition. Cheap to share; reads run on the caller's thread.
pub struct Partition {
    topic: Arc<str>,
    pub(super) id: PartitionId,
    index: u32,
    /// This node.
    pub(super) here: NodeId,
    seat: ArcSwap<Seat>,
    /// Raised when it lies elsewhere.
    pub(super) placed: Notify,
    /// The way to leaders on other nodes.
    pub(super) forwarder: Option<Arc<Forwarder>>,
    /// What its leader said last, of a partition without a replica here.
    pub(super) heard: Mutex<Watermarks>,
}

impl Partition {
    pub(super) fn new(
        (topic, id): (Arc<str>, Uuid),
        index: u32,
        here: NodeId,
        seat: Seat,
        forwarder: Option<Arc<Forwarder>>,
    ) -> Partition {
        let id = PartitionId { topic: id, index };
        Partition {
            topic,
            id,
            index,
            here,
            seat: ArcSwap::from_pointee(seat),
            placed: Notify::new(),
            forwarder,
            heard: Mutex::new(UNKNOWN),
        }
    }

    /// It lies elsewhere from now on.
    pub fn place(&self, placement: Arc<Placement>) {
        if !Arc::ptr_eq(&self.seat.load().placement, &placement) {
            self.seat.rcu(|seat| Seat { placement: Arc::clone(&placement), ..Seat::clone(seat) });
            self.placed.notify_waiters();
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
            self.placed.notify_waiters();
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

    /// Completes when it lies elsewhere or is led by another node than when this was called.
    pub fn moved(&self) -> Notified<'_> {
        self.placed.notified()
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

    /// The leader epoch in which the replica here leads; `None` where it does not.
    pub fn led_in(&self) -> Option<Epoch> {
        let replica = self.chosen().filter(|replica| replica.leads())?;
        let epoch = replica.leader_epoch();
        // It may have stepped down in between.
        (replica.leads() && replica.leader_epoch() == epoch).then_some(epoch)
    }

    /// Where the log ended when the replica here began to lead; `None` where it does not.
    pub fn led_from(&self) -> Option<Offset> {
        let epoch = self.led_in()?;
        let (epochs, end) = (self.epochs(), self.watermarks().log_end);
        Some(epochs.start_of(epoch).unwrap_or(end))
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

    pub(super) fn replica(&self) -> Option<Arc<Replica>> {
        self.seat.load().replica.clone()
    }

    /// The replica here, for what only a replica can do.
    fn held(&self) -> Result<Arc<Replica>, AppendError> {
        self.replica().ok_or(AppendError::NotLeader)
    }

    fn readable(&self) -> Result<Arc<Replica>, ReadError> {
        self.replica().ok_or_else(|| ReadError::Offline(self.elsewhere()))
    }

    pub(super) fn elsewhere(&self) -> String {
        format!("partition {}-{} has no replica on this node", self.topic, self.index)
    }

    /// The replica here, where this node was chosen to lead.
    pub(super) fn chosen(&self) -> Option<Arc<Replica>> {
        let seat = self.seat.load();
        seat.replica.as_ref().filter(|_| seat.placement.leader == Some(self.here)).cloned()
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

    /// Of the replica here; where there is none, those that the leader told last (zeros before it was asked).
    pub fn watermarks(&self) -> Watermarks {
        let heard = || *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.seat.load().replica.as_deref().map_or_else(heard, Replica::watermarks)
    }

    /// Follows the watermarks of the replica here; long polls wait on it. Closed where there is none: see
    /// [`Partition::advanced`].
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
        self.chosen().ok_or(AppendError::NotLeader)?.set_log_start(to).await
    }
}
