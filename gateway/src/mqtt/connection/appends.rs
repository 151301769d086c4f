//! A connection's publishes on their way into the log: gathered, submitted together, acknowledged when durable.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_cluster::{Chain, Ticket, Writer};
use forebay_log::{AppendError, Millis};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::ingest::{Gather, Tickets};
use crate::mqtt::Broker;
use crate::mqtt::delivery::Published;
use crate::mqtt::intents::Mark;
use crate::mqtt::keeping::Keeping;
use crate::mqtt::limits::{EXPECTED_BYTES, EXPECTED_PUBLISHES, MAX_APPENDING_BYTES, MAX_APPENDING_PUBLISHES};
use crate::mqtt::packet::{Message, Version};
use crate::mqtt::record;
use crate::mqtt::registry::Live;
use crate::mqtt::session::intent_key;

/// A publish that was submitted; with a sequence number the session wants to know how it ended.
struct Item {
    stream: u64,
    sequence: Option<u64>,
    ticket: usize,
    /// To be kept once the publish is durable.
    retained: Option<Arc<Published>>,
}

/// A publish that the session wants appended.
pub(super) struct Arriving<'a> {
    pub(super) stream: u64,
    pub(super) sequence: Option<u64>,
    pub(super) message: &'a Message,
    pub(super) intent: Option<u16>,
}

/// What became of one publish that the session waits for.
pub(super) struct Outcome {
    pub(super) stream: u64,
    pub(super) sequence: u64,
    pub(super) result: Result<(), AppendError>,
}

/// The settled publishes of one submit.
pub(super) struct Settled {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) since: Instant,
    publishes: usize,
    bytes: usize,
    /// Publishes that nobody waits for and that were refused, with the reason.
    pub(super) lost: Vec<AppendError>,
}

/// The publishes of one submit; completes when all are durable or refused.
pub(super) struct Group {
    broker: Arc<Broker>,
    items: Vec<Item>,
    tickets: Vec<Result<Ticket, AppendError>>,
    results: Vec<Option<Result<(), AppendError>>>,
    /// Of a group with retained messages.
    turn: Option<Turn>,
    keeping: Option<BoxFuture<'static, Result<(), AppendError>>>,
    since: Instant,
    bytes: usize,
}

/// The order in which groups keep their retained messages: that of their publishes. A group's turn comes when the one before
/// is gone.
struct Turn {
    before: Option<oneshot::Receiver<Infallible>>,
    _over: oneshot::Sender<Infallible>,
    _keeping: Keeping,
}

impl Future for Group {
    type Output = Settled;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let group = &mut *self;
        let mut pending = false;
        for (ticket, result) in group.tickets.iter_mut().zip(&mut group.results) {
            if result.is_some() {
                continue;
            }
            match ticket {
                Err(error) => *result = Some(Err(error.clone())),
                Ok(ticket) => match Pin::new(ticket).poll(cx) {
                    Poll::Ready(done) => *result = Some(done.map(|_| ())),
                    Poll::Pending => pending = true,
                },
            }
        }
        if pending {
            return Poll::Pending;
        }
        let kept = match &mut group.keeping {
            Some(keeping) => ready!(keeping.as_mut().poll(cx)),
            None => match group.keep() {
                Some(keeping) => ready!(group.keeping.insert(keeping).as_mut().poll(cx)),
                None => Ok(()),
            },
        };
        Poll::Ready(group.settle(&kept))
    }
}

