//! Packets from the specification, byte by byte, and one fault at a time.

use bytes::{Bytes, BytesMut};

use crate::mqtt::codec::{Codec, CodecError};
use crate::mqtt::packet::*;

const CONNECT_V4: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c";

fn decode(before: &[u8], bytes: &[u8]) -> Result<Option<Incoming>, CodecError> {
    let mut codec = Codec::new(1 << 16);
    if !before.is_empty() {
        assert!(codec.decode(&mut BytesMut::from(before)).unwrap().is_some());
    }
    codec.decode(&mut BytesMut::from(bytes))
}

fn v4(bytes: &[u8]) -> Incoming {
    decode(CONNECT_V4, bytes).unwrap().unwrap()
}

fn v5(bytes: &[u8]) -> Incoming {
    decode(CONNECT_V5, bytes).unwrap().unwrap()
}

#[test]
fn connect_of_3_1_1_with_everything_is_read() {
    let bytes =
        b"\x10\x26\x00\x04MQTT\x04\xee\x00\x0a\x00\x03dev\x00\x03w/t\x00\x04gone\x00\x04user\x00\x04\xff\x00\x01p";
    let Some(Incoming::Connect(connect)) = decode(b"", bytes).unwrap() else { panic!("a CONNECT") };
    let will = connect.will.as_ref().unwrap();
    assert_eq!((connect.version, connect.client_id.as_str(), connect.keep_alive), (Version::V4, "dev", 10));
    assert!(connect.clean_start);
    assert_eq!(connect.session_expiry_interval, 0);
    assert_eq!((will.message.topic.as_str(), &will.message.payload[..]), ("w/t", &b"gone"[..]));
    assert_eq!((will.message.qos, will.message.retain), (Qos::AtLeastOnce, true));
    assert_eq!(connect.username.as_ref().map(Text::as_str), Some("user"));
    assert_eq!(connect.password, Some(Bytes::from_static(b"\xff\x00\x01p")), "passwords are bytes, not text");
}

#[test]
fn a_persistent_session_of_3_1_1_never_expires() {
    let bytes = b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01c";
    let Some(Incoming::Connect(connect)) = decode(b"", bytes).unwrap() else { panic!("a CONNECT") };
    assert_eq!(connect.session_expiry_interval, u32::MAX);
}

#[test]
fn publishes_of_both_versions_are_read() {
    // Figure 3.11 of 3.1.1: topic a/b, packet identifier 10.
    let Incoming::Publish(publish) = v4(b"\x3b\x09\x00\x03a/b\x00\x0ahi") else { panic!("a PUBLISH") };
    assert_eq!(
        (publish.packet_id, publish.message.topic.as_str(), &publish.message.payload[..]),
        (10, "a/b", &b"hi"[..])
    );
    assert!(publish.dup && publish.message.retain);
    let Incoming::Publish(publish) = v5(b"\x30\x0a\x00\x00\x05\x23\x00\x07\x01\x01ok") else { panic!("a PUBLISH") };
    assert_eq!((publish.topic_alias, publish.message.properties.payload_format_indicator), (Some(7), Some(1)));
    assert_eq!(&publish.message.payload[..], b"ok");
}

#[test]
fn subscribe_of_the_specification_is_read() {
    // Figure 3.23 of 3.1.1: a/b at QoS 1, c/d at QoS 2.
    let Incoming::Subscribe { packet_id, filters, .. } = v4(b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x02") else {
        panic!("a SUBSCRIBE")
    };
    let read: Vec<_> = filters.iter().map(|f| (f.filter.as_str(), f.qos)).collect();
    assert_eq!((packet_id, read), (10, vec![("a/b", Qos::AtLeastOnce), ("c/d", Qos::ExactlyOnce)]));
}

#[test]
fn short_forms_of_v5_acknowledgements_mean_success() {
    assert_eq!(v5(b"\x40\x02\x00\x05"), Incoming::PubAck(Ack { packet_id: 5, reason: 0 }));
    assert_eq!(v5(b"\x50\x03\x00\x05\x80"), Incoming::PubRec(Ack { packet_id: 5, reason: 0x80 }));
    assert_eq!(v5(b"\x62\x04\x00\x05\x92\x00"), Incoming::PubRel(Ack { packet_id: 5, reason: 0x92 }));
    assert_eq!(v5(b"\xe0\x00"), Incoming::Disconnect { reason: 0, session_expiry_interval: None });
    assert_eq!(v5(b"\xe0\x01\x04"), Incoming::Disconnect { reason: 4, session_expiry_interval: None });
    let expiry = b"\xe0\x07\x00\x05\x11\x00\x00\x00\x3c";
    assert_eq!(v5(expiry), Incoming::Disconnect { reason: 0, session_expiry_interval: Some(60) });
    assert_eq!(v5(b"\xf0\x00"), Incoming::Auth { reason: 0 });
}

