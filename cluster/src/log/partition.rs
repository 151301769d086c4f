//! A handle to one partition: appends go to its leader, reads to the replica on this node.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_disk::{
    ActiveProducer, AppendData, Appended, ClosedSegment, EpochCache, Fetched, Partition as Replica, Term, Watermarks,
};
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Millis, NodeId, Offset, ReadError};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::chain::{Chain, Way};
use super::placement::Placement;
use super::ticket::Ticket;
use super::topic::Seat;
use crate::forward::{Append, Connected, Forwarder, Remote};
use crate::writers::Written;

/// What is known of the offsets of a partition that has no replica on this node.
const UNKNOWN: Watermarks = Watermarks {
    log_start: Offset::ZERO,
    local_start: Offset::ZERO,
    high_watermark: Offset::ZERO,
    log_end: Offset::ZERO,
};

/// How long an append waits for the partition to have a leader that can be reached: as long as a failover may take.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Longest time between two looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// And where this node is about to lead, of which nothing tells.
const ROLE_TAKEN: Duration = Duration::from_millis(2);

/// The way to a partition's leader.
pub(super) enum Route {
    /// This node leads: its replica.
    Here(Arc<Replica>),
    /// Another one does, and the connection to it is there.
    There(Box<Connected>, Epoch),
}

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
    fn chosen(&self) -> Option<Arc<Replica>> {
        let seat = self.seat.load();
        seat.replica.as_ref().filter(|_| seat.placement.leader == Some(self.here)).cloned()
    }

    /// The way to the leader; waits for a while when there is none, or it cannot be reached.
    pub(super) async fn route(&self) -> Result<Route, AppendError> {
        // A node alone always leads, also before it says so: its replica tells why it takes nothing.
        if let Some(replica) = self.chosen().filter(|replica| self.forwarder.is_none() || replica.leads()) {
            return Ok(Route::Here(replica));
        }
        let Some(forwarder) = &self.forwarder else { return Err(AppendError::NotLeader) };
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let mut placed = pin!(self.placed.notified());
            let placement = self.placement();
            let why = match placement.leader {
                Some(leader) if leader == self.here => match self.chosen() {
                    Some(replica) if replica.leads() || replica.offline().is_some() => return Ok(Route::Here(replica)),
                    _ => AppendError::NotLeader,
                },
                Some(leader) => tokio::select! {
                    connected = forwarder.connect(leader) => match connected {
                        Ok(connected) => return Ok(Route::There(Box::new(connected), placement.leader_epoch)),
                        Err(error) => error,
                    },
                    // It has another leader by now, or lies here.
                    () = &mut placed => continue,
                },
                None => AppendError::NotLeader,
            };
            if Instant::now() >= deadline {
                return Err(why);
            }
            let pause = if placement.leader == Some(self.here) { ROLE_TAKEN } else { LOOK_AGAIN };
            let _ = tokio::time::timeout(pause, placed).await;
        }
    }

    async fn submit_by(
        &self,
        written: Option<Written>,
        chain: Option<&Chain>,
        all: bool,
        data: AppendData,
    ) -> Result<Ticket, AppendError> {
        let route = self.route().await?;
        let led_in = match &route {
            Route::Here(replica) => replica.leader_epoch(),
            Route::There(_, epoch) => *epoch,
        };
        // Without a forwarder there is one leader for ever.
        let written = written.filter(|_| self.forwarder.is_some());
        if written.is_some_and(|written| written.epoch != led_in) {
            return Err(AppendError::NotLeader);
        }
        let writer = written.map(|written| written.by);
        let way = match &route {
            Route::Here(_) => Way::Here,
            Route::There(connected, _) => Way::Over(connected.number()),
        };
        let under_way = chain.map(|chain| chain.begin(self.id, way)).transpose()?;
        let chain = chain.map(Chain::here);
        Ok(match route {
            Route::Here(replica) => {
                let writers = self.forwarder.as_ref().map(|forwarder| &forwarder.receiver.writers);
                let writing = writer.zip(writers).map(|(by, writers)| writers.begin(by)).transpose()?;
                let ticket = match chain {
                    Some(chain) => replica.submit_chained(chain, all, data).await?,
                    None if all => replica.submit(data).await?,
                    None => replica.submit_to_leader(data).await?,
                };
                match writing {
                    None => Ticket::here(ticket, under_way),
                    // A fence waits for its end, whether somebody waits for it here or not.
                    Some(writing) => {
                        let ends = async move {
                            let answer = ticket.await;
                            drop(writing);
                            answer
                        };
                        Ticket::there(Remote::of(self.here, ends), under_way)
                    }
                }
            }
            Route::There(connected, epoch) => {
                let chain_id = chain.map_or(0, forebay_disk::Chain::id);
                let append = Append { partition: self.id, epoch, all, chain: chain_id, writer };
                Ticket::there(connected.send(append, chain, data).await?, under_way)
            }
        })
    }

    /// Hands `data` to the partition's leader, waiting while too much is pending in the node (back-pressure), and for a few
    /// seconds for a leader. The ticket completes when the records are durable on every in-sync replica. Appends submitted one
    /// after the other keep their order.
    ///
    /// # Errors
    /// What refuses the data at once: batches that are not valid, a full disk, a deleted topic, a node that stops, a
    /// partition without a leader that can be reached.
    pub async fn submit(&self, data: AppendData) -> Result<Ticket, AppendError> {
        self.submit_by(None, None, true, data).await
    }

    /// [`Partition::submit`], content with the leader alone, whatever `min.insync.replicas` says (Kafka's acks=1).
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_to_leader(&self, data: AppendData) -> Result<Ticket, AppendError> {
        self.submit_by(None, None, false, data).await
    }

    /// [`Partition::submit`] or, unless it waits for `all`, [`Partition::submit_to_leader`] as the next of a chain: once an append
    /// of the chain was refused, later ones are too, those on their way included.
    ///
    /// # Errors
    /// As `submit`, and after an earlier refusal.
    pub async fn submit_chained(&self, chain: &Chain, all: bool, data: AppendData) -> Result<Ticket, AppendError> {
        chain.check()?;
        self.submit_by(None, Some(chain), all, data).await.inspect_err(|_| chain.break_off())
    }

    /// [`Partition::submit_chained`], or without a chain, of a writer and to one leader alone: refused when the partition has another
    /// one by now, and once the writer is fenced ([`Partition::fence_writers`]).
    ///
    /// # Errors
    /// As `submit_chained`; [`AppendError::NotLeader`] and [`AppendError::ProducerFenced`].
    pub async fn submit_written(
        &self,
        written: Written,
        chain: Option<&Chain>,
        all: bool,
        data: AppendData,
    ) -> Result<Ticket, AppendError> {
        chain.map_or(Ok(()), Chain::check)?;
        let submitted = self.submit_by(Some(written), chain, all, data).await;
        submitted.inspect_err(|_| chain.into_iter().for_each(Chain::break_off))
    }

    /// [`Partition::submit`] to the replica here alone, in a term of its leadership: refused where this node does not lead, leads in
    /// another epoch, or the term was ended.
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_in(&self, term: &Term, data: AppendData) -> Result<Ticket, AppendError> {
        let replica = self.chosen().ok_or(AppendError::NotLeader)?;
        replica.submit_in(term, data).await.map(|ticket| Ticket::here(ticket, None))
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
