//! Arbitrary valid packets for the property tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::mqtt::packet::*;

pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V4), Just(Version::V5)]
}

fn text() -> impl Strategy<Value = Text> {
    "[a-zA-Z0-9é日 /$+]{0,12}".prop_map(|s| Text::from(s.as_str()))
}

fn topic() -> impl Strategy<Value = Text> {
    "[a-zé]{1,8}(/[a-z0-9日]{0,5}){0,4}".prop_map(|s| Text::from(s.as_str()))
}

fn filter() -> impl Strategy<Value = Text> {
    prop_oneof![topic(), "(\\+|[a-z]{1,4})(/(\\+|[a-z]{1,4})){0,3}(/#)?".prop_map(|s| Text::from(s.as_str()))]
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn message_properties(version: Version) -> BoxedStrategy<MessageProperties> {
    if version == Version::V4 {
        return Just(MessageProperties::default()).boxed();
    }
    let texts = (option::of(text()), option::of(topic()), option::of(blob()), vec((text(), text()), 0..4));
    (option::of(0u8..2), option::of(any::<u32>()), texts)
        .prop_map(|(format, expiry, (content_type, response_topic, correlation_data, user_properties))| {
            MessageProperties {
                payload_format_indicator: format,
                message_expiry_interval: expiry,
                content_type,
                response_topic,
                correlation_data,
                user_properties,
                subscription_identifiers: Vec::new(),
            }
        })
        .boxed()
}

fn message(version: Version) -> impl Strategy<Value = Message> {
    (topic(), blob(), qos(), any::<bool>(), message_properties(version))
        .prop_map(|(topic, payload, qos, retain, properties)| Message { topic, payload, qos, retain, properties })
}

fn publish(version: Version) -> impl Strategy<Value = Publish> {
    (message(version), 1u16.., any::<bool>(), option::of(1u16..), any::<bool>()).prop_map(
        move |(mut message, id, dup, alias, by_alias)| {
            let topic_alias = alias.filter(|_| version == Version::V5);
            if topic_alias.is_some() && by_alias {
                message.topic = Text::from("");
            }
            let acked = message.qos != Qos::AtMostOnce;
            Publish { dup: dup && acked, packet_id: if acked { id } else { 0 }, topic_alias, message }
        },
    )
}

fn ack(version: Version, reasons: &'static [u8]) -> impl Strategy<Value = Ack> {
    (1u16.., prop::sample::select(reasons))
        .prop_map(move |(packet_id, reason)| Ack { packet_id, reason: if version == Version::V5 { reason } else { 0 } })
}

const PUBLISH_REASONS: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const RELEASE_REASONS: &[u8] = &[0x00, 0x92];

pub(super) fn connect(version: Version) -> impl Strategy<Value = Connect> {
    let will = option::of((message(version), any::<u32>()));
    let login = (option::of(text()), option::of(blob()));
    let limits = (any::<u32>(), 1u16.., option::of(1u32..), any::<u16>(), any::<bool>(), option::of(text()));
    (topic(), any::<bool>(), any::<u16>(), will, login, limits).prop_map(
        move |(client_id, clean_start, keep_alive, will, (username, password), limits)| {
            let v5 = version == Version::V5;
            let (expiry, receive_maximum, maximum_packet_size, alias_maximum, problem_information, method) = limits;
            Connect {
                version,
                client_id,
                clean_start,
                keep_alive,
                password: password.filter(|_| v5 || username.is_some()),
                username,
                will: will.map(|(message, delay)| Will { message, delay_interval: if v5 { delay } else { 0 } }),
                session_expiry_interval: if v5 {
                    expiry
                } else if clean_start {
                    0
                } else {
                    u32::MAX
                },
                receive_maximum: if v5 { receive_maximum } else { u16::MAX },
                maximum_packet_size: maximum_packet_size.filter(|_| v5),
                topic_alias_maximum: if v5 { alias_maximum } else { 0 },
                request_problem_information: !v5 || problem_information,
                authentication_method: method.filter(|_| v5),
            }
        },
    )
}

fn subscribe_filter(version: Version) -> impl Strategy<Value = SubscribeFilter> {
    (filter(), qos(), any::<bool>(), any::<bool>(), 0u8..3).prop_map(
        move |(filter, qos, no_local, published, handling)| {
            let v5 = version == Version::V5;
            SubscribeFilter {
                filter,
                qos,
                no_local: v5 && no_local,
                retain_as_published: v5 && published,
                retain_handling: if v5 { handling } else { 0 },
            }
        },
    )
}

/// Packets that a client may send on a data stream.
pub(super) fn stream_packet(version: Version) -> impl Strategy<Value = Incoming> {
    let subscribe = (1u16.., vec(subscribe_filter(version), 1..5), option::of(1u32..268_435_456));
    prop_oneof![
        4 => publish(version).prop_map(Incoming::Publish),
        1 => ack(version, PUBLISH_REASONS).prop_map(Incoming::PubAck),
        1 => ack(version, PUBLISH_REASONS).prop_map(Incoming::PubRec),
        1 => ack(version, RELEASE_REASONS).prop_map(Incoming::PubRel),
        1 => ack(version, RELEASE_REASONS).prop_map(Incoming::PubComp),
        1 => subscribe.prop_map(move |(packet_id, filters, identifier)| Incoming::Subscribe {
            packet_id,
            filters,
            subscription_identifier: identifier.filter(|_| version == Version::V5),
        }),
        1 => (1u16.., vec(filter(), 1..5)).prop_map(|(packet_id, filters)| Incoming::Unsubscribe { packet_id, filters }),
    ]
}

/// Packets that a client may send after its CONNECT.
pub(super) fn incoming(version: Version) -> BoxedStrategy<Incoming> {
    let v5 = version == Version::V5;
    let disconnect = (prop::sample::select(&[0u8, 4, 0x80, 0x93, 0x99][..]), option::of(any::<u32>()));
    let common = prop_oneof![
        4 => stream_packet(version),
        1 => Just(Incoming::PingReq),
        1 => disconnect.prop_map(move |(reason, expiry)| Incoming::Disconnect {
            reason: if v5 { reason } else { 0 },
            session_expiry_interval: expiry.filter(|_| v5),
        }),
    ];
    if !v5 {
        return common.boxed();
    }
    let auth = prop::sample::select(&[0u8, 0x18, 0x19][..]).prop_map(|reason| Incoming::Auth { reason });
    prop_oneof![8 => common, 1 => auth].boxed()
}

fn connack(version: Version) -> BoxedStrategy<Outgoing> {
    if version == Version::V4 {
        let refused = prop::sample::select(&[0x84u8, 0x85, 0x86, 0x87, 0x88][..]);
        return (option::of(refused), any::<bool>())
            .prop_map(|(refused, present)| Outgoing::ConnAck {
                session_present: refused.is_none() && present,
                reason: refused.unwrap_or(0),
                properties: ConnAckProperties::default(),
            })
            .boxed();
    }
    let string = || option::of("[a-zé ]{0,20}");
    let flag = || option::of(any::<bool>());
    let numbers = (
        option::of(any::<u32>()),
        option::of(1u16..),
        option::of(0u8..2),
        option::of(1u32..),
        option::of(any::<u16>()),
    );
    (
        any::<u8>(),
        any::<bool>(),
        numbers,
        (string(), string()),
        (flag(), flag(), flag(), flag()),
        option::of(any::<u16>()),
    )
        .prop_map(|(reason, present, numbers, texts, flags, server_keep_alive)| Outgoing::ConnAck {
            session_present: present && reason == 0,
            reason,
            properties: ConnAckProperties {
                session_expiry_interval: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos: numbers.2,
                retain_available: flags.0,
                maximum_packet_size: numbers.3,
                assigned_client_identifier: texts.0,
                topic_alias_maximum: numbers.4,
                reason_string: texts.1,
                wildcard_subscription_available: flags.1,
                subscription_identifiers_available: flags.2,
                shared_subscription_available: flags.3,
                server_keep_alive,
            },
        })
        .boxed()
}

/// Packets that a server may send.
pub(super) fn outgoing(version: Version) -> BoxedStrategy<Outgoing> {
    let v5 = version == Version::V5;
    let from_server = (publish(version), vec(1u32..268_435_456, 0..3)).prop_map(move |(mut publish, identifiers)| {
        if v5 {
            publish.message.properties.subscription_identifiers = identifiers;
        }
        Outgoing::Publish(publish)
    });
    let suback = (1u16.., vec(prop::sample::select(&[0u8, 1, 2, 0x80, 0x87, 0x8F][..]), 1..5));
    let unsuback = (1u16.., vec(prop::sample::select(&[0u8, 0x11, 0x80][..]), 1..5));
    let common = prop_oneof![
        1 => connack(version),
        4 => from_server,
        1 => ack(version, PUBLISH_REASONS).prop_map(Outgoing::PubAck),
        1 => ack(version, PUBLISH_REASONS).prop_map(Outgoing::PubRec),
        1 => ack(version, RELEASE_REASONS).prop_map(Outgoing::PubRel),
        1 => ack(version, RELEASE_REASONS).prop_map(Outgoing::PubComp),
        1 => suback.prop_map(move |(packet_id, reasons)| Outgoing::SubAck {
            packet_id,
            reasons: reasons.into_iter().map(|r| if v5 { r } else { r.min(0x80) }).collect(),
        }),
        1 => unsuback.prop_map(move |(packet_id, reasons)| Outgoing::UnsubAck {
            packet_id,
            reasons: if v5 { reasons } else { Vec::new() },
        }),
        1 => Just(Outgoing::PingResp),
    ];
    if !v5 {
        return common.boxed();
    }
    let disconnect = (any::<u8>(), option::of("[a-zé ]{0,20}"))
        .prop_map(|(reason, reason_string)| Outgoing::Disconnect { reason, reason_string });
    prop_oneof![8 => common, 1 => disconnect].boxed()
}
