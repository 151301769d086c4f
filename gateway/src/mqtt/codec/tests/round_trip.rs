//! What one side encodes the other decodes to the same packet, however the bytes were split.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::packets::{connect, incoming, outgoing, stream_packet, version};
use crate::mqtt::codec::{ClientCodec, Codec, CodecError};
use crate::mqtt::packet::{Incoming, Outgoing, Version};

const LIMIT: usize = 1 << 20;

pub(super) fn decode_all(codec: &mut Codec, stream: &mut BytesMut) -> Result<Vec<Incoming>, CodecError> {
    let mut packets = Vec::new();
    while let Some(packet) = codec.decode(stream)? {
        packets.push(packet);
    }
    Ok(packets)
}

fn session() -> impl Strategy<Value = (Version, Vec<Incoming>)> {
    version().prop_flat_map(|version| {
        let connect = connect(version).prop_map(|connect| Incoming::Connect(Box::new(connect)));
        (connect, vec(incoming(version), 0..8)).prop_map(move |(connect, mut rest)| {
            rest.insert(0, connect);
            (version, rest)
        })
    })
}

proptest! {
    #[test]
    fn a_session_of_packets_survives_any_split_of_its_bytes((version, packets) in session(), cuts in vec(1usize..40, 1..50)) {
        let client = ClientCodec::new(version, LIMIT);
        let mut wire = BytesMut::new();
        for packet in &packets {
            client.encode(packet, &mut wire);
        }
        let mut codec = Codec::new(LIMIT);
        let mut decoded = Vec::new();
        let mut stream = BytesMut::new();
        let mut rest = &wire[..];
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            stream.put_slice(now);
            decoded.extend(decode_all(&mut codec, &mut stream).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&decoded, &packets);
        prop_assert!(stream.is_empty());
        prop_assert_eq!(codec.version(), Some(version));
    }

    #[test]
    fn a_client_decodes_what_the_server_encoded((version, packets) in version().prop_flat_map(|v| (Just(v), vec(outgoing(v), 1..8)))) {
        let codec = Codec::for_data_stream(version, LIMIT);
        let client = ClientCodec::new(version, LIMIT);
        let mut wire = BytesMut::new();
        for packet in &packets {
            codec.encode(packet, &mut wire);
        }
        let mut decoded: Vec<Outgoing> = Vec::new();
        while let Some(packet) = client.decode(&mut wire).unwrap() {
            decoded.push(packet);
        }
        prop_assert_eq!(decoded, packets);
    }

    #[test]
    fn a_data_stream_carries_publishes_and_subscriptions((version, packet) in version().prop_flat_map(|v| (Just(v), stream_packet(v)))) {
        let mut wire = BytesMut::new();
        ClientCodec::new(version, LIMIT).encode(&packet, &mut wire);
        prop_assert_eq!(Codec::for_data_stream(version, LIMIT).decode(&mut wire).unwrap(), Some(packet));
    }
}

#[test]
fn topic_and_payload_are_slices_of_the_read_buffer() {
    let mut codec = Codec::for_data_stream(Version::V5, LIMIT);
    let mut stream = BytesMut::from(&b"\x30\x0a\x00\x03a/b\x00zaeh"[..]);
    let range = stream.as_ptr_range();
    let Some(Incoming::Publish(publish)) = codec.decode(&mut stream).unwrap() else { panic!("a PUBLISH") };
    let within = |bytes: &Bytes| range.contains(&bytes.as_ptr());
    assert!(within(publish.message.topic.bytes()));
    assert!(within(&publish.message.payload));
}
