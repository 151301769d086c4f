//! The loop of one connection: takes what is ready, feeds the session machine, does what it wants done.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BufMut;
use forebay_log::{AppendError, Millis};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::appends::{Appends, Settled, Submitted};
use super::feed::{Fed, Feed};
use super::input::{Arrived, Input};
use super::output::Output;
use super::streams::{StreamInput, Streams};
use super::timing::FAR;
use crate::clock::Moment;
use crate::mqtt::Broker;
use crate::mqtt::broker::Admission;
use crate::mqtt::codec::Codec;
use crate::mqtt::held::Share;
use crate::mqtt::limits::DRAIN_TIMEOUT;
use crate::mqtt::packet::{Incoming, Outgoing, Qos};
use crate::mqtt::reason;
use crate::mqtt::registry::Live;
use crate::mqtt::session::{Effect, Event, Session, Then};

/// Messages delivered in one turn of the loop.
const DELIVERIES_AT_ONCE: usize = 256;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The peer is gone, or has said that it goes.
    Lost,
    /// The session wants it; a v5 client is told.
    Closing(u8),
    /// Bytes that are no MQTT packet.
    Malformed {
        reason: u8,
        what: String,
    },
    TakenOver,
    Shutdown,
}

/// A state change on its way to the log.
type Store = BoxFuture<'static, (Then, Result<(), AppendError>)>;

/// What the loop woke up for.
#[expect(clippy::large_enum_variant, reason = "one at a time, taken apart at once: a box would cost more")]
enum Step {
    Wrote(std::io::Result<usize>),
    Settled(Settled),
    Stored(Then, Result<(), AppendError>),
    Submitted(Submitted),
    TakenOver,
    Shutdown,
    Time,
    Fed(Fed),
    Stream(StreamInput),
    Read(std::io::Result<usize>),
}

/// A connection and its session.
pub(super) struct Driver {
    pub(super) broker: Arc<Broker>,
    pub(super) live: Arc<Live>,
    pub(super) session: Session,
    /// The session's entry is stored, and has to go when the session ends.
    pub(super) is_stored: bool,
    pub(super) codec: Codec,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) appends: Appends,
    pub(super) stores: FuturesUnordered<Store>,
    /// One of these is the session with its subscriptions. The next change of them waits: each store holds all of them.
    pub(super) storing_entry: bool,
    /// The streams on which these are answered.
    pub(super) answering: Vec<u64>,
    pub(super) feed: Option<Box<Feed>>,
    pub(super) streams: Option<Box<Streams>>,
    pub(super) effects: Vec<Effect>,
    /// Results known at once.
    pub(super) again: Vec<Event>,
    pub(super) closing: Option<u8>,
    /// Set once nothing more is to be read; what was read is still taken.
    pub(super) ending: Option<End>,
    pub(super) cursors_due: Option<Instant>,
    pub(super) held: Share,
    pub(super) _admission: Admission,
}

