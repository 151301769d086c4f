//! The session machine by its rules, one at a time; `model` tries any sequence of them.

mod model;

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::mqtt::delivery::{Delivery, Published};
use crate::mqtt::packet::{Ack, MessageProperties, Publish, Qos, SubscribeFilter};

const RECEIVE_MAXIMUM: u16 = 4;
const WINDOW: u16 = 3;
const T0: Millis = Millis(1_000_000);

fn limits() -> Limits {
    Limits {
        receive_maximum: RECEIVE_MAXIMUM,
        topic_alias_maximum: 2,
        max_session_expiry: 1000,
        max_keep_alive: 65_535,
        max_packet_size: 1 << 20,
    }
}

fn session(version: Version, expiry: u32, kept: Kept) -> Session {
    let accepted = Accepted {
        client_id: Text::from("m1"),
        version,
        clean_start: false,
        expiry,
        keep_alive: 60,
        outgoing_window: WINDOW,
        max_outgoing_packet: None,
        will: None,
        properties: Default::default(),
    };
    Session::new(T0, accepted, &limits(), kept)
}

fn message(qos: Qos) -> Message {
    Message {
        topic: Text::from("meters/m1"),
        payload: Bytes::from_static(b"1"),
        qos,
        retain: false,
        properties: MessageProperties::default(),
    }
}

fn publish(packet_id: u16, qos: Qos) -> Incoming {
    Incoming::Publish(Publish { dup: false, packet_id, topic_alias: None, message: message(qos) })
}

fn delivery() -> Delivery {
    let published = Published { message: message(Qos::AtLeastOnce), client_id: Text::from("m2"), expiry: None };
    Delivery {
        published: Arc::new(published),
        qos: Qos::AtLeastOnce,
        retain: false,
        identifiers: Vec::new(),
        place: None,
    }
}

/// The packets sent on the control stream.
fn sent(effects: &[Effect]) -> Vec<&Outgoing> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { packet, .. } => Some(packet),
            _ => None,
        })
        .collect()
}

fn append(session: &mut Session, sequence: u64, result: Result<(), AppendError>) -> Vec<Effect> {
    let mut effects = Vec::new();
    session.handle(T0, Event::Appended { stream: CONTROL, sequence, result }, &mut effects);
    effects
}

fn packet(session: &mut Session, packet: Incoming) -> Vec<Effect> {
    let mut effects = Vec::new();
    session.handle(T0, Event::Packet { stream: CONTROL, packet }, &mut effects);
    effects
}

fn closes_with(effects: &[Effect], code: u8) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Close { reason } if *reason == code))
}

#[test]
fn a_full_disk_is_told_to_a_v5_client_and_disconnects_a_v4_client() {
    let mut v5 = session(Version::V5, 0, Kept::default());
    packet(&mut v5, publish(1, Qos::AtLeastOnce));
    let effects = append(&mut v5, 0, Err(AppendError::DiskFull));
    assert_eq!(sent(&effects), [&Outgoing::PubAck(Ack { packet_id: 1, reason: 0x97 })]);

    let mut v4 = session(Version::V4, 0, Kept::default());
    packet(&mut v4, publish(1, Qos::AtLeastOnce));
    let effects = append(&mut v4, 0, Err(AppendError::DiskFull));
    assert!(sent(&effects).is_empty() && closes_with(&effects, 0x97));
}

#[test]
fn acks_wait_for_earlier_publishes() {
    let mut session = session(Version::V5, 0, Kept::default());
    for id in [7, 8] {
        packet(&mut session, publish(id, Qos::AtLeastOnce));
    }
    assert!(append(&mut session, 1, Ok(())).is_empty(), "8 is durable, but 7 came first");
    let effects = append(&mut session, 0, Ok(()));
    let ack = |packet_id| Outgoing::PubAck(Ack { packet_id, reason: 0 });
    assert_eq!(sent(&effects), [&ack(7), &ack(8)]);
}

#[test]
fn a_repeated_exactly_once_publish_is_not_appended_again_after_a_reconnect() {
    let mut first = session(Version::V5, 100, Kept::default());
    packet(&mut first, publish(3, Qos::ExactlyOnce));
    append(&mut first, 0, Ok(()));
    let mut second = session(Version::V5, 100, first.kept);
    let effects = packet(&mut second, publish(3, Qos::ExactlyOnce));
    assert_eq!(sent(&effects), [&Outgoing::PubRec(Ack { packet_id: 3, reason: 0 })]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Append { .. })));
    // The release is durable before PUBCOMP.
    let effects = packet(&mut second, Incoming::PubRel(Ack { packet_id: 3, reason: 0 }));
    assert!(sent(&effects).is_empty());
    let mut effects = Vec::new();
    let then = Then::Complete { stream: CONTROL, packet_id: 3 };
    second.handle(T0, Event::Stored { then, result: Ok(()) }, &mut effects);
    assert_eq!(sent(&effects), [&Outgoing::PubComp(Ack { packet_id: 3, reason: 0 })]);
    let effects = packet(&mut second, Incoming::PubRel(Ack { packet_id: 3, reason: 0 }));
    assert_eq!(sent(&effects), [&Outgoing::PubComp(Ack { packet_id: 3, reason: 0x92 })]);
}

