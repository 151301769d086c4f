//! Reads of a partition wherever it lies: from the replica here, or from the leader.

use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;

use forebay_disk::Fetched;
use forebay_log::{Epoch, Offset, ReadError};

use super::partition::Partition;
use crate::forward::{Fence, Read, SUCCEEDED};
use crate::writers::{MAX_AT_ONCE, Writer};

/// Pause before a leader that could not be asked is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Partition {
    /// As [`Partition::read`], from the leader where this node has no replica.
    ///
    /// # Errors
    /// As `read`; [`ReadError::Offline`] while there is no leader that can be asked.
    pub async fn fetch(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        if self.is_here() { self.read(from, max_bytes) } else { self.fetch_from_leader(from, max_bytes).await }
    }

    /// As [`Partition::fetch`], from the leader in any case: what was acknowledged anywhere is there before it is here.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn fetch_from_leader(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        match &self.forwarder {
            None => self.read(from, max_bytes),
            Some(forwarder) if self.leader() == Some(self.here) => {
                if forwarder.holds_lease() {
                    self.read(from, max_bytes)
                } else {
                    Err(ReadError::Offline(SUCCEEDED.to_owned()))
                }
            }
            Some(_) => self.ask_leader(from, max_bytes, Duration::ZERO).await,
        }
    }

    async fn ask_leader(&self, from: Offset, max_bytes: usize, wait: Duration) -> Result<Fetched, ReadError> {
        let Some(forwarder) = &self.forwarder else { return Err(ReadError::Offline(self.elsewhere())) };
        let leader = self.leader().ok_or_else(|| self.leaderless())?;
        let fetched = forwarder.read(leader, Read { partition: self.id, from, max_bytes, wait }).await?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers may overtake each other.
        if fetched.watermarks.high_watermark >= heard.high_watermark {
            *heard = fetched.watermarks;
        }
        Ok(fetched)
    }

    /// On return the partition's leader has all that it will ever have of these writers, whose appends were meant for the leadership
    /// of `epoch` or earlier ones. It may not be committed yet.
    ///
    /// # Errors
    /// [`ReadError::Offline`] while there is no leader that can be asked.
    pub async fn fence_writers(&self, writers: &[Writer], epoch: Epoch) -> Result<(), ReadError> {
        let Some(forwarder) = &self.forwarder else { return Ok(()) };
        for writers in writers.chunks(MAX_AT_ONCE) {
            let fence = Fence { partition: self.id, epoch, writers: writers.to_vec() };
            match self.leader() {
                Some(leader) if leader == self.here => fence.decide(&forwarder.receiver).await?,
                Some(leader) => forwarder.fence(leader, &fence).await?,
                None => return Err(self.leaderless()),
            }
        }
        Ok(())
    }

    fn leaderless(&self) -> ReadError {
        ReadError::Offline(format!("partition {}-{} has no leader now", self.topic(), self.index()))
    }

    /// Waits until the high watermark, as far as this node knows it, is above `past`; at most for `patience` or until the
    /// partition lies elsewhere. Where there is no replica here, the leader is asked.
    pub async fn advanced(&self, past: Offset, patience: Duration) {
        let mut placed = pin!(self.placed.notified());
        placed.as_mut().enable();
        let waiting = async {
            match self.replica() {
                Some(replica) => {
                    if replica.watch().wait_for(|marks| marks.high_watermark > past).await.is_err() {
                        // It is being let go; `placed` tells when that is over.
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                }
                None => {
                    if self.ask_leader(past, 0, patience).await.is_err() {
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            () = placed => {}
            () = waiting => {}
            () = tokio::time::sleep(patience.max(ASK_AGAIN)) => {}
        }
    }
}
