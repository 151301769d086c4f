//! Bytes nobody should send: no panic, no memory beyond the frame, the same verdict however they are split.

use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::packets::{connect, incoming, outgoing, version};
use crate::mqtt::codec::{ClientCodec, Codec, CodecError};
use crate::mqtt::packet::{Incoming, Version};

const LIMIT: usize = 4096;

/// Packets up to the first fault, the fault, and the bytes left waiting.
fn feed(mut codec: Codec, bytes: &[u8], step: usize) -> (Vec<Incoming>, Option<CodecError>, usize) {
    let mut packets = Vec::new();
    let mut stream = BytesMut::new();
    for chunk in bytes.chunks(step) {
        stream.put_slice(chunk);
        loop {
            match codec.decode(&mut stream) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error), 0),
            }
        }
        assert!(stream.len() < LIMIT, "an incomplete packet is never larger than the limit");
    }
    (packets, None, stream.len())
}

fn codec(kind: u8) -> Codec {
    match kind {
        0 => Codec::new(LIMIT),
        1 => Codec::for_data_stream(Version::V4, LIMIT),
        2 => Codec::for_data_stream(Version::V5, LIMIT),
        // A connected codec: its CONNECT has passed.
        kind => {
            let mut codec = Codec::new(LIMIT);
            let level = if kind == 3 { 4 } else { 5 };
            let mut stream = BytesMut::from(&b"\x10"[..]);
            stream.put_u8(if level == 4 { 13 } else { 14 });
            stream.put_slice(b"\x00\x04MQTT");
            stream.put_slice(&[level, 2, 0, 0]);
            stream.put_slice(if level == 4 { b"\x00\x01c" } else { b"\x00\x00\x01c" });
            assert!(matches!(codec.decode(&mut stream), Ok(Some(Incoming::Connect(_)))));
            codec
        }
    }
}

fn split_verdicts_agree(kind: u8, bytes: &[u8], step: usize) {
    let whole = feed(codec(kind), bytes, bytes.len().max(1));
    assert_eq!(feed(codec(kind), bytes, step), whole);
    assert_eq!(feed(codec(kind), bytes, 1), whole);
    if let Some(error) = whole.1 {
        assert!(matches!(error.reason_code(), 0x81 | 0x82 | 0x84 | 0x85 | 0x8F | 0x90 | 0x94 | 0x95 | 0x97), "{error}");
        assert!(!error.text().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_get_one_verdict(kind in 0u8..5, bytes in vec(any::<u8>(), 0..300), step in 1usize..20) {
        split_verdicts_agree(kind, &bytes, step);
    }

    #[test]
    fn a_good_header_with_an_arbitrary_body_gets_one_verdict(
        kind in 3u8..5,
        first in prop::sample::select(&[0x30u8, 0x32, 0x34, 0x3B, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0xF0][..]),
        body in vec(prop_oneof![3 => 0u8..6, 1 => any::<u8>()], 0..100),
        step in 1usize..20,
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend_from_slice(&body);
        split_verdicts_agree(kind, &bytes, step);
    }

    #[test]
    fn mutated_packets_get_one_verdict(
        (version, connect, packet) in version().prop_flat_map(|v| (Just(v), connect(v), incoming(v))),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        step in 1usize..20,
        on_connect in any::<bool>(),
    ) {
        let mut wire = BytesMut::new();
        let client = ClientCodec::new(version, LIMIT);
        let kind = if on_connect { 0 } else if version == Version::V4 { 3 } else { 4 };
        client.encode(&if on_connect { Incoming::Connect(Box::new(connect)) } else { packet }, &mut wire);
        for (at, byte) in flips {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        split_verdicts_agree(kind, &wire, step);
    }

    #[test]
    fn mutated_server_packets_never_panic_a_client(
        (version, packet) in version().prop_flat_map(|v| (Just(v), outgoing(v))),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut wire = BytesMut::new();
        Codec::for_data_stream(version, LIMIT).encode(&packet, &mut wire);
        for (at, byte) in flips {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let client = ClientCodec::new(version, LIMIT);
        while let Ok(Some(_)) = client.decode(&mut wire) {}
    }
}

#[test]
fn a_packet_over_the_limit_is_refused_by_its_header_alone() {
    let mut codec = Codec::for_data_stream(Version::V5, 1000);
    let mut stream = BytesMut::from(&[0x30, 0xE6, 0x07][..]);
    let error = codec.decode(&mut stream).unwrap_err();
    assert_eq!(error.reason_code(), 0x95);
    assert!(error.to_string().contains("1001 bytes, the limit is 1000"), "{error}");
    let mut stream = BytesMut::from(&[0x30, 0xE5, 0x07][..]);
    assert_eq!(codec.decode(&mut stream), Ok(None));
    assert!(stream.capacity() < 1000, "nothing is reserved for a body that has not come");
}

/// A PUBLISH with `count` empty user properties.
fn with_user_properties(count: usize) -> BytesMut {
    let mut body = vec![0, 1, b'a'];
    let length = count * 5;
    body.extend([(length & 0x7F) as u8 | 0x80, (length >> 7) as u8]);
    for _ in 0..count {
        body.extend([38, 0, 0, 0, 0]);
    }
    let mut stream = BytesMut::from(&[0x30, (body.len() & 0x7F) as u8 | 0x80, (body.len() >> 7) as u8][..]);
    stream.extend_from_slice(&body);
    stream
}

#[test]
fn thousands_of_tiny_user_properties_are_refused() {
    let error = Codec::for_data_stream(Version::V5, 1 << 20).decode(&mut with_user_properties(2000)).unwrap_err();
    assert_eq!(error.reason_code(), 0x97, "{error}");
}

#[test]
fn no_message_has_more_user_properties_than_its_record_can_have_headers_beside_its_own() {
    let decode = |count| Codec::for_data_stream(Version::V5, 1 << 20).decode(&mut with_user_properties(count));
    assert!(decode(1000).is_ok());
    assert_eq!(decode(forebay_log::limits::MAX_HEADERS - 3).unwrap_err().reason_code(), 0x97);
}
