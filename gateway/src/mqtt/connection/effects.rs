//! Does what a session machine wants done: packets out, publishes into the gather, state changes, subscriptions.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use forebay_log::{AppendError, Millis};
use tokio::time::Instant;

use super::appends::Arriving;
use super::driver::Driver;
use super::feed::Feed;
use crate::mqtt::limits::CURSOR_INTERVAL;
use crate::mqtt::packet::{Message, Outgoing, Version};
use crate::mqtt::reason;
use crate::mqtt::session::{CONTROL, Change, Effect, Event, Then, cursor_key, intent_key, session_key};

impl Driver {
    /// Does what the session wants done; the emptied list is kept for the next time unless it has grown large.
    pub(super) fn apply_all(&mut self, now: Millis, mut effects: Vec<Effect>) {
        for effect in effects.drain(..) {
            self.apply(now, effect);
        }
        if effects.capacity() <= 16 {
            self.effects = effects;
        }
    }

    fn apply(&mut self, now: Millis, effect: Effect) {
        match effect {
            Effect::Send { stream, packet } => self.send(stream, &packet),
            Effect::Append { stream, sequence, message, intent } => {
                self.append(now, stream, sequence, &message, intent);
            }
            Effect::Persist { change, then } => self.persist(change, then),
            Effect::Subscribe(subscription) => {
                let feed = match &mut self.feed {
                    Some(feed) => feed,
                    None => self.feed.insert(Box::new(Feed::join(&self.broker, &self.session.client_id, None))),
                };
                feed.changed();
                if self.broker.hub.subscribe(&feed.receiving, &subscription).is_err() {
                    self.closing = Some(reason::QUOTA_EXCEEDED);
                }
                self.subscriptions_changed();
            }
            Effect::Unsubscribe(filter) => {
                if let Some(feed) = &mut self.feed {
                    feed.changed();
                    self.broker.hub.unsubscribe(&feed.receiving, filter.as_str());
                }
                if self.session.kept.subscriptions.is_empty()
                    && let Some(feed) = self.feed.take()
                {
                    self.broker.hub.leave(feed.receiving, std::iter::empty());
                }
                self.subscriptions_changed();
            }
            Effect::SendRetained(subscription) => {
                if let Some(feed) = &mut self.feed {
                    if self.broker.owners.has_others() {
                        self.broker.retained.catch_up();
                    }
                    feed.send_retained(subscription);
                }
            }
            Effect::Close { reason } => self.closing = Some(reason),
        }
    }

    fn subscriptions_changed(&mut self) {
        self.live.subscriptions.store(self.session.kept.subscriptions.len(), Ordering::Relaxed);
        if self.session.is_persistent() && self.feed.is_some() && self.cursors_due.is_none() {
            self.cursors_due = Some(Instant::now() + CURSOR_INTERVAL);
        }
    }

    fn send(&mut self, stream: u64, packet: &Outgoing) {
        let metrics = &self.broker.metrics.mqtt;
        match packet {
            Outgoing::PubAck(ack) | Outgoing::PubRec(ack) if ack.reason == reason::SUCCESS => {
                metrics.acks.inc();
            }
            Outgoing::PubAck(ack) | Outgoing::PubRec(ack) => metrics.refused(ack.reason),
            Outgoing::Publish(_) => {
                metrics.deliveries.inc();
            }
            _ => {}
        }
        if stream != CONTROL {
            if let Some(streams) = &mut self.streams {
                streams.put(stream, &self.codec, packet);
            }
        } else if !self.output.put(&self.codec, packet)
            && let Outgoing::Publish(publish) = packet
        {
            // As if it had been sent and acknowledged (section 3.1.2.11.4).
            self.session.kept.outbound.acked(publish.packet_id);
        }
    }

    fn append(&mut self, now: Millis, stream: u64, sequence: Option<u64>, message: &Message, intent: Option<u16>) {
        let publish = Arriving { stream, sequence, message, intent };
        let Err(error) = self.appends.push(&self.broker, now, &self.live, publish) else { return };
        match sequence {
            Some(sequence) => self.again.push(Event::Appended { stream, sequence, result: Err(error) }),
            None => self.lost(&error),
        }
    }

    /// A publish at QoS 0 was refused: nobody can be told but the operator.
    pub(super) fn lost(&mut self, error: &AppendError) {
        self.broker.metrics.mqtt.refused(reason::of_append_error(error));
        super::log_refused(&self.live, error);
    }

    fn persist(&mut self, change: Change, then: Then) {
        let scope = self.live.scope();
        let scope = scope.as_str();
        let change = match change {
            Change::Entry => {
                self.storing_entry = true;
                (session_key(scope), Some(self.session.entry(None)))
            }
            Change::ForgetIntent { stream, packet_id } => {
                let key = intent_key(scope, stream, packet_id);
                if self.broker.sessions.get(&key).is_none() {
                    return self.again.push(Event::Stored { then, result: Ok(()) });
                }
                (key, None)
            }
        };
        self.store(vec![change], then);
    }

    pub(super) fn store(&mut self, changes: Vec<(Bytes, Option<Bytes>)>, then: Then) {
        let sessions = self.broker.sessions.clone();
        self.answering.extend(then.stream());
        self.stores.push(Box::pin(async move { (then, sessions.put_all(changes).await) }));
    }

    /// Stores where a connected session stands, if that has moved.
    pub(super) fn store_cursors(&mut self) {
        self.cursors_due = None;
        let Some(feed) = &self.feed else { return };
        self.cursors_due = Some(Instant::now() + CURSOR_INTERVAL);
        let mut cursors = self.session.kept.cursors.clone();
        cursors.0.extend(self.broker.hub.standing(&feed.receiving).0);
        self.broker.hub.hold_back(&mut cursors, self.session.kept.outbound.unacknowledged());
        if cursors != self.session.kept.cursors {
            let change = (cursor_key(self.live.scope().as_str()), Some(cursors.encode()));
            self.session.kept.cursors = cursors;
            self.store(vec![change], Then::Nothing);
        }
    }

    /// Tells a v5 client why the connection ends.
    pub(super) fn say_goodbye(&mut self, code: u8, what: Option<String>) {
        if self.session.version == Version::V5 && code != reason::SUCCESS {
            self.output.put(&self.codec, &Outgoing::Disconnect { reason: code, reason_string: what });
        }
    }
}
