//! A connection's publishes on their way into the log: gathered, submitted together, acknowledged when durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_disk::{Chain, Ticket};
use forebay_log::{AppendError, Millis};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::ingest::{Gather, Tickets};
use crate::mqtt::Broker;
use crate::mqtt::delivery::Published;
use crate::mqtt::intents::Mark;
use crate::mqtt::limits::{MAX_APPENDING_BYTES, MAX_APPENDING_PUBLISHES};
use crate::mqtt::packet::{Message, Text, Version};
use crate::mqtt::record;
use crate::mqtt::session::intent_key;

/// A publish that was submitted; with a sequence number the session wants to know how it ended.
struct Item {
    stream: u64,
    sequence: Option<u64>,
    ticket: usize,
    retained: bool,
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
    items: Vec<Item>,
    tickets: Vec<Result<Ticket, AppendError>>,
    results: Vec<Option<Result<(), AppendError>>>,
    retained: Option<BoxFuture<'static, Result<(), AppendError>>>,
    retained_result: Result<(), AppendError>,
    since: Instant,
    bytes: usize,
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
        if let Some(retained) = &mut group.retained {
            match retained.as_mut().poll(cx) {
                Poll::Ready(done) => {
                    group.retained_result = done;
                    group.retained = None;
                }
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(group.settle()) }
    }
}

impl Group {
    fn settle(&mut self) -> Settled {
        let publishes = self.items.len();
        let mut outcomes = Vec::with_capacity(publishes);
        let mut lost = Vec::new();
        for item in self.items.drain(..) {
            let appended = self.results.get(item.ticket).cloned().flatten().unwrap_or(Err(AppendError::Closed));
            let result = if item.retained { appended.and_then(|()| self.retained_result.clone()) } else { appended };
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
    items: Vec<Item>,
    marks: Vec<(Bytes, Option<Bytes>)>,
    retained: Vec<Published>,
    pub(super) submitting: Option<BoxFuture<'static, Submitted>>,
    pub(super) groups: FuturesUnordered<Group>,
    publishes: usize,
    bytes: usize,
}

impl Appends {
    pub(super) fn new(version: Version) -> Appends {
        Appends {
            gather: None,
            chain: (version != Version::V5).then(Chain::new),
            items: Vec::new(),
            marks: Vec::new(),
            retained: Vec::new(),
            submitting: None,
            groups: FuturesUnordered::new(),
            publishes: 0,
            bytes: 0,
        }
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
        client_id: &Text,
        publish: Arriving<'_>,
    ) -> Result<(), AppendError> {
        let Arriving { stream, sequence, message, intent } = publish;
        let gather = self.gather.get_or_insert_with(|| broker.new_gather().chained(self.chain.clone()));
        let intent = intent.map(|packet_id| (stream, packet_id));
        let (topic, partition) = record::push(gather, broker.clock.moment(now), client_id.as_str(), message, intent)?;
        if let Some((stream, packet_id)) = intent {
            let from = broker.log_end(&topic, partition);
            let mark = Mark::Intent { topic: topic.to_string(), partition, from };
            self.marks.push((intent_key(client_id.as_str(), stream, packet_id), Some(mark.encode())));
        }
        let retained = message.retain && broker.may_retain(message);
        if retained {
            self.retained.push(Published::kept(message, client_id, now));
        }
        self.items.push(Item { stream, sequence, ticket: self.items.len(), retained });
        Ok(())
    }

    /// Hands what was gathered to the log. Intents of exactly-once publishes are made durable first.
    pub(super) fn start(&mut self, broker: &Arc<Broker>) {
        if self.items.is_empty() || self.submitting.is_some() {
            return;
        }
        let Some(mut gather) = self.gather.take() else { return };
        let mut items = std::mem::take(&mut self.items);
        let marks = std::mem::take(&mut self.marks);
        let retained = std::mem::take(&mut self.retained);
        let (since, bytes) = (Instant::now(), gather.bytes());
        self.publishes += items.len();
        self.bytes += bytes;
        let (broker, chain) = (broker.clone(), self.chain.clone());
        self.submitting = Some(Box::pin(async move {
            let marked = if marks.is_empty() { Ok(()) } else { broker.sessions.put_all(marks).await };
            let (gather, tickets) = match marked {
                Ok(()) => {
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
            let keep = gather.is_some() && !retained.is_empty();
            let kept: Option<BoxFuture<'static, _>> = keep
                .then(|| -> BoxFuture<'static, _> { Box::pin(async move { broker.retained.keep(retained).await }) });
            let results = vec![None; tickets.len()];
            let group = Group { items, tickets, results, retained: kept, retained_result: Ok(()), since, bytes };
            Submitted { gather, group }
        }));
    }

    /// The log has taken a gather.
    pub(super) fn submitted(&mut self, submitted: Submitted) {
        self.submitting = None;
        self.gather = submitted.gather;
        self.groups.push(submitted.group);
    }

    /// A group is settled.
    pub(super) fn settled(&mut self, settled: &Settled) {
        self.publishes -= settled.publishes;
        self.bytes -= settled.bytes;
        if self.is_settled() && self.items.is_empty() {
            // An idle connection holds no buffers.
            self.gather = None;
        }
    }
}
