//! The side that has taken an append from a client: over one connection to each leader, in order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_disk::{AppendData, Appended, Chain, Fetched};
use forebay_log::limits::MAX_PENDING_APPEND_BYTES;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, NodeId, ReadError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::claimed::Claimed;
use super::fence::{self, Fence};
use super::outbox::{Outboxes, Outgoing};
use super::read::{self, Read};
use super::receiver::Receiver;
use super::wire;
use crate::kinds;
use crate::link::{Lane, Link, LinkError, Links};
use crate::node::Standing;
use crate::writers::Writer;

/// How long an append waits for its answer: as long as a disk may hang.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How long an append waits for the connection to its leader.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a read waits for its answer, beyond what it may wait for records.
const READ_ANSWER: Duration = Duration::from_secs(10);

/// What the leader has to know of an append besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) partition: PartitionId,
    /// The leadership that is meant.
    pub(crate) epoch: Epoch,
    pub(crate) all: bool,
    /// The number of its chain; 0 is none.
    pub(crate) chain: u64,
    /// Whose it is, of one that has a successor one day.
    pub(crate) writer: Option<Writer>,
}

/// The way to the leaders.
pub(crate) struct Forwarder {
    links: Arc<Links>,
    /// For appends of this node itself that a receiver has to decide on.
    pub(crate) receiver: Arc<Receiver>,
    /// One permit a byte.
    admission: Arc<Semaphore>,
    outboxes: Arc<Outboxes>,
    standing: watch::Receiver<Standing>,
}

/// The answer of another node that is on its way.
pub(crate) struct Remote {
    leader: NodeId,
    answer: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Remote {
    /// Of a task that goes on whether somebody waits for it or not.
    pub(crate) fn of(
        leader: NodeId,
        decided: impl Future<Output = Result<Appended, AppendError>> + Send + 'static,
    ) -> Remote {
        let (answered, answer) = oneshot::channel();
        tokio::spawn(async move {
            let _ = answered.send(decided.await);
        });
        Remote { leader, answer }
    }
}

impl Future for Remote {
    type Output = Result<Appended, AppendError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let leader = self.leader;
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(given_up(leader))))
    }
}

impl Forwarder {
    pub(crate) fn new(links: Arc<Links>, receiver: Arc<Receiver>, standing: watch::Receiver<Standing>) -> Forwarder {
        let admission = Arc::new(Semaphore::new(MAX_PENDING_APPEND_BYTES));
        Forwarder { links, receiver, admission, outboxes: Arc::default(), standing }
    }

    /// Whether this node may speak as the leader of what it leads.
    pub(crate) fn holds_lease(&self) -> bool {
        self.standing.borrow().holds_lease()
    }

    /// Appends that were sent to leaders on other nodes.
    pub(crate) fn sent(&self) -> u64 {
        self.outboxes.sent()
    }

    /// The connection to a leader.
    ///
    /// # Errors
    /// It cannot be reached: nothing is sent.
    pub(crate) async fn connect(&self, leader: NodeId) -> Result<Connected, AppendError> {
        let unreachable = |error: LinkError| unreachable(leader, &error);
        let link = self.links.link(leader.0, Lane::Forward, CONNECT).await.map_err(unreachable)?;
        let version = link.common(kinds::APPEND).map_err(unreachable)?;
        let (admission, outboxes) = (Arc::clone(&self.admission), Arc::clone(&self.outboxes));
        Ok(Connected { leader, link, version, admission, outboxes })
    }

    /// Reads from a leader.
    ///
    /// # Errors
    /// It cannot be reached, leads no more, or cannot read that.
    pub(crate) async fn read(&self, leader: NodeId, read: Read) -> Result<Fetched, ReadError> {
        let patience = CONNECT + read.wait + READ_ANSWER;
        let called = self.links.call(leader.0, Lane::Forward, kinds::READ, |_| read.write(), patience).await;
        let failed = |why: String| ReadError::Offline(format!("the partition's leader, node {leader}: {why}"));
        let (_, answer) = called.map_err(|error| failed(error.to_string()))?;
        read::read_answer(answer).unwrap_or_else(|problem| Err(failed(format!("its answer cannot be read: {problem}"))))
    }