impl Driver {
    /// Runs until the connection has to end; what is on its way into the log may still be unsettled.
    pub(super) async fn run<R, W>(&mut self, reader: &mut R, writer: &mut W, shutdown: &CancellationToken) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut timer = Box::pin(tokio::time::sleep(FAR));
        // Registered once and not in each turn: both take a lock.
        let live = self.live.clone();
        let mut claimed = pin!(live.claimed.notified());
        let mut cancelled = pin!(shutdown.cancelled());
        let mut drain_by = None;
        loop {
            self.pump();
            if let Some(code) = self.closing {
                return End::Closing(code);
            }
            if let Some(end) = &self.ending
                && self.input.is_drained()
                && self.appends.submitting.is_none()
            {
                return end.clone();
            }
            self.set_timer(timer.as_mut(), drain_by);
            match self.step(reader, writer, timer.as_mut(), claimed.as_mut(), cancelled.as_mut()).await {
                Step::Wrote(Ok(n)) => {
                    self.broker.metrics.mqtt.sent_bytes.inc_by(n as u64);
                }
                Step::Wrote(Err(_)) => {
                    self.output.give_up();
                    self.end(End::Lost);
                }
                Step::Settled(settled) => self.settled(settled),
                Step::Stored(then, result) => self.stored(then, result),
                Step::Submitted(submitted) => self.appends.submitted(submitted),
                Step::TakenOver => self.end(End::TakenOver),
                Step::Shutdown => {
                    drain_by = Some(Instant::now() + DRAIN_TIMEOUT);
                    self.end(End::Shutdown);
                }
                Step::Time => {
                    if drain_by.is_some_and(|by| by <= Instant::now()) {
                        return End::Shutdown;
                    }
                    self.time();
                }
                Step::Fed(fed) => self.fed(fed),
                Step::Stream(input) => self.stream_input(input),
                Step::Read(read) => self.read(read),
            }
        }
    }

    async fn step<R, W>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        timer: Pin<&mut Sleep>,
        claimed: Pin<&mut Notified<'_>>,
        cancelled: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Step
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let going_on = self.ending.is_none();
        let room = if going_on { self.room_to_read() } else { 0 };
        let may_deliver = going_on && self.output.is_low() && self.session.has_room();
        if room > 0 {
            self.input.prepare();
        }
        let Driver { input, output, appends, stores, feed, streams, .. } = self;
        let Appends { submitting, groups, .. } = appends;
        let submitted = async {
            match submitting {
                Some(submitting) => submitting.await,
                None => std::future::pending().await,
            }
        };
        let fed = async {
            match feed {
                Some(feed) => feed.next(may_deliver).await,
                None => std::future::pending().await,
            }
        };
        let from_streams = async {
            match streams {
                Some(streams) => streams.next().await,
                None => std::future::pending().await,
            }
        };
        let mut buffer = (&mut input.buffer).limit(room);
        let must_write = !output.buffer.is_empty() || output.unflushed;
        tokio::select! {
            biased;
            () = claimed, if going_on => Step::TakenOver,
            () = cancelled, if going_on => Step::Shutdown,
            Some(settled) = groups.next(), if !groups.is_empty() => Step::Settled(settled),
            Some((then, result)) = stores.next(), if !stores.is_empty() => Step::Stored(then, result),
            submitted = submitted => Step::Submitted(submitted),
            wrote = output.write(writer), if must_write => Step::Wrote(wrote),
            () = timer => Step::Time,
            fed = fed, if going_on => Step::Fed(fed),
            input = from_streams, if room == usize::MAX => Step::Stream(input),
            read = reader.read_buf(&mut buffer), if room > 0 => Step::Read(read),
        }
    }

    /// Bytes that may be read now. While all connections together hold too much, it is so few that only PINGREQs matter.
    pub(super) fn room_to_read(&self) -> usize {
        match self.output.is_low() && self.input.has_room() {
            true if self.held.may_grow() => usize::MAX,
            true => self.input.room_for_pings(),
            false => 0,
        }
    }

    /// Takes packets while there is room, hands gathered publishes to the log, sends what subscriptions brought.
    fn pump(&mut self) {
        let now = self.broker.clock.now();
        loop {
            while !self.again.is_empty() {
                for event in std::mem::take(&mut self.again) {
                    self.event(event);
                }
            }
            if self.closing.is_some() || !self.appends.has_room() || !self.output.is_low() {
                break;
            }
            match self.input.front() {
                None => break,
                Some(Arrived::Packet(Incoming::Publish(publish)))
                    if publish.message.qos != Qos::AtMostOnce && !self.session.may_publish() =>
                {
                    break;
                }
                Some(Arrived::Packet(Incoming::Subscribe { .. } | Incoming::Unsubscribe { .. }))
                    if self.storing_entry =>
                {
                    break;
                }
                Some(_) => {}
            }
            let Some((stream, arrived)) = self.input.pop() else { break };
            let Arrived::Packet(packet) = arrived else {
                self.stream_ended(stream);
                continue;
            };
            if let Incoming::Publish(publish) = &packet {
                self.broker.metrics.mqtt.published(publish.message.qos as u8);
            }
            self.handle(now, Event::Packet { stream, packet });
        }
        self.appends.start(&self.broker, &self.live);
        self.held.set(self.input.bytes() + self.appends.held());
        if self.ending.is_none() && self.closing.is_none() {
            self.deliver(now);
        }
        let (inbound, answering) = (&self.session.kept.inbound, &self.answering);
        if let Some(streams) = &mut self.streams
            && !streams.flush(|stream| inbound.awaits(stream) || answering.contains(&stream))
        {
            self.closing = Some(reason::QUOTA_EXCEEDED);
        }
        self.live.inflight.store(self.session.inflight(), Ordering::Relaxed);
    }

    fn deliver(&mut self, now: Millis) {
        for _ in 0..DELIVERIES_AT_ONCE {
            let Some(feed) = &mut self.feed else { return };
            feed.fill(&self.broker, &self.session);
            if !self.session.has_room() || !self.output.is_low() {
                return;
            }
            let Some(delivery) = feed.try_next() else { return };
            let wall = self.broker.clock.moment(now).wall;
            self.handle(now, Event::Deliver { delivery, wall });
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.handle(self.broker.clock.now(), event);
    }

    fn handle(&mut self, now: Millis, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.session.handle(now, event, &mut effects);
        self.apply_all(now, effects);
    }

    pub(super) fn settled(&mut self, settled: Settled) {
        self.take_settled(settled);
        // All that one commit settled leaves in one write.
        while let Some(Some(settled)) = self.appends.groups.next().now_or_never() {
            self.take_settled(settled);
        }
        if self.appends.is_settled() {
            // Perhaps the last publish for long: a meter that is silent holds no buffers.
            self.effects = Vec::new();
            self.input.rest();
        }
    }

    fn take_settled(&mut self, settled: Settled) {
        self.appends.settled(&settled);
        self.broker.metrics.mqtt.settled(settled.since.elapsed());
        for error in &settled.lost {
            self.lost(error);
        }
        let now = self.broker.clock.now();
        for outcome in settled.outcomes {
            if let Err(error) = &outcome.result {
                super::log_refused(&self.live, error);
            }
            let (stream, sequence, result) = (outcome.stream, outcome.sequence, outcome.result);
            self.handle(now, Event::Appended { stream, sequence, result });
        }
    }

    pub(super) fn stored(&mut self, then: Then, result: Result<(), AppendError>) {
        if let Some(at) = self.answering.iter().position(|stream| Some(*stream) == then.stream()) {
            self.answering.swap_remove(at);
        }
        self.storing_entry &= !matches!(then, Then::SubAck { .. } | Then::UnsubAck { .. });
        self.event(Event::Stored { then, result });
    }

    fn fed(&mut self, fed: Fed) {
        match fed {
            Fed::Delivery(delivery) => {
                let Moment { steady, wall } = self.broker.clock.moment(self.broker.clock.now());
                self.handle(steady, Event::Deliver { delivery, wall });
            }
            // The next turn of the loop does.
            Fed::Again => {}
            Fed::Page(page) => {
                if let Some(feed) = &mut self.feed {
                    self.broker.hub.turn_page(&mut feed.receiving, page);
                }
            }
        }
    }

    fn read(&mut self, read: std::io::Result<usize>) {
        match read {
            Ok(0) | Err(_) => self.end(End::Lost),
            Ok(n) => {
                self.broker.metrics.mqtt.received_bytes.inc_by(n as u64);
                self.input.adapt(n);
                self.decode();
            }
        }
    }

    pub(super) fn decode(&mut self) {
        self.session.heard(self.broker.clock.now());
        match self.input.decode(&mut self.codec) {
            Ok(pings) => {
                for _ in 0..pings {
                    self.output.put(&self.codec, &Outgoing::PingResp);
                }
            }
            Err(error) => self.end(End::Malformed { reason: error.reason_code(), what: error.text().to_owned() }),
        }
    }

    /// The first reason counts, but a loss outranks what was to be told.
    pub(super) fn end(&mut self, end: End) {
        if self.ending.is_none() || end == End::Lost {
            self.ending = Some(end);
        }
    }
}
