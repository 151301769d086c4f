//! A small MQTT client over TCP, TLS or QUIC, both versions. It runs no task of its own: whoever owns it queues publishes, then
//! calls [`Client::next`], which writes what waits, reads what came and answers with events. So thousands of clients cost one
//! task each, and a batch of publishes costs one write.
//!
//! ```text
//! loop {
//!     while client.can_publish() { client.publish(topic, payload, Qos::AtLeastOnce, tag).await?; }
//!     match client.next().await? { Event::Acked { tag, reason } => ..., Event::Message(publish) => ..., _ => {} }
//! }
//! ```

mod flow;
mod link;
mod options;
mod request;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

pub use flow::Unacked;
pub use options::{ClientError, ConnectOptions};
pub use transport::{Transport, Trust};

use crate::mqtt::codec::ClientCodec;
use crate::mqtt::packet::{ConnAckProperties, Incoming, Message, MessageProperties, Outgoing, Publish, Qos, Text};
use link::Link;

/// [`Client::publish`] waits while more bytes than this wait to be written.
const WRITE_HIGH: usize = 256 << 10;

/// How long CONNACK may take, and how long the server may take to close after our DISCONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Something that happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The publish with this tag is acknowledged (QoS 2: complete). `reason` of 0x80 and above: it was not accepted.
    Acked {
        tag: u64,
        reason: u8,
    },
    /// A message from a subscription, already acknowledged.
    Message(Box<Publish>),
    Subscribed {
        packet_id: u16,
        reasons: Vec<u8>,
    },
    Unsubscribed {
        packet_id: u16,
        reasons: Vec<u8>,
    },
    Pong,
    /// The server says why it is about to close.
    Disconnected {
        reason: u8,
        text: Option<String>,
    },
}

/// One connected client.
pub struct Client {
    /// The first is control; the others are QUIC data streams.
    links: Vec<Link>,
    events: VecDeque<Event>,
    codec: ClientCodec,
    quic: Option<quinn::Connection>,
    messages_per_stream: Option<u32>,
    window: usize,
    /// QoS 1 and 2 publishes whose acknowledgement the owner has not been told of.
    unacked: usize,
    keep_alive: Option<KeepAlive>,
    session_present: bool,
    connack: ConnAckProperties,
}

/// A connected stream without framing.
pub(crate) struct RawStream {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Held open for as long as its stream is in use.
    _quic: Option<quinn::Connection>,
}

struct KeepAlive {
    every: Duration,
    timer: Pin<Box<Sleep>>,
    /// A PINGREQ is out.
    waiting: bool,
}

impl Client {
    /// Connects and waits for CONNACK.
    pub async fn connect(transport: &Transport, options: &ConnectOptions) -> Result<Client, ClientError> {
        Client::resume(transport, options, Vec::new()).await
    }

    /// Connects and sends again what an earlier connection of this session left unacknowledged: with its packet identifiers if
    /// the server kept the session, as new publishes if not. What QUIC data streams left is always published anew, on the control
    /// stream: identifiers count on their stream only, so a message that the server had taken unheard may be there twice.
    pub async fn resume(
        transport: &Transport,
        options: &ConnectOptions,
        unacked: Vec<Unacked>,
    ) -> Result<Client, ClientError> {
        timeout(CONNECT_TIMEOUT, Client::open(transport, options, unacked))
            .await
            .unwrap_or_else(|_| Err(ClientError::Transport(format!("no CONNACK within {CONNECT_TIMEOUT:?}"))))
    }

