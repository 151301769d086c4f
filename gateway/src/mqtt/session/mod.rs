//! One session as a pure state machine: packets, append results and time in; packets, appends and state changes out.
//!
//! Nothing here knows a socket, a task or a clock. A PUBACK or PUBREC can only come out of the result of an append, a
//! PUBCOMP, SUBACK or UNSUBACK of a persistent session only out of a stored state change, so no driver can acknowledge what
//! is not durable.

mod connect;
mod entry;
mod inbound;
mod outbound;
pub(crate) mod stored;
mod subscribe;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use forebay_log::{AppendError, Millis};

pub(crate) use connect::{Accepted, Limits, judge};
pub(crate) use entry::{CursorKey, Cursors, Entry, cursor_key, intent_key, parse_intent_key, session_key};
pub(crate) use inbound::Inbound;
pub(crate) use outbound::Outbound;
pub(crate) use subscribe::{Added, Subscription, Subscriptions};

use super::delivery::Delivery;
use super::packet::{Incoming, Message, Outgoing, Text, Version, Will};
use super::reason;
use crate::clock::Moment;

/// The stream of CONNECT: the whole connection on TCP and TLS.
pub(crate) const CONTROL: u64 = 0;

/// What happens to a session.
#[derive(Debug)]
pub(crate) enum Event {
    /// A packet other than CONNECT arrived on `stream`.
    Packet { stream: u64, packet: Incoming },
    /// The publish that left as `Effect::Append` with this number is durable, or refused.
    Appended { stream: u64, sequence: u64, result: Result<(), AppendError> },
    /// The change that left as `Effect::Persist` with this `then` is durable, or refused.
    Stored { then: Then, result: Result<(), AppendError> },
    /// A message for the client; only while `Session::has_room`. `wall`: what the wall clock shows.
    Deliver { delivery: Delivery, wall: Millis },
    /// Time has passed.
    Tick,
}

/// What a session wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    Send {
        stream: u64,
        packet: Outgoing,
    },
    /// Append `message`; with a `sequence` the result must come back as `Event::Appended`. `intent`: of an exactly-once
    /// publish of a persistent session, whose intent is to be durable before the append.
    Append {
        stream: u64,
        sequence: Option<u64>,
        message: Message,
        intent: Option<u16>,
    },
    /// Store the session's state, then report `then`.
    Persist {
        change: Change,
        then: Then,
    },
    Subscribe(Subscription),
    Unsubscribe(Text),
    /// Send the retained messages that match, to be delivered like others.
    SendRetained(Subscription),
    /// Send what is due, then close. `reason` is told to a v5 client.
    Close {
        reason: u8,
    },
}

/// A change of the stored state of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The session's entry, from `Session::entry`.
    Entry,
    /// The mark of an exactly-once publish goes away.
    ForgetIntent { stream: u64, packet_id: u16 },
}

/// What follows once a change is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    Complete { stream: u64, packet_id: u16 },
    SubAck { stream: u64, packet_id: u16, reasons: Vec<u8>, added: Vec<Added> },
    UnsubAck { stream: u64, packet_id: u16, reasons: Vec<u8> },
}

impl Then {
    /// The stream on which an answer follows.
    pub(crate) fn stream(&self) -> Option<u64> {
        match self {
            Then::Nothing => None,
            Then::Complete { stream, .. } | Then::SubAck { stream, .. } | Then::UnsubAck { stream, .. } => {
                Some(*stream)
            }
        }
    }
}

/// The part of a session that outlives its connection.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) subscriptions: Subscriptions,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    /// Where delivery goes on, by partition.
    pub(crate) cursors: Cursors,
}

/// A session with a connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Text,
    pub(crate) version: Version,
    /// seconds; 0: the session ends with the connection
    pub(crate) expiry: u32,
    pub(crate) kept: Kept,
    will: Option<Box<Will>>,
    /// milliseconds without a packet after which the connection is closed; 0: never
    idle_limit: i64,
    last_packet: Millis,
    closing: bool,
}

impl Session {
    /// Begins a connection on `kept`, the state that was there before (if any).
    pub(crate) fn new(now: Millis, accepted: Accepted, limits: &Limits, mut kept: Kept) -> Session {
        kept.inbound.connected(accepted.version, limits);
        kept.outbound.connected(accepted.outgoing_window);
        Session {
            client_id: accepted.client_id,
            version: accepted.version,
            expiry: accepted.expiry,
            kept,
            will: accepted.will,
            idle_limit: i64::from(accepted.keep_alive) * 1500,
            last_packet: now,
            closing: false,
        }
    }