impl Group {
    /// Keeps the retained messages among those that are durable now.
    fn keep(&mut self) -> Option<BoxFuture<'static, Result<(), AppendError>>> {
        let before = self.turn.as_mut()?.before.take();
        let durable = |item: &&Item| matches!(self.results.get(item.ticket), Some(Some(Ok(()))));
        let retained: Vec<_> = self.items.iter().filter(durable).filter_map(|item| item.retained.clone()).collect();
        let broker = self.broker.clone();
        Some(Box::pin(async move {
            if let Some(before) = before {
                // Nothing is ever sent: it ends when the group does.
                let _ = before.await;
            }
            broker.retained.keep(retained, &broker.clock).await
        }))
    }

    fn settle(&mut self, kept: &Result<(), AppendError>) -> Settled {
        let publishes = self.items.len();
        let mut outcomes = Vec::with_capacity(publishes);
        let mut lost = Vec::new();
        for item in self.items.drain(..) {
            let appended = self.results.get(item.ticket).cloned().flatten().unwrap_or(Err(AppendError::Closed));
            let result = if item.retained.is_some() { appended.and_then(|()| kept.clone()) } else { appended };
            match (item.sequence, result) {
                (Some(sequence), result) => outcomes.push(Outcome { stream: item.stream, sequence, result }),
                (None, Err(error)) => lost.push(error),
                (None, Ok(())) => {}
            }
        }
        Settled { outcomes, since: self.since, publishes, bytes: self.bytes, lost }
    }
}

/// A gather handed to the log.
pub(super) struct Submitted {
    gather: Option<Gather>,
    group: Group,
}

/// The publishes of one connection that are not settled.
pub(super) struct Appends {
    gather: Option<Gather>,
    /// Of a 3.1.1 client, which is cut off when a publish is refused and sends it again, behind all that was kept.
    chain: Option<Chain>,
    /// Publishes on their way that the client sends again if they are refused.
    sequenced: usize,
    /// One of these was refused.
    refused: bool,
    items: Vec<Item>,
    marks: Vec<(Bytes, Option<Bytes>)>,
    /// Ends with the last group that has retained messages.
    keeping: Option<oneshot::Receiver<Infallible>>,
    pub(super) submitting: Option<BoxFuture<'static, Submitted>>,
    pub(super) groups: FuturesUnordered<Group>,
    publishes: usize,
    bytes: usize,
    /// Of `bytes`, what the log has not yet taken.
    submitting_bytes: usize,
    /// Publishes and bytes of the last submit; the next is likely to hold as much.
    expected: (usize, usize),
}

impl Appends {
    pub(super) fn new(version: Version) -> Appends {
        Appends {
            gather: None,
            chain: (version != Version::V5).then(Chain::new),
            sequenced: 0,
            refused: false,
            items: Vec::new(),
            marks: Vec::new(),
            keeping: None,
            submitting: None,
            groups: FuturesUnordered::new(),
            publishes: 0,
            bytes: 0,
            submitting_bytes: 0,
            expected: (0, 0),
        }
    }

    /// Bytes that the log has not yet taken.
    pub(super) fn held(&self) -> usize {
        self.submitting_bytes + self.gather.as_ref().map_or(0, Gather::bytes)
    }

    /// Whether another publish may be taken; else the connection's packets wait.
    pub(super) fn has_room(&self) -> bool {
        let gathered = self.gather.as_ref().map_or(0, Gather::bytes);
        self.submitting.is_none()
            && self.publishes + self.items.len() < MAX_APPENDING_PUBLISHES
            && self.bytes + gathered < MAX_APPENDING_BYTES
    }