#[test]
fn answers_are_written_as_the_specification_draws_them() {
    let written = |version, packet: &Outgoing| {
        let mut out = BytesMut::new();
        Codec::for_data_stream(version, 1 << 16).encode(packet, &mut out);
        out.to_vec()
    };
    let connack =
        |reason| Outgoing::ConnAck { session_present: false, reason, properties: ConnAckProperties::default() };
    for (reason, code) in [(0, 0), (0x84, 1), (0x85, 2), (0x88, 3), (0x97, 3), (0x86, 4), (0x87, 5), (0x8C, 5)] {
        assert_eq!(written(Version::V4, &connack(reason)), [0x20, 2, 0, code]);
    }
    assert_eq!(written(Version::V5, &connack(0x97)), [0x20, 3, 0, 0x97, 0]);
    let suback = Outgoing::SubAck { packet_id: 10, reasons: vec![1, 0x87] };
    assert_eq!(written(Version::V4, &suback), [0x90, 4, 0, 10, 1, 0x80]);
    assert_eq!(written(Version::V5, &suback), [0x90, 5, 0, 10, 0, 1, 0x87]);
    let unsuback = Outgoing::UnsubAck { packet_id: 10, reasons: vec![0x11] };
    assert_eq!(written(Version::V4, &unsuback), [0xB0, 2, 0, 10]);
    assert_eq!(written(Version::V5, &unsuback), [0xB0, 4, 0, 10, 0, 0x11]);
    let disconnect = Outgoing::Disconnect { reason: 0x8E, reason_string: None };
    assert!(written(Version::V4, &disconnect).is_empty());
    assert_eq!(written(Version::V5, &disconnect), [0xE0, 2, 0x8E, 0]);
    assert_eq!(written(Version::V5, &Outgoing::PubRel(Ack { packet_id: 1, reason: 0 })), [0x62, 2, 0, 1]);
    assert_eq!(written(Version::V5, &Outgoing::PubAck(Ack { packet_id: 1, reason: 0x97 })), [0x40, 3, 0, 1, 0x97]);
    assert_eq!(written(Version::V4, &Outgoing::PubAck(Ack { packet_id: 1, reason: 0x97 })), [0x40, 2, 0, 1]);
}