    /// Has a leader take nothing more of some writers.
    ///
    /// # Errors
    /// It cannot be reached, or does not lead in that epoch.
    pub(crate) async fn fence(&self, leader: NodeId, fence: &Fence) -> Result<(), ReadError> {
        let called = self.links.call(leader.0, Lane::Forward, kinds::FENCE, |_| fence.write(), READ_ANSWER).await;
        let failed = |why: String| ReadError::Offline(format!("the partition's leader, node {leader}: {why}"));
        match called {
            Ok((_, answer)) => fence::read_answer(answer)
                .unwrap_or_else(|problem| Err(failed(format!("its answer cannot be read: {problem}")))),
            // Of a release that does not know writers: while it leads, what comes late is not told apart.
            Err(LinkError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// A leader that can be reached.
pub(crate) struct Connected {
    leader: NodeId,
    link: Link,
    version: u16,
    admission: Arc<Semaphore>,
    outboxes: Arc<Outboxes>,
}

pub(super) fn unreachable(leader: NodeId, error: &LinkError) -> AppendError {
    let why = format!("the partition's leader, node {leader}: {error}");
    match error {
        LinkError::Unknown(_) | LinkError::Refused { .. } => AppendError::Unknown(why),
        _ => AppendError::Offline(why),
    }
}

fn given_up(leader: NodeId) -> AppendError {
    AppendError::Unknown(format!("the partition's leader, node {leader}: the append was given up"))
}

impl Connected {
    /// The number of the connection.
    pub(crate) fn number(&self) -> u64 {
        self.link.number()
    }

    /// Sends `data`, waiting while too much is on its way. Of appends that are sent one after the other the leader takes them in
    /// that order, as long as the connection lasts; when it ends, those without an answer are refused.
    ///
    /// # Errors
    /// An earlier append of the chain was refused, or it is too large: nothing is kept.
    pub(crate) async fn send(
        &self,
        append: Append,
        chain: Option<&Chain>,
        data: AppendData,
    ) -> Result<Remote, AppendError> {
        let permit = self.admit(data.bytes()).await?;
        if let Some(chain) = chain {
            chain.check()?;
        }
        let (leader, link, version) = (self.leader, self.link.clone(), self.version);
        let (answered, answer) = oneshot::channel();
        self.outboxes.send(Outgoing { append, data, leader, link, version, answered, _permit: permit });
        Ok(Remote { leader, answer })
    }

    /// Sends what is claimed.
    ///
    /// # Errors
    /// The connection has ended, or the leader is of a release that does not know of claims: nothing is kept.
    pub(crate) async fn send_claimed(&self, claimed: Claimed) -> Result<Remote, AppendError> {
        let leader = self.leader;
        let permit = self.admit(claimed.bytes()).await?;
        let version = self.link.common(kinds::CLAIMED).map_err(|error| unreachable(leader, &error))?;
        let pending = self.link.submit(kinds::CLAIMED, version, claimed.encode(), ANSWER).await;
        let pending = pending.map_err(|error| unreachable(leader, &error))?;
        Ok(Remote::of(leader, async move {
            let answers = pending.answer().await.map_err(|error| unreachable(leader, &error));
            drop(permit);
            wire::read_answers(answers?, 1)
                .ok()
                .and_then(|mut answers| answers.pop())
                .unwrap_or_else(|| Err(AppendError::Storage(format!("the answer of node {leader} cannot be read"))))
        }))
    }

    async fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let bytes = bytes.max(1);
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_PENDING_APPEND_BYTES);
        let permits = permits.ok_or(AppendError::TooLarge { bytes, limit: MAX_PENDING_APPEND_BYTES })?;
        Arc::clone(&self.admission).acquire_many_owned(permits).await.map_err(|_| AppendError::Closed)
    }
}
