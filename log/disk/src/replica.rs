//! A partition as a replica: it is told to lead or to follow, takes its leader's batches, and gives its own to followers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_log::partition::{
    Copied, Event, Follower, IsrChange, LeaderMarks, Leadership, Starts, Truncation, Watermarks, check_copy,
};
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Incarnation, NodeId, Offset, PartitionEpoch, ReadError};
use tokio::sync::oneshot;

use crate::machine::Token;
use crate::partition::{Fetched, Partition};
use crate::shard::Request;
use crate::shared::Shared;

/// A change of a partition's in-sync replicas that the controller is to be asked for. Of each partition there is one at most at a
/// time: the next comes when it was taken ([`Partition::lead`]) or refused ([`Partition::isr_refused`]).
#[derive(Debug, Clone)]
pub struct IsrProposal {
    pub partition: PartitionId,
    pub change: IsrChange,
}

/// Is told when a partition's watermarks move. Called on the partition's shard: it must not wait.
pub trait Observer: Send + Sync {
    fn moved(&self, topic: &str, partition: u32, marks: &Watermarks);
}

/// Completes when the leader's batches are durable here. Fails when they do not follow on the log, the epoch is another by now, or
/// the disk fails.
pub struct Copying {
    kept: oneshot::Receiver<Result<(), AppendError>>,
    shared: Arc<Shared>,
}

impl Future for Copying {
    type Output = Result<(), AppendError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.kept).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(self.shared.unanswered())))
    }
}

impl Partition {
    /// Whether this node leads it.
    pub fn leads(&self) -> bool {
        self.shared.leading.load(Ordering::Acquire)
    }

    /// This node leads, or what the controller says of the partition that it leads has changed.
    ///
    /// # Errors
    /// The log shuts down.
    pub async fn lead(&self, word: Leadership) -> Result<(), AppendError> {
        self.tell(Event::Lead(word)).await
    }

    /// Another node leads from `epoch` on, or none. On return nothing of this node's own leadership is under way any more, and
    /// [`Partition::watermarks`] and [`Partition::epochs`] tell from where to copy.
    ///
    /// # Errors
    /// A later epoch is known already, the disk fails, or the log shuts down.
    pub async fn follow(&self, epoch: Epoch) -> Result<(), AppendError> {
        self.control(|token| Event::Follow(epoch, token)).await
    }

    /// A follower has everything below `end` durably.
    ///
    /// # Errors
    /// The log shuts down.
    pub async fn replicated(
        &self,
        epoch: Epoch,
        replica: NodeId,
        incarnation: Incarnation,
        end: Offset,
    ) -> Result<(), AppendError> {
        self.tell(Event::Replicated { epoch, replica, incarnation, end }).await
    }

    /// The controller has refused a change of the in-sync replicas; another may be proposed.
    ///
    /// # Errors
    /// The log shuts down.
    pub async fn isr_refused(&self, at: PartitionEpoch) -> Result<(), AppendError> {
        self.tell(Event::IsrRefused(at)).await
    }

    /// How far the followers are; empty where this node does not lead.
    ///
    /// # Errors
    /// The partition is not open, or the log shuts down.
    pub async fn followers(&self) -> Result<Vec<Follower>, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Event::DescribeFollowers(Token::Followers(reply))).await?;
        answer.await.map_err(|_| self.shared.unanswered())
    }

    /// Hands batches of the leader of `epoch`, which begin at `from`, to the partition's shard; without batches the marks alone.
    /// Those handed over one after the other keep their order.
    ///
    /// # Errors
    /// They are damaged, or the log shuts down.
    pub async fn copy(
        &self,
        epoch: Epoch,
        from: Offset,
        batches: Bytes,
        marks: LeaderMarks,
    ) -> Result<Copying, AppendError> {
        check_copy(&batches, from)?;
        let (reply, kept) = oneshot::channel();
        let token = Token::Control(reply);
        self.tell(Event::Copy(Copied { epoch, batches, marks, token })).await?;
        Ok(Copying { kept, shared: Arc::clone(&self.shared) })
    }

    /// Where the log starts, here and in the cold tier.
    pub fn starts(&self) -> Arc<Starts> {
        self.shared.starts.load_full()
    }

    /// Cuts the log back to where it agrees with the leader's, or begins it anew; durable on return.
    ///
    /// # Errors
    /// Committed records would go, the epoch is another by now, or the disk fails.
    pub async fn truncate(&self, cut: Truncation) -> Result<(), AppendError> {
        self.control(|token| Event::Truncate(cut, token)).await
    }

    /// As [`Partition::read`], for a follower: up to the log end, which is durable here.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_to_end(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        let watermarks = self.watermarks();
        self.read_below(from, max_bytes, watermarks.log_end)
    }

    /// Has `observer` told of every move of the watermarks from now on.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared.observers.rcu(|known| {
            let mut next = Vec::clone(known);
            next.push(Arc::clone(&observer));
            next
        });
    }

    /// Ends [`Partition::observe`].
    pub fn unobserve(&self, observer: &Arc<dyn Observer>) {
        self.shared.observers.rcu(|known| {
            let mut next = Vec::clone(known);
            next.retain(|known| !Arc::ptr_eq(known, observer));
            next
        });
    }

    async fn tell(&self, event: Event<Token>) -> Result<(), AppendError> {
        self.mailbox.send(Request::Event(self.key, event)).await
    }
}