#[test]
fn every_fault_is_refused_with_its_reason_code() {
    let cases: &[(&[u8], &[u8], u8, &str)] = &[
        // fixed header
        (CONNECT_V4, b"\x00\x00", 0x81, "packet type 0"),
        (CONNECT_V4, b"\xc1\x00", 0x81, "reserved flags 0b0001 in PINGREQ"),
        (CONNECT_V4, b"\x60\x02\x00\x01", 0x81, "reserved flags 0b0000 in PUBREL"),
        (CONNECT_V4, b"\x80\x06\x00\x01\x00\x01a\x00", 0x81, "reserved flags"),
        (CONNECT_V4, b"\x30\xff\xff\xff\xff\x01", 0x81, "more than four bytes"),
        (CONNECT_V4, b"\x30\xff\xff\xff\x7f", 0x95, "the limit is 65536"),
        (CONNECT_V4, b"\xc0\x01\x00", 0x81, "PINGREQ: bytes after its end"),
        (CONNECT_V5, b"\x20\x02\x00\x00", 0x82, "CONNACK goes the other way"),
        (CONNECT_V5, b"\xb0\x03\x00\x01\x00", 0x82, "UNSUBACK goes the other way"),
        (CONNECT_V4, b"\xf0\x00", 0x81, "AUTH in MQTT 3.1.1"),
        // CONNECT
        (b"", b"\xc0\x00", 0x82, "PINGREQ before CONNECT"),
        (CONNECT_V4, CONNECT_V4, 0x82, "a second CONNECT"),
        (b"", b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c", 0x84, "protocol level 3"),
        (b"", b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01c", 0x84, "protocol level 6"),
        (b"", b"\x10\x0d\x00\x04HTTP\x04\x02\x00\x3c\x00\x01c", 0x84, "protocol name \"HTTP\""),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01c", 0x81, "reserved connect flag"),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x3c\x00\x01c", 0x81, "without a will"),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x1e\x00\x3c\x00\x01c", 0x81, "QoS 3"),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x42\x00\x3c\x00\x01c", 0x81, "without a user name"),
        (b"", b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00", 0x85, "clean session"),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01\x00", 0x81, "client identifier"),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01\xff", 0x81, "client identifier"),
        (b"", b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x01cx", 0x81, "bytes after its end"),
        (b"", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x02c", 0x81, "ends inside its client identifier"),
        (b"", b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x00\x00\x01c", 0x82, "property 33 is 0"),
        (b"", b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x23\x00\x01\x00\x01c", 0x82, "property 35 does not belong"),
        // PUBLISH
        (CONNECT_V4, b"\x36\x05\x00\x01a\x00\x01", 0x81, "QoS 3"),
        (CONNECT_V4, b"\x38\x03\x00\x01a", 0x81, "DUP"),
        (CONNECT_V4, b"\x32\x05\x00\x01a\x00\x00", 0x82, "packet identifier 0"),
        (CONNECT_V4, b"\x30\x02\x00\x00", 0x82, "empty topic"),
        (CONNECT_V4, b"\x30\x05\x00\x03a/+", 0x90, "invalid topic \"a/+\""),
        (CONNECT_V4, b"\x30\x03\x00\x01\x00", 0x81, "U+0000"),
        (CONNECT_V4, b"\x30\x05\x00\x03\xed\xa0\x80", 0x81, "not UTF-8"),
        (CONNECT_V4, b"\x32\x03\x00\x01a", 0x81, "ends inside its packet identifier"),
        (CONNECT_V5, b"\x30\x07\x00\x01a\x03\x23\x00\x00", 0x94, "topic alias 0"),
        (CONNECT_V5, b"\x30\x06\x00\x01a\x02\x0b\x01", 0x82, "property 11 does not belong"),
        (CONNECT_V5, b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00", 0x82, "property 1 more than once"),
        (CONNECT_V5, b"\x30\x06\x00\x01a\x02\x01\x02", 0x82, "not 0 or 1"),
        (CONNECT_V5, b"\x30\x04\x00\x01a\x05", 0x81, "ends inside its properties"),
        (CONNECT_V5, b"\x30\x06\x00\x01a\x80\x00x", 0x81, "longer than needed"),
        (CONNECT_V5, b"\x30\x09\x00\x01a\x04\x08\x00\x01+x", 0x82, "invalid response topic"),
        (CONNECT_V5, b"\x30\x09\x00\x01a\x04\x08\x00\x05xy", 0x81, "ends inside its properties"),
        // acknowledgements
        (CONNECT_V4, b"\x40\x03\x00\x01\x00", 0x81, "PUBACK: bytes after its end"),
        (CONNECT_V4, b"\x40\x02\x00\x00", 0x82, "packet identifier 0"),
        (CONNECT_V5, b"\x40\x03\x00\x01\x92", 0x82, "reason code 0x92"),
        // SUBSCRIBE, UNSUBSCRIBE
        (CONNECT_V4, b"\x82\x02\x00\x01", 0x82, "no topic filter"),
        (CONNECT_V4, b"\x82\x06\x00\x00\x00\x01a\x00", 0x82, "packet identifier 0"),
        (CONNECT_V4, b"\x82\x06\x00\x01\x00\x01a\x03", 0x81, "QoS 3"),
        (CONNECT_V4, b"\x82\x06\x00\x01\x00\x01a\x04", 0x81, "reserved subscription options"),
        (CONNECT_V4, b"\x82\x07\x00\x01\x00\x02a#\x00", 0x8F, "invalid topic filter \"a#\""),
        (CONNECT_V4, b"\x82\x05\x00\x01\x00\x00\x00", 0x8F, "invalid topic filter \"\""),
        (CONNECT_V5, b"\x82\x07\x00\x01\x00\x00\x01a\x30", 0x82, "retain handling 3"),
        (CONNECT_V5, b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", 0x82, "property 11 is 0"),
        (CONNECT_V5, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04", 0x82, "no local on a shared subscription"),
        (CONNECT_V4, b"\xa2\x02\x00\x01", 0x82, "no topic filter"),
        // DISCONNECT
        (CONNECT_V4, b"\xe0\x01\x00", 0x81, "DISCONNECT: bytes after its end"),
        (CONNECT_V5, b"\xe0\x01\x8e", 0x82, "reason code 0x8e"),
    ];
    for (before, bytes, reason, text) in cases {
        match decode(before, bytes) {
            Ok(packet) => panic!("{bytes:02x?} should be refused ({text}), not {packet:?}"),
            Err(error) => {
                assert_eq!(error.reason_code(), *reason, "{bytes:02x?}: {error}");
                assert!(error.text().contains(text), "{bytes:02x?}: {error}, not {text}");
            }
        }
    }
}

#[test]
fn a_refused_version_can_still_be_answered() {
    let mut codec = Codec::new(1 << 16);
    let bytes = b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01c";
    assert!(codec.decode(&mut BytesMut::from(&bytes[..])).is_err());
    assert_eq!(codec.version(), Some(Version::V5));
    let mut codec = Codec::new(1 << 16);
    let bytes = b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c";
    assert!(codec.decode(&mut BytesMut::from(&bytes[..])).is_err());
    assert_eq!(codec.version(), Some(Version::V4));
}

#[test]
fn a_data_stream_refuses_what_belongs_to_the_control_stream() {
    for (bytes, text) in [
        (CONNECT_V5, "CONNECT on a data stream"),
        (b"\xc0\x00", "PINGREQ on a data stream"),
        (b"\xe0\x00", "DISCONNECT on a data stream"),
        (b"\xf0\x00", "AUTH on a data stream"),
    ] {
        let error = Codec::for_data_stream(Version::V5, 1 << 16).decode(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!((error.reason_code(), error.text()), (0x82, text));
    }
}