    /// Whether nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.submitting.is_none() && self.groups.is_empty()
    }

    /// Gathers one publish.
    ///
    /// # Errors
    /// When it cannot be appended at all.
    pub(super) fn push(
        &mut self,
        broker: &Broker,
        now: Millis,
        live: &Live,
        publish: Arriving<'_>,
    ) -> Result<(), AppendError> {
        let (Arriving { stream, sequence, message, intent }, client_id) = (publish, &live.client_id);
        let gather = self.gather.get_or_insert_with(|| broker.new_gather().chained(self.chain.clone()));
        if self.items.is_empty() {
            let (publishes, bytes) = self.expected;
            self.items.reserve(publishes);
            gather.expect(publishes, bytes);
        }
        let intent = intent.map(|packet_id| (stream, packet_id));
        let now = broker.clock.moment(now);
        let (topic, partition) = record::push(gather, now, client_id.as_str(), message, intent)?;
        if let Some((stream, packet_id)) = intent {
            let (from, epoch) = broker.committed(&topic, partition);
            let mark = Mark::Intent { topic: topic.to_string(), partition, from, epoch };
            self.marks.push((intent_key(live.scope().as_str(), stream, packet_id), Some(mark.encode())));
        }
        let retained = broker.to_retain(message, client_id, now);
        self.sequenced += usize::from(sequence.is_some());
        self.items.push(Item { stream, sequence, ticket: self.items.len(), retained });
        Ok(())
    }

    /// Hands what was gathered to the log. Intents of exactly-once publishes are made durable first.
    pub(super) fn start(&mut self, broker: &Arc<Broker>, live: &Arc<Live>) {
        if self.items.is_empty() || self.submitting.is_some() {
            return;
        }
        let Some(mut gather) = self.gather.take() else { return };
        let mut items = std::mem::take(&mut self.items);
        let marks = std::mem::take(&mut self.marks);
        let turn = self.take_turn(broker, &items);
        let (since, bytes) = (Instant::now(), gather.bytes());
        self.publishes += items.len();
        self.bytes += bytes;
        self.submitting_bytes = bytes;
        self.expected = (items.len().min(EXPECTED_PUBLISHES), bytes.min(EXPECTED_BYTES));
        let (broker, live, chain) = (broker.clone(), live.clone(), self.chain.clone());
        let writer = live.owner().filter(|_| !marks.is_empty()).map(Writer::from);
        self.submitting = Some(Box::pin(async move {
            let marked = if marks.is_empty() { Ok(()) } else { broker.put_marks(&live, marks).await };
            let (gather, tickets) = match marked {
                Ok(()) => {
                    gather.written_by(writer);
                    let Tickets { tickets, by_publish } = gather.submit().await;
                    for item in &mut items {
                        item.ticket = by_publish.get(item.ticket).map_or(usize::MAX, |ticket| *ticket as usize);
                    }
                    (Some(gather), tickets)
                }
                // Not marked, so nothing of this may be appended; the gather goes.
                Err(error) => {
                    chain.iter().for_each(Chain::break_off);
                    items.iter_mut().for_each(|item| item.ticket = 0);
                    (None, vec![Err(error)])
                }
            };
            let results = vec![None; tickets.len()];
            let group = Group { broker, items, tickets, results, turn, keeping: None, since, bytes };
            Submitted { gather, group }
        }));
    }

    fn take_turn(&mut self, broker: &Broker, items: &[Item]) -> Option<Turn> {
        if items.iter().all(|item| item.retained.is_none()) {
            return None;
        }
        let (over, next) = oneshot::channel();
        Some(Turn { before: self.keeping.replace(next), _over: over, _keeping: broker.retained.keepings.begin() })
    }

    /// The log has taken a gather.
    pub(super) fn submitted(&mut self, submitted: Submitted) {
        self.submitting = None;
        self.submitting_bytes = 0;
        self.gather = submitted.gather.map(|gather| gather.chained(self.chain.clone()));
        self.groups.push(submitted.group);
    }

    /// A group is settled.
    pub(super) fn settled(&mut self, settled: &Settled) {
        self.publishes -= settled.publishes;
        self.bytes -= settled.bytes;
        self.sequenced -= settled.outcomes.len();
        self.refused |= settled.outcomes.iter().any(|outcome| outcome.result.is_err());
        if !settled.lost.is_empty() && self.sequenced == 0 && !self.refused {
            // Only publishes at QoS 0 were refused, which do not come again: nothing can overtake them.
            self.chain = self.chain.is_some().then(Chain::new);
            self.gather = self.gather.take().map(|gather| gather.chained(self.chain.clone()));
        }
        if self.is_settled() && self.items.is_empty() {
            // An idle connection holds no buffers.
            self.gather = None;
        }
    }
}