    async fn open(
        transport: &Transport,
        options: &ConnectOptions,
        unacked: Vec<Unacked>,
    ) -> Result<Client, ClientError> {
        let connected = transport.connect().await?;
        let codec = ClientCodec::new(options.version, options.max_packet_size);
        let mut control = Link::new(connected.control, codec.clone());
        control.send(&Incoming::Connect(Box::new(options.connect())));
        let first = poll_fn(|cx| control.poll_first(cx)).await?;
        let (session_present, connack) = match first {
            Outgoing::ConnAck { session_present, reason: 0, properties } => (session_present, properties),
            Outgoing::ConnAck { reason, properties, .. } => {
                return Err(ClientError::Refused { reason, text: properties.reason_string });
            }
            Outgoing::Disconnect { reason, reason_string } => {
                return Err(ClientError::Refused { reason, text: reason_string });
            }
            other => return Err(ClientError::Transport(format!("expected CONNACK, not {other:?}"))),
        };
        let mut events = VecDeque::new();
        let count = unacked.len();
        let (kept, anew): (Vec<_>, Vec<_>) =
            unacked.into_iter().partition(|entry| session_present && entry.is_resumable());
        control.resume(kept);
        for entry in flow::in_order(anew) {
            if entry.is_released() {
                // The server had taken it, and the stream or session to complete the exchange on is gone.
                events.push_back(Event::Acked { tag: entry.tag, reason: 0 });
            } else {
                control.publish(entry.message, entry.tag);
            }
        }
        control.take_in(&mut events)?;
        let keep_alive = connack.server_keep_alive.unwrap_or(options.keep_alive);
        let messages_per_stream = match transport {
            Transport::Quic { messages_per_stream, .. } => *messages_per_stream,
            _ => None,
        };
        Ok(Client {
            links: vec![control],
            events,
            codec,
            quic: connected.quic,
            messages_per_stream,
            window: usize::from(options.window.min(connack.receive_maximum.unwrap_or(u16::MAX)).max(1)),
            unacked: count,
            keep_alive: KeepAlive::new(keep_alive),
            session_present,
            connack,
        })
    }

    /// The bare stream of a client that has published nothing yet, and how many publishes may be unacknowledged on it: for an owner
    /// that does its own framing.
    pub(crate) fn into_raw(mut self) -> (RawStream, u16) {
        let window = u16::try_from(self.window).unwrap_or(u16::MAX);
        let (reader, writer) = self.links.swap_remove(0).into_halves();
        (RawStream { reader, writer, _quic: self.quic }, window)
    }

    /// Whether the server kept a session from before.
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// What the server said of itself in CONNACK.
    pub fn connack(&self) -> &ConnAckProperties {
        &self.connack
    }

    /// The QUIC connection, if that is the transport.
    pub fn quic(&self) -> Option<&quinn::Connection> {
        self.quic.as_ref()
    }

    /// QoS 1 and 2 publishes whose [`Event::Acked`] has not been returned yet.
    pub fn unacked(&self) -> usize {
        self.unacked
    }

    /// Whether the window has room for another QoS 1 or 2 publish.
    pub fn can_publish(&self) -> bool {
        self.unacked < self.window
    }

    /// Queues a message; `tag` comes back in [`Event::Acked`] (QoS 0 has no acknowledgement). It leaves with the next call of
    /// [`Client::next`] or [`Client::flush`]; waits only while too much is queued or the server allows no new data stream.
    ///
    /// # Errors
    /// `WindowFull` if [`Client::can_publish`] is false and the QoS is 1 or 2.
    pub async fn publish(
        &mut self,
        topic: impl Into<Text>,
        payload: Bytes,
        qos: Qos,
        tag: u64,
    ) -> Result<(), ClientError> {
        let properties = MessageProperties::default();
        self.publish_message(Message { topic: topic.into(), payload, qos, retain: false, properties }, tag).await
    }

    /// As [`Client::publish`], with retain flag and properties.
    pub async fn publish_message(&mut self, message: Message, tag: u64) -> Result<(), ClientError> {
        if message.qos != Qos::AtMostOnce && !self.can_publish() {
            return Err(ClientError::WindowFull);
        }
        self.ready_stream().await?;
        if self.publishing().waiting() > WRITE_HIGH {
            poll_fn(|cx| self.poll_until(cx, |client| client.publishing().waiting() <= WRITE_HIGH)).await?;
        }
        let at = self.publishing_at();
        self.unacked += usize::from(message.qos != Qos::AtMostOnce);
        self.links[at].publish(message, tag);
        Ok(())
    }

