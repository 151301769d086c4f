//! The client's half of the QoS flows on one stream (MQTT 5.0 section 4.3): packet ids, what is unacknowledged, what answers what.
//! Pure: packets in, answers and events out.

use std::collections::{HashMap, HashSet};

use super::Event;
use crate::mqtt::packet::{Ack, Incoming, Message, Outgoing, Publish, Qos};

/// A publish whose acknowledgement has not come; it survives the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacked {
    pub tag: u64,
    pub message: Message,
    packet_id: u16,
    /// QoS 2: PUBREC has come, PUBREL is out.
    released: bool,
    order: u64,
}

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Flow {
    last_id: u16,
    published: u64,
    unacked: HashMap<u16, Unacked>,
    /// QoS 2 messages of the server that it has not released yet.
    received: HashSet<u16>,
}

/// What a packet from the server leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) reply: Option<Incoming>,
    pub(super) event: Option<Event>,
}

impl Flow {
    pub(super) fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// The next free packet identifier. The caller keeps fewer than 65,535 in use.
    pub(super) fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.unacked.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// A PUBLISH for a new message.
    pub(super) fn publish(&mut self, message: Message, tag: u64) -> Publish {
        self.published += 1;
        if message.qos == Qos::AtMostOnce {
            return Publish { dup: false, packet_id: 0, topic_alias: None, message };
        }
        let packet_id = self.next_id();
        let unacked = Unacked { tag, message: message.clone(), packet_id, released: false, order: self.published };
        self.unacked.insert(packet_id, unacked);
        Publish { dup: false, packet_id, topic_alias: None, message }
    }

    /// What must be sent again on a new connection to a session that the server kept [MQTT-4.4.0-1].
    pub(super) fn resume(&mut self, unacked: Vec<Unacked>) -> Vec<Incoming> {
        let unacked = in_order(unacked);
        let packets = unacked.iter().map(Unacked::packet).collect();
        self.last_id = unacked.last().map_or(0, |entry| entry.packet_id);
        self.published = unacked.last().map_or(0, |entry| entry.order);
        self.unacked = unacked.into_iter().map(|entry| (entry.packet_id, entry)).collect();
        packets
    }

    /// Ends the stream: what it leaves unacknowledged.
    pub(super) fn into_unacked(self) -> Vec<Unacked> {
        self.unacked.into_values().collect()
    }

    pub(super) fn handle(&mut self, packet: Outgoing) -> Step {
        let reply = |packet| Step { reply: Some(packet), event: None };
        let event = |event| Step { reply: None, event: Some(event) };
        match packet {
            Outgoing::Publish(publish) => self.receive(publish),
            Outgoing::PubAck(ack) | Outgoing::PubComp(ack) => self.acked(ack),
            Outgoing::PubRec(ack) if ack.reason >= 0x80 => self.acked(ack),
            Outgoing::PubRec(ack) => {
                if let Some(entry) = self.unacked.get_mut(&ack.packet_id) {
                    entry.released = true;
                }
                reply(Incoming::PubRel(Ack { packet_id: ack.packet_id, reason: 0 }))
            }
            Outgoing::PubRel(ack) => {
                self.received.remove(&ack.packet_id);
                reply(Incoming::PubComp(Ack { packet_id: ack.packet_id, reason: 0 }))
            }
            Outgoing::SubAck { packet_id, reasons } => event(Event::Subscribed { packet_id, reasons }),
            Outgoing::UnsubAck { packet_id, reasons } => event(Event::Unsubscribed { packet_id, reasons }),
            Outgoing::PingResp => event(Event::Pong),
            Outgoing::Disconnect { reason, reason_string } => {
                event(Event::Disconnected { reason, text: reason_string })
            }
            Outgoing::ConnAck { .. } => {
                event(Event::Disconnected { reason: 0x82, text: Some("a second CONNACK".into()) })
            }
        }
    }

    fn acked(&mut self, ack: Ack) -> Step {
        let event =
            self.unacked.remove(&ack.packet_id).map(|entry| Event::Acked { tag: entry.tag, reason: ack.reason });
        Step { reply: None, event }
    }