#[test]
fn an_exactly_once_publish_that_may_be_kept_is_neither_acknowledged_nor_forgotten() {
    for version in [Version::V4, Version::V5] {
        for error in [AppendError::Unknown("cut off".into()), AppendError::NotLeader] {
            let mut first = session(version, 100, Kept::default());
            packet(&mut first, publish(3, Qos::ExactlyOnce));
            let effects = append(&mut first, 0, Err(error));
            assert!(sent(&effects).iter().all(|packet| !matches!(packet, Outgoing::PubRec(_))));
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Persist { .. })), "its mark stays");
            assert!(effects.iter().any(|effect| matches!(effect, Effect::Close { .. })), "{effects:?}");
            assert_eq!(first.kept.inbound.marked().collect::<Vec<_>>(), [(CONTROL, 3)]);
        }
        let mut first = session(version, 100, Kept::default());
        packet(&mut first, publish(3, Qos::ExactlyOnce));
        append(&mut first, 0, Err(AppendError::DiskFull));
        assert_eq!(first.kept.inbound.marked().count(), 0, "it is surely not kept");
    }
}

#[test]
fn a_v5_client_over_its_receive_maximum_is_disconnected() {
    let mut session = session(Version::V5, 0, Kept::default());
    for id in 1..=RECEIVE_MAXIMUM {
        assert!(!closes_with(&packet(&mut session, publish(id, Qos::AtLeastOnce)), 0x93));
    }
    assert!(closes_with(&packet(&mut session, publish(9, Qos::AtLeastOnce)), 0x93));
}

#[test]
fn topic_aliases_resolve_within_their_maximum() {
    let mut session = session(Version::V5, 0, Kept::default());
    let aliased = |alias, topic| {
        let message = Message { topic: Text::from(topic), ..message(Qos::AtMostOnce) };
        Incoming::Publish(Publish { dup: false, packet_id: 0, topic_alias: Some(alias), message })
    };
    packet(&mut session, aliased(2, "meters/m1"));
    let effects = packet(&mut session, aliased(2, ""));
    assert!(matches!(&effects[..], [Effect::Append { message, .. }] if message.topic.as_str() == "meters/m1"));
    assert!(closes_with(&packet(&mut session, aliased(3, "a")), 0x94));
}

#[test]
fn unacknowledged_messages_are_sent_again_in_order_with_dup() {
    let mut first = session(Version::V5, 100, Kept::default());
    for _ in 0..WINDOW {
        first.handle(T0, Event::Deliver { delivery: delivery(), wall: T0 }, &mut Vec::new());
    }
    assert!(!first.has_room(), "the client's Receive Maximum is reached");
    packet(&mut first, Incoming::PubAck(Ack { packet_id: 2, reason: 0 }));
    let mut second = session(Version::V5, 100, first.kept);
    let mut effects = Vec::new();
    second.resend(Moment { steady: T0, wall: T0 }, &mut effects);
    let again: Vec<(u16, bool)> = sent(&effects)
        .into_iter()
        .filter_map(|packet| match packet {
            Outgoing::Publish(publish) => Some((publish.packet_id, publish.dup)),
            _ => None,
        })
        .collect();
    assert_eq!(again, [(1, true), (3, true)]);
}

#[test]
fn keep_alive_ends_after_one_and_a_half_times_its_length() {
    let mut session = session(Version::V5, 0, Kept::default());
    assert_eq!(session.next_deadline(), Some(Millis(T0.0 + 90_000)));
    let mut effects = Vec::new();
    session.handle(Millis(T0.0 + 89_999), Event::Tick, &mut effects);
    assert!(effects.is_empty());
    session.handle(Millis(T0.0 + 90_000), Event::Tick, &mut effects);
    assert!(closes_with(&effects, 0x8D));
}

#[test]
fn a_normal_disconnect_drops_the_will_and_0x04_keeps_it() {
    for (code, kept) in [(0x00, false), (0x04, true)] {
        let will = Will { message: message(Qos::AtLeastOnce), delay_interval: 0 };
        let mut session = session(Version::V5, 0, Kept::default());
        session.will = Some(Box::new(will));
        packet(&mut session, Incoming::Disconnect { reason: code, session_expiry_interval: None });
        assert_eq!(session.take_will().is_some(), kept);
    }
}

#[test]
fn a_subscription_whose_replacement_cannot_be_stored_stays_as_it_was() {
    let mut session = session(Version::V5, 100, Kept::default());
    let subscribe = |filter, qos| Incoming::Subscribe {
        packet_id: 1,
        filters: vec![SubscribeFilter {
            filter: Text::from(filter),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 2,
        }],
        subscription_identifier: None,
    };
    let stored = |session: &mut Session, effects: Vec<Effect>, result| {
        let mut after = Vec::new();
        for effect in effects {
            if let Effect::Persist { then, .. } = effect {
                session.handle(T0, Event::Stored { then, result: Clone::clone(&result) }, &mut after);
            }
        }
        after
    };
    let asked = packet(&mut session, subscribe("meters/#", Qos::AtLeastOnce));
    stored(&mut session, asked, Ok(()));
    let asked = packet(&mut session, subscribe("meters/#", Qos::AtMostOnce));
    let effects = stored(&mut session, asked, Err(AppendError::DiskFull));
    assert_eq!(sent(&effects), [&Outgoing::SubAck { packet_id: 1, reasons: vec![0x97] }]);
    assert!(
        matches!(&effects[..], [Effect::Subscribe(back), ..] if back.qos == Qos::AtLeastOnce),
        "delivery goes on by the subscription that was there: {effects:?}"
    );
    let asked = packet(&mut session, subscribe("pumps/#", Qos::AtLeastOnce));
    stored(&mut session, asked, Err(AppendError::DiskFull));
    let kept: Vec<(&str, Qos)> = session.kept.subscriptions.iter().map(|s| (s.filter.as_str(), s.qos)).collect();
    assert_eq!(kept, [("meters/#", Qos::AtLeastOnce)]);
}