    /// The stream that publishes go to: the last one opened, which is the control stream unless there are data streams.
    fn publishing_at(&self) -> usize {
        if self.messages_per_stream.is_some() { self.links.len() - 1 } else { 0 }
    }

    fn publishing(&self) -> &Link {
        &self.links[self.publishing_at()]
    }

    /// Opens a data stream if publishes go to data streams and the last one is used up.
    async fn ready_stream(&mut self) -> Result<(), ClientError> {
        let (Some(connection), Some(limit)) = (self.quic.clone(), self.messages_per_stream) else { return Ok(()) };
        let last = self.links.len() - 1;
        if last > 0 && !self.links[last].is_retired() {
            if self.links[last].published < limit {
                return Ok(());
            }
            self.links[last].retire();
        }
        let mut opening = std::pin::pin!(transport::open_stream(&connection));
        // While the server allows no more streams, those that are open must go on to their end.
        let halves = poll_fn(|cx| {
            if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                return Poll::Ready(opened);
            }
            match self.poll_until(cx, |_| false) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            }
        })
        .await?;
        self.links.push(Link::new(halves, self.codec.clone()));
        Ok(())
    }

    /// Writes what waits and returns the next event. Cancel safe.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Client::next`] for callers that poll many clients from one task.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, ClientError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.unacked -= usize::from(matches!(event, Event::Acked { .. }));
                return Poll::Ready(Ok(event));
            }
            match self.poll_once(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                // What came before the failure is told first; a broken stream fails again.
                Err(_) if !self.events.is_empty() => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Hands everything queued to the transport.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.poll_until(cx, |client| client.links.iter().all(Link::is_flushed))).await
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, done: impl Fn(&Client) -> bool) -> Poll<Result<(), ClientError>> {
        while !done(self) {
            if !self.poll_once(cx)? {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// One round over streams and timer. Whether anything moved.
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Result<bool, ClientError> {
        let (mut moved, mut heard) = (false, false);
        for link in &mut self.links {
            let (wrote, read) = link.poll(cx, &mut self.events)?;
            moved |= wrote || read;
            heard |= read;
        }
        let before = self.links.len();
        self.links.retain(|link| !link.is_over());
        moved |= self.links.len() < before;
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.waiting &= !heard;
            if !moved && keep_alive.timer.as_mut().poll(cx).is_ready() {
                if keep_alive.waiting {
                    return Err(ClientError::Silent(keep_alive.every.as_secs()));
                }
                keep_alive.waiting = true;
                keep_alive.timer.as_mut().reset(Instant::now() + keep_alive.every);
                self.links[0].send(&Incoming::PingReq);
                return Ok(true);
            }
        }
        Ok(moved)
    }

    /// Ends the connection without DISCONNECT, as a crash would: what is unacknowledged, for [`Client::resume`].
    pub fn into_unacked(self) -> Vec<Unacked> {
        let mut links = self.links.into_iter().map(|link| link.flow.into_unacked());
        let control = links.next().unwrap_or_default();
        control.into_iter().chain(links.flatten().map(Unacked::detached)).collect()
    }

    /// Sends DISCONNECT after all that is queued and waits until the server has closed.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        self.links[0].send(&Incoming::Disconnect { reason: 0, session_expiry_interval: None });
        self.links[0].finish();
        match self.flush().await {
            Ok(()) => {}
            Err(ClientError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
        let closed = timeout(CLOSE_TIMEOUT, async { while self.next().await.is_ok() {} }).await;
        if let Some(connection) = &self.quic {
            connection.close(0u32.into(), b"");
        }
        closed.map_err(|_| ClientError::Transport(format!("the server did not close within {CLOSE_TIMEOUT:?}")))
    }
}

impl KeepAlive {
    /// Pings well within the `seconds` after which the server gives up (at one and a half times, section 3.1.2.10).
    fn new(seconds: u16) -> Option<KeepAlive> {
        if seconds == 0 {
            return None;
        }
        let every = Duration::from_millis(u64::from(seconds) * 800);
        Some(KeepAlive { every, timer: Box::pin(sleep_until(Instant::now() + every)), waiting: false })
    }
}