    fn receive(&mut self, publish: Publish) -> Step {
        let ack = Ack { packet_id: publish.packet_id, reason: 0 };
        match publish.message.qos {
            Qos::AtMostOnce => Step { reply: None, event: Some(Event::Message(Box::new(publish))) },
            Qos::AtLeastOnce => {
                Step { reply: Some(Incoming::PubAck(ack)), event: Some(Event::Message(Box::new(publish))) }
            }
            Qos::ExactlyOnce => {
                let first = self.received.insert(ack.packet_id);
                Step { reply: Some(Incoming::PubRec(ack)), event: first.then(|| Event::Message(Box::new(publish))) }
            }
        }
    }
}

/// As they were published.
pub(super) fn in_order(mut unacked: Vec<Unacked>) -> Vec<Unacked> {
    unacked.sort_by_key(|entry| entry.order);
    unacked
}

impl Unacked {
    /// QoS 2: the server has said that it has the message.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Whether it can go on with its packet identifier, which counts on the control stream only.
    pub(super) fn is_resumable(&self) -> bool {
        self.packet_id != 0
    }

    /// Gives up the packet identifier of a data stream that is gone.
    pub(super) fn detached(self) -> Unacked {
        Unacked { packet_id: 0, ..self }
    }

    fn packet(&self) -> Incoming {
        if self.released {
            return Incoming::PubRel(Ack { packet_id: self.packet_id, reason: 0 });
        }
        let message = self.message.clone();
        Incoming::Publish(Publish { dup: true, packet_id: self.packet_id, topic_alias: None, message })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mqtt::packet::{MessageProperties, Text};

    fn message(qos: Qos) -> Message {
        let properties = MessageProperties::default();
        Message { topic: Text::from("t"), payload: Bytes::from_static(b"p"), qos, retain: false, properties }
    }

    fn ack(packet_id: u16) -> Ack {
        Ack { packet_id, reason: 0 }
    }

    #[test]
    fn qos_2_is_acknowledged_after_release() {
        let mut flow = Flow::default();
        let id = flow.publish(message(Qos::ExactlyOnce), 7).packet_id;
        let step = flow.handle(Outgoing::PubRec(ack(id)));
        assert_eq!(step.reply, Some(Incoming::PubRel(ack(id))));
        assert_eq!((step.event, flow.unacked()), (None, 1));
        assert_eq!(flow.handle(Outgoing::PubComp(ack(id))).event, Some(Event::Acked { tag: 7, reason: 0 }));
        assert_eq!(flow.unacked(), 0);
    }

    #[test]
    fn a_resumed_flow_sends_again_in_order_and_marks_duplicates() {
        let mut flow = Flow::default();
        for tag in 0..3 {
            flow.publish(message(Qos::ExactlyOnce), tag);
        }
        flow.handle(Outgoing::PubRec(ack(1)));
        let mut resumed = Flow::default();
        let packets = resumed.resume(flow.into_unacked());
        assert_eq!(packets[0], Incoming::PubRel(ack(1)));
        let ids: Vec<_> = packets[1..]
            .iter()
            .map(|packet| match packet {
                Incoming::Publish(publish) => (publish.packet_id, publish.dup),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, [(2, true), (3, true)]);
        assert_eq!(resumed.publish(message(Qos::AtLeastOnce), 9).packet_id, 4);
    }

    #[test]
    fn a_qos_2_message_sent_twice_is_delivered_once() {
        let mut flow = Flow::default();
        let publish = Publish { dup: false, packet_id: 5, topic_alias: None, message: message(Qos::ExactlyOnce) };
        assert!(flow.handle(Outgoing::Publish(publish.clone())).event.is_some());
        assert!(flow.handle(Outgoing::Publish(publish.clone())).event.is_none());
        assert_eq!(flow.handle(Outgoing::PubRel(ack(5))).reply, Some(Incoming::PubComp(ack(5))));
        assert!(flow.handle(Outgoing::Publish(publish)).event.is_some());
    }

    #[test]
    fn packet_identifiers_wrap_around_those_in_use() {
        let mut flow = Flow::default();
        assert_eq!(flow.publish(message(Qos::AtLeastOnce), 0).packet_id, 1);
        flow.last_id = u16::MAX;
        assert_eq!(flow.publish(message(Qos::AtLeastOnce), 1).packet_id, 2);
    }
}
