//! What we write, rumqttd's independent codec reads as the same packet (where it can read it at all).

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Packet, Protocol};

use super::packets::{connect, incoming, outgoing, version};
use crate::mqtt::codec::{ClientCodec, Codec};
use crate::mqtt::packet::{Connect, Incoming, Outgoing, Publish, Text, Version};

const LIMIT: usize = 1 << 20;

fn read(version: Version, wire: &mut BytesMut) -> Packet {
    match version {
        Version::V4 => V4.read_mut(wire, LIMIT),
        Version::V5 => V5.read_mut(wire, LIMIT),
    }
    .unwrap()
}

fn same_connect(ours: &Connect, theirs: Packet) {
    let Packet::Connect(connect, properties, will, will_properties, login) = theirs else { panic!("{theirs:?}") };
    assert_eq!((connect.client_id.as_str(), connect.keep_alive), (ours.client_id.as_str(), ours.keep_alive));
    assert_eq!(connect.clean_session, ours.clean_start);
    if let Some(properties) = properties {
        assert_eq!(properties.session_expiry_interval.unwrap_or(0), ours.session_expiry_interval);
        assert_eq!(properties.receive_maximum.unwrap_or(u16::MAX), ours.receive_maximum);
        assert_eq!(properties.max_packet_size, ours.maximum_packet_size);
    }
    let said = will.map(|w| (w.topic, w.message, w.qos as u8, w.retain));
    let meant = ours.will.as_ref().map(|w| &w.message);
    assert_eq!(said, meant.map(|m| (m.topic.bytes().clone(), m.payload.clone(), m.qos as u8, m.retain)));
    if let Some(properties) = will_properties {
        assert_eq!(properties.delay_interval.unwrap_or(0), ours.will.as_ref().map_or(0, |w| w.delay_interval));
    }
    // An empty user name is none to it.
    assert_eq!(login.map_or(String::new(), |l| l.username), ours.username.as_ref().map_or("", Text::as_str));
}

fn same_publish(ours: &Publish, theirs: Packet) {
    let Packet::Publish(publish, properties) = theirs else { panic!("{theirs:?}") };
    assert_eq!((&publish.topic, &publish.payload), (ours.message.topic.bytes(), &ours.message.payload));
    assert_eq!(publish.retain, ours.message.retain);
    if let Some(properties) = properties {
        assert_eq!(properties.topic_alias, ours.topic_alias);
        assert_eq!(properties.user_properties.len(), ours.message.properties.user_properties.len());
    }
}

proptest! {
    #[test]
    fn a_connect_means_the_same_to_rumqttd(mut packet in version().prop_flat_map(connect)) {
        // It reads passwords as text, and only with a user name.
        packet.password = None;
        let version = packet.version;
        let mut wire = BytesMut::new();
        ClientCodec::new(version, LIMIT).encode(&Incoming::Connect(Box::new(packet.clone())), &mut wire);
        same_connect(&packet, read(version, &mut wire));
    }

    #[test]
    fn a_clients_packet_means_the_same_to_rumqttd((version, packet) in version().prop_flat_map(|v| (Just(v), incoming(v)))) {
        let mut wire = BytesMut::new();
        ClientCodec::new(version, LIMIT).encode(&packet, &mut wire);
        match &packet {
            Incoming::Publish(publish) => same_publish(publish, read(version, &mut wire)),
            Incoming::Subscribe { packet_id, filters, .. } => {
                let Packet::Subscribe(theirs, _) = read(version, &mut wire) else { panic!("a SUBSCRIBE") };
                prop_assert_eq!(theirs.pkid, *packet_id);
                let read: Vec<_> = theirs.filters.iter().map(|f| (f.path.as_str(), f.qos as u8, f.nolocal)).collect();
                let meant: Vec<_> = filters.iter().map(|f| (f.filter.as_str(), f.qos as u8, f.no_local)).collect();
                prop_assert_eq!(read, meant);
            }
            Incoming::Unsubscribe { packet_id, filters } => {
                let Packet::Unsubscribe(theirs, _) = read(version, &mut wire) else { panic!("an UNSUBSCRIBE") };
                prop_assert_eq!(theirs.pkid, *packet_id);
                prop_assert_eq!(theirs.filters.len(), filters.len());
                prop_assert!(theirs.filters.iter().map(String::as_str).eq(filters.iter().map(Text::as_str)));
            }
            Incoming::PubAck(ack) => {
                let Packet::PubAck(theirs, _) = read(version, &mut wire) else { panic!("a PUBACK") };
                prop_assert_eq!(theirs.pkid, ack.packet_id);
            }
            // The rest has no content, or is what rumqttd cannot read.
            _ => {}
        }
    }

    #[test]
    fn a_servers_publish_means_the_same_to_rumqttd((version, packet) in version().prop_flat_map(|v| (Just(v), outgoing(v)))) {
        let mut wire = BytesMut::new();
        Codec::for_data_stream(version, LIMIT).encode(&packet, &mut wire);
        match &packet {
            // Its cursor loses its way after a subscription identifier.
            Outgoing::Publish(publish) if publish.message.properties.subscription_identifiers.is_empty() => {
                same_publish(publish, read(version, &mut wire));
            }
            Outgoing::PubRec(ack) => {
                let Packet::PubRec(theirs, _) = read(version, &mut wire) else { panic!("a PUBREC") };
                prop_assert_eq!(theirs.pkid, ack.packet_id);
            }
            _ => {}
        }
    }
}
