//! Appends to a partition, by the way to whichever node leads it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use forebay_disk::{AppendData, Appended, Partition as Replica, Term};
use forebay_log::{AppendError, Epoch};
use tokio::time::Instant;

use super::chain::{Chain, Way};
use super::partition::Partition;
use super::ticket::Ticket;
use crate::forward::{Append, Connected, Remote};
use crate::writers::Written;

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

impl Partition {
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
}
