//! The hot pieces of the MQTT door: publishes parsed, routed and gathered, and acknowledgements written.

#[path = "../../tests/instructions/pieces.rs"]
mod pieces;
#[path = "../../tests/instructions/readings.rs"]
mod readings;

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use forebay::config::RouteConfig;
use forebay::ingest::{Gather, Publish, Router};
use forebay::mqtt::codec::{ClientCodec, Codec};
use forebay::mqtt::packet::{self, Ack, Incoming, Message, Outgoing, Qos, Version};
use forebay_cluster::{Log, LogOptions};
use forebay_disk::sim::SimFiles;
use forebay_log::{Millis, TopicConfig};
use pieces::Piece;

/// Packets of one run: the socket reads of fifty connections with twenty publishes each.
const PACKETS: usize = 1000;
const READ: usize = 20;

const PIECES: &[Piece] = &[
    Piece { name: "parse_a_publish_v4", items: PACKETS, bytes: 0, counted: true, make: || parse(Version::V4) },
    Piece { name: "parse_a_publish_v5", items: PACKETS, bytes: 0, counted: true, make: || parse(Version::V5) },
    Piece { name: "write_a_puback", items: PACKETS, bytes: 0, counted: true, make: write_pubacks },
    Piece { name: "write_a_publish", items: PACKETS, bytes: 0, counted: true, make: write_publishes },
    Piece { name: "route_by_topic", items: PACKETS, bytes: 0, counted: true, make: || route(None) },
    Piece {
        name: "route_with_the_readings_time",
        items: PACKETS,
        bytes: 0,
        counted: true,
        make: || route(Some("/ts")),
    },
    Piece { name: "route_and_gather", items: PACKETS, bytes: 0, counted: true, make: gather },
];

fn main() {
    pieces::main(PIECES);
}

#[divan::bench(args = PIECES, max_time = 1)]
fn gateway(bencher: divan::Bencher<'_, '_>, piece: &Piece) {
    pieces::time(bencher, piece);
}

fn topic(meter: usize) -> String {
    format!("meters/{}/readings", readings::meter(meter))
}

fn publishes() -> Vec<packet::Publish> {
    let publish = |(index, payload): (usize, String)| packet::Publish {
        dup: false,
        packet_id: 1 + (index % READ) as u16,
        topic_alias: None,
        message: Message {
            topic: topic(index).as_str().into(),
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: packet::MessageProperties::default(),
        },
    };
    readings::payloads(PACKETS).into_iter().enumerate().map(publish).collect()
}

/// The codec of a data stream needs no CONNECT; a PUBLISH goes the same way through both.
fn codec(version: Version) -> Codec {
    Codec::for_data_stream(version, 1 << 20)
}

fn parse(version: Version) -> Box<dyn FnMut()> {
    let client = ClientCodec::new(version, 1 << 20);
    let publishes = publishes();
    let encoded = |part: &[packet::Publish]| {
        let mut read = BytesMut::new();
        part.iter().for_each(|publish| client.encode(&Incoming::Publish(publish.clone()), &mut read));
        read.freeze()
    };
    let reads: Vec<_> = publishes.chunks(READ).map(encoded).collect();
    let mut codec = codec(version);
    Box::new(move || {
        let mut parsed = 0;
        for read in &reads {
            // The copy stands for the socket read.
            let mut stream = BytesMut::from(&read[..]);
            while let Some(packet) = codec.decode(&mut stream).expect("a packet") {
                black_box(packet);
                parsed += 1;
            }
        }
        assert_eq!(parsed, PACKETS);
    })
}

fn write_pubacks() -> Box<dyn FnMut()> {
    let codec = codec(Version::V5);
    let mut out = BytesMut::with_capacity(16 << 10);
    Box::new(move || {
        out.clear();
        for packet_id in 1..=PACKETS as u16 {
            codec.encode(black_box(&Outgoing::PubAck(Ack { packet_id, reason: 0 })), &mut out);
        }
        black_box(&out);
    })
}

fn write_publishes() -> Box<dyn FnMut()> {
    let codec = codec(Version::V5);
    let packets: Vec<Outgoing> = publishes().into_iter().map(Outgoing::Publish).collect();
    let mut out = BytesMut::with_capacity(1 << 20);
    Box::new(move || {
        out.clear();
        packets.iter().for_each(|packet| codec.encode(black_box(packet), &mut out));
        black_box(&out);
    })
}

fn router(timestamp: Option<&str>) -> Router {
    let route = RouteConfig {
        filter: "meters/+/readings".to_owned(),
        topic: "readings".to_owned(),
        key: Some("{1}".to_owned()),
        timestamp: timestamp.map(str::to_owned),
    };
    Router::new(&[route]).expect("a route")
}

fn messages() -> Vec<(String, String)> {
    readings::payloads(PACKETS).into_iter().enumerate().map(|(index, payload)| (topic(index), payload)).collect()
}

fn route(timestamp: Option<&'static str>) -> Box<dyn FnMut()> {
    let (router, messages) = (router(timestamp), messages());
    Box::new(move || {
        for (topic, payload) in &messages {
            black_box(router.route(black_box(topic), "client", black_box(payload.as_bytes())));
        }
    })
}

/// As far as the chunks that are submitted, for a topic of eight partitions.
fn gather() -> Box<dyn FnMut()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let files = Arc::new(SimFiles::new(1));
    let log = Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).expect("an empty directory");
    runtime.block_on(log.create_topic("readings", 8, TopicConfig::default())).expect("a new topic");
    let (router, messages) = (Arc::new(router(Some("/ts"))), messages());
    Box::new(move || {
        let mut gather = Gather::new(log.clone(), Arc::clone(&router));
        for (topic, payload) in &messages {
            let publish = Publish {
                topic,
                payload: payload.as_bytes(),
                client_id: "meter",
                qos: 1,
                user_properties: &[],
                content_type: None,
                packet_id: None,
                headers: &[],
            };
            black_box(gather.push(Millis(1_767_225_600_000), &publish)).expect("it is routed");
        }
        black_box(gather.bytes());
    })
}
