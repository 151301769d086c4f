//! Appends that wait to be sent to a leader: what many clients have for one partition while earlier appends are under way goes as
//! one message, with one answer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forebay_disk::{AppendData, Appended};
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, NodeId};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::sender::{ANSWER, Append, unreachable};
use super::wire::{self, MAX_APPENDS};
use crate::kinds;
use crate::link::{Link, LinkError, Pending};

/// Messages under way for a partition. While one is synced, the next is taken; with more, each would carry less.
const UNDER_WAY: usize = 2;
/// Bytes at which a message takes no more appends.
const FULL: usize = 1 << 20;

/// An append that is to be sent.
pub(super) struct Outgoing {
    pub(super) append: Append,
    pub(super) data: AppendData,
    pub(super) leader: NodeId,
    pub(super) link: Link,
    /// The version of the message that the other node speaks.
    pub(super) version: u16,
    pub(super) answered: oneshot::Sender<Result<Appended, AppendError>>,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What waits, by partition. A partition is here while something of it waits or is under way.
#[derive(Default)]
pub(super) struct Outboxes {
    waiting: Mutex<HashMap<PartitionId, Outbox>>,
    sent: AtomicU64,
}

#[derive(Default)]
struct Outbox {
    queue: VecDeque<Outgoing>,
    more: Arc<Notify>,
}

/// One message, and who waits for its answers.
struct Message {
    leader: NodeId,
    link: Link,
    version: u16,
    appends: Vec<(Append, AppendData)>,
    waiting: Waiting,
}

type Waiting = Vec<(oneshot::Sender<Result<Appended, AppendError>>, OwnedSemaphorePermit)>;

/// What the task that empties an outbox does next.
enum Next {
    Message(Message),
    Nothing,
    Over,
}

impl Outboxes {
    /// Appends that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends an append after those of the same partition before it.
    pub(super) fn send(self: &Arc<Self>, outgoing: Outgoing) {
        let partition = outgoing.append.partition;
        let mut waiting = self.lock();
        let is_new = !waiting.contains_key(&partition);
        let outbox = waiting.entry(partition).or_default();
        outbox.queue.push_back(outgoing);
        if is_new {
            let (outboxes, more) = (Arc::clone(self), Arc::clone(&outbox.more));
            drop(waiting);
            tokio::spawn(async move { outboxes.empty(partition, &more).await });
        } else {
            outbox.more.notify_one();
        }
    }

    /// Sends what is in a partition's outbox until there is nothing left and all is answered.
    async fn empty(&self, partition: PartitionId, more: &Notify) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < UNDER_WAY {
                match self.take(partition, under_way.is_empty()) {
                    Next::Message(message) => {
                        self.sent.fetch_add(message.appends.len() as u64, Ordering::Relaxed);
                        under_way.extend(message.send().await);
                    }
                    Next::Nothing => break,
                    Next::Over => return,
                }
            }
            tokio::select! {
                _ = under_way.next() => {}
                () = more.notified(), if under_way.len() < UNDER_WAY => {}
            }
        }
    }

    /// The next message. The outbox goes away when there is none and nothing is under way.
    fn take(&self, partition: PartitionId, idle: bool) -> Next {
        let mut waiting = self.lock();
        let Some(outbox) = waiting.get_mut(&partition) else { return Next::Over };
        let Some(first) = outbox.queue.pop_front() else {
            if idle {
                waiting.remove(&partition);
                return Next::Over;
            }
            return Next::Nothing;
        };
        let mut bytes = first.data.bytes();
        let mut message = Message::of(first);
        while message.appends.len() < MAX_APPENDS
            && let Some(next) = outbox
                .queue
                .pop_front_if(|next: &mut Outgoing| message.takes(next) && bytes + next.data.bytes() <= FULL)
        {
            bytes += next.data.bytes();
            message.add(next);
        }
        Next::Message(message)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionId, Outbox>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Message {
    fn of(first: Outgoing) -> Message {
        let Outgoing { append, data, leader, link, version, answered, _permit } = first;
        Message { leader, link, version, appends: vec![(append, data)], waiting: vec![(answered, _permit)] }
    }

    /// Whether it goes over the same connection.
    fn takes(&self, next: &Outgoing) -> bool {
        self.link.number() == next.link.number()
    }

    fn add(&mut self, Outgoing { append, data, answered, _permit, .. }: Outgoing) {
        self.appends.push((append, data));
        self.waiting.push((answered, _permit));
    }

    /// Hands it to the connection, in whose order it is from then on; what is returned waits for the answers.
    async fn send(self) -> Option<impl Future<Output = ()> + use<>> {
        let Message { leader, link, version, appends, waiting } = self;
        let body = wire::write_appends(appends, version);
        match link.submit(kinds::APPEND, version, body, ANSWER).await {
            Ok(pending) => Some(answer(leader, pending, waiting)),
            Err(error) => {
                refuse(leader, &error, waiting);
                None
            }
        }
    }
}

async fn answer(leader: NodeId, pending: Pending, waiting: Waiting) {
    let answers = match pending.answer().await {
        Ok(answers) => read(leader, answers, waiting.len()),
        Err(error) => return refuse(leader, &error, waiting),
    };
    for ((answered, _permit), answer) in waiting.into_iter().zip(answers) {
        // A client that no longer waits has its records all the same.
        let _ = answered.send(answer);
    }
}

fn read(leader: NodeId, answers: Bytes, count: usize) -> Vec<Result<Appended, AppendError>> {
    wire::read_answers(answers, count).unwrap_or_else(|problem| {
        let why = AppendError::Storage(format!("the answer of node {leader} cannot be read: {problem}"));
        vec![Err(why); count]
    })
}

fn refuse(leader: NodeId, error: &LinkError, waiting: Waiting) {
    for (answered, _permit) in waiting {
        let _ = answered.send(Err(unreachable(leader, error)));
    }
}