    /// Whether state outlives the connection, so that it must be stored.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry > 0
    }

    /// When `Event::Tick` is due.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        (self.idle_limit > 0).then(|| Millis(self.last_packet.0 + self.idle_limit))
    }

    /// Whether another message may be delivered.
    pub(crate) fn has_room(&self) -> bool {
        !self.closing && self.kept.outbound.has_room()
    }

    /// Whether another publish may be taken now. A v5 client is held to its Receive Maximum by the protocol; a 3.1.1
    /// client knows none, so its next packets wait.
    pub(crate) fn may_publish(&self) -> bool {
        self.version == Version::V5 || !self.kept.inbound.is_full()
    }

    /// Publishes not yet acknowledged.
    pub(crate) fn inflight(&self) -> usize {
        self.kept.inbound.inflight()
    }

    /// Bytes arrived that hold no packet for the machine (part of a packet, or a PINGREQ that was answered ahead).
    pub(crate) fn heard(&mut self, now: Millis) {
        self.last_packet = now;
    }

    /// Takes the will for publishing after the connection was lost.
    pub(crate) fn take_will(&mut self) -> Option<Box<Will>> {
        self.will.take()
    }

    /// The stored form of what does not change with each packet.
    pub(crate) fn entry(&self, disconnected_at: Option<Millis>) -> Bytes {
        Entry {
            version: self.version,
            expiry: self.expiry,
            disconnected_at,
            subscriptions: self.kept.subscriptions.clone(),
        }
        .encode()
    }

    /// The messages that were sent before and are not acknowledged, again, in order [MQTT-4.4.0-1, 4.6.0-1].
    pub(crate) fn resend(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.kept.outbound.resend(now, effects);
    }

    /// The one entry of the machine.
    pub(crate) fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Packet { stream, packet } => {
                self.last_packet = now;
                if !self.closing {
                    self.packet(stream, packet, effects);
                }
            }
            Event::Appended { stream, sequence, result } => self.appended(stream, sequence, result, effects),
            Event::Stored { then, result } => self.stored(then, result, effects),
            Event::Deliver { delivery, wall } => {
                self.kept.outbound.send(Moment { steady: now, wall }, delivery, effects);
            }
            Event::Tick => {
                if self.next_deadline().is_some_and(|deadline| deadline <= now) {
                    self.close(reason::KEEP_ALIVE_TIMEOUT, effects);
                }
            }
        }
    }

    fn close(&mut self, reason: u8, effects: &mut Vec<Effect>) {
        if !self.closing {
            self.closing = true;
            effects.push(Effect::Close { reason });
        }
    }

    fn packet(&mut self, stream: u64, packet: Incoming, effects: &mut Vec<Effect>) {
        match packet {
            Incoming::Publish(publish) => {
                let persistent = self.is_persistent();
                if let Err(code) = self.kept.inbound.publish(stream, publish, persistent, effects) {
                    self.close(code, effects);
                }
            }
            Incoming::PubRel(ack) => self.release(stream, ack.packet_id, effects),
            Incoming::PubAck(ack) => self.kept.outbound.acked(ack.packet_id),
            Incoming::Subscribe { packet_id, filters, subscription_identifier } => {
                self.subscribe(stream, packet_id, filters, subscription_identifier, effects);
            }
            Incoming::Unsubscribe { packet_id, filters } => self.unsubscribe(stream, packet_id, &filters, effects),
            Incoming::PingReq => effects.push(Effect::Send { stream, packet: Outgoing::PingResp }),
            Incoming::Disconnect { reason, session_expiry_interval } => {
                self.disconnect(reason, session_expiry_interval, effects);
            }
            // A second CONNECT [MQTT-3.1.0-2]; answers to the QoS 2 messages that we never send; AUTH without a method.
            Incoming::Connect(_) | Incoming::PubRec(_) | Incoming::PubComp(_) | Incoming::Auth { .. } => {
                self.close(reason::PROTOCOL_ERROR, effects);
            }
        }
    }

    fn disconnect(&mut self, code: u8, expiry: Option<u32>, effects: &mut Vec<Effect>) {
        match expiry {
            // A session that was to end with the connection cannot become persistent [MQTT-3.14.2.2.2].
            Some(seconds) if seconds > 0 && self.expiry == 0 => return self.close(reason::PROTOCOL_ERROR, effects),
            Some(seconds) => self.expiry = seconds.min(self.kept.inbound.max_session_expiry()),
            None => {}
        }
        if code == reason::SUCCESS {
            self.will = None;
        }
        self.close(reason::SUCCESS, effects);
    }

    fn stored(&mut self, then: Then, result: Result<(), AppendError>, effects: &mut Vec<Effect>) {
        match then {
            Then::Nothing => {}
            Then::Complete { stream, packet_id } => self.released(stream, packet_id, result, effects),
            Then::SubAck { stream, packet_id, reasons, added } => {
                self.subscribed(stream, packet_id, reasons, added, result, effects);
            }
            Then::UnsubAck { stream, packet_id, reasons } => {
                self.unsubscribed(stream, packet_id, reasons, result, effects);
            }
        }
    }
}
