//! Appends in the name of leaders of other partitions, wherever the partition that they go to is led.

use forebay_disk::AppendData;
use forebay_log::{AppendError, Offset};

use super::appends::Route;
use super::partition::Partition;
use super::ticket::Ticket;
use crate::fence::Claim;
use crate::forward::{Claimed, Remote};

impl Partition {
    /// [`Partition::submit`] as the leader of other partitions. A node alone has no leaders but its own, and asks nobody.
    ///
    /// When it fails, other than by [`AppendError::ProducerFenced`], the records may be in the log or still come into it: until the
    /// claim is renewed and an append of it has succeeded, or [`Partition::fence`].
    ///
    /// # Errors
    /// As `submit`; the ticket fails with [`AppendError::ProducerFenced`] once there is a later leader or a later beginning, and with
    /// [`AppendError::NotLeader`] as long as the partition's leader has not heard of the claim's leaderships.
    pub async fn submit_as(&self, claim: &Claim, data: AppendData) -> Result<Ticket, AppendError> {
        if self.forwarder.is_none() {
            return self.submit(data).await;
        }
        self.claimed(claim, Some(data)).await
    }

    /// Waits until nothing of earlier leaders and beginnings than the claim's can come into the log any more: returns the offset that
    /// all of it lies below.
    ///
    /// # Errors
    /// As [`Partition::submit_as`].
    pub async fn fence(&self, claim: &Claim) -> Result<Offset, AppendError> {
        if self.forwarder.is_none() {
            return Ok(self.watermarks().log_end);
        }
        self.claimed(claim, None).await?.await.map(|at| at.base_offset)
    }

    async fn claimed(&self, claim: &Claim, data: Option<AppendData>) -> Result<Ticket, AppendError> {
        let Some(forwarder) = &self.forwarder else { return Err(AppendError::NotLeader) };
        let claimed = |epoch| Claimed { partition: self.id, epoch, claim: claim.clone(), data };
        let remote = match self.route().await? {
            Route::Here(replica) => {
                let (claimed, receiver) = (claimed(replica.leader_epoch()), forwarder.receiver.clone());
                // Whoever comes next waits for its end, whether somebody waits for it here or not.
                Remote::of(self.here, async move { claimed.decide(&receiver).await })
            }
            Route::There(connected, epoch) => connected.send_claimed(claimed(epoch)).await?,
        };
        Ok(Ticket::there(remote, None))
    }
}
