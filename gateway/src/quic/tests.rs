//! The door with real QUIC clients and sessions that acknowledge everything.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ApplicationClose, Connection, ConnectionError, RecvStream, SendStream};
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::QuicListener;
use super::sessions::Sessions;
use crate::client::mqtt::tests::server::TestServer;
use crate::client::mqtt::{Client, ConnectOptions, Event, Transport, Trust};
use crate::mqtt::codec::ClientCodec;
use crate::mqtt::connection::{Ended, Peer};
use crate::mqtt::packet::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct TestSessions {
    server: TestServer,
    overloaded: bool,
}

impl Sessions for TestSessions {
    type Handle = (TestServer, Version);

    async fn control(
        &self,
        peer: Peer,
        reader: RecvStream,
        writer: SendStream,
        shutdown: CancellationToken,
        accepted: oneshot::Sender<Self::Handle>,
    ) -> Ended {
        assert_eq!(peer.transport, "quic");
        if self.overloaded {
            return Ended::Overloaded;
        }
        let server = self.server.clone();
        let connected = |version| {
            let _ = accepted.send((server, version));
        };
        tokio::select! {
            () = self.server.control(reader, writer, connected) => {}
            () = shutdown.cancelled() => {}
        }
        Ended::Normal
    }

    async fn data((server, version): Self::Handle, stream: u64, reader: RecvStream, writer: SendStream) {
        assert_ne!(stream, 0, "0 is control");
        server.data(stream, version, reader, writer).await;
    }
}

/// A new certificate for localhost (PEM), and settings that show it.
fn self_signed() -> (String, rustls::ServerConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (made.cert.pem(), config)
}

struct Door {
    sessions: TestSessions,
    listener: Arc<QuicListener>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Door {
    fn open(sessions: TestSessions) -> Door {
        let (_, tls) = self_signed();
        let listener = Arc::new(QuicListener::new(UdpSocket::bind("127.0.0.1:0").unwrap(), tls).unwrap());
        let shutdown = CancellationToken::new();
        let (serving, until, with) = (listener.clone(), shutdown.clone(), sessions.clone());
        let served = tokio::spawn(async move { serving.serve_sessions(with, until).await });
        Door { sessions, listener, shutdown, served }
    }

    fn transport(&self, messages_per_stream: Option<u32>) -> Transport {
        let endpoint = Trust::Anything.quic().unwrap();
        let address = self.listener.local_addr();
        Transport::Quic { endpoint, address, server_name: "localhost".to_owned(), messages_per_stream }
    }

    async fn connect(&self, messages_per_stream: Option<u32>) -> Client {
        Client::connect(&self.transport(messages_per_stream), &ConnectOptions::new("meter")).await.unwrap()
    }

    /// A bare QUIC connection.
    async fn raw(&self) -> Connection {
        let endpoint = Trust::Anything.quic().unwrap();
        endpoint.connect(self.listener.local_addr(), "localhost").unwrap().await.unwrap()
    }
}

async fn publish_all(client: &mut Client, tags: std::ops::Range<u64>, qos: Qos) {
    let (mut next, mut acked) = (tags.start, Vec::new());
    while (acked.len() as u64) < tags.end - tags.start {
        while next < tags.end && client.can_publish() {
            client.publish("meters/1/readings", Bytes::from(next.to_string()), qos, next).await.unwrap();
            next += 1;
        }
        if let Event::Acked { tag, reason: 0 } = timeout(PATIENCE, client.next()).await.unwrap().unwrap() {
            acked.push(tag);
        }
    }
    acked.sort_unstable();
    assert!(acked.into_iter().eq(tags));
}

async fn close_code(connection: &Connection) -> u64 {
    match timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => error_code.into_inner(),
        other => panic!("{other:?}"),
    }
}

fn wire(packet: &Incoming) -> BytesMut {
    let mut out = BytesMut::new();
    ClientCodec::new(Version::V5, 1 << 20).encode(packet, &mut out);
    out
}

fn connect_packet() -> BytesMut {
    // CONNECT of MQTT 5.0, clean start, client identifier "c".
    BytesMut::from(&b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c"[..])
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_on_the_control_stream_are_acknowledged() {
    let door = Door::open(TestSessions::default());
    let mut client = door.connect(None).await;
    publish_all(&mut client, 0..50, Qos::AtLeastOnce).await;
    publish_all(&mut client, 50..60, Qos::ExactlyOnce).await;
    assert!(door.sessions.server.received().iter().all(|(stream, _)| *stream == 0));
    assert!(door.sessions.server.payloads().into_iter().eq((0..60).map(|tag| tag.to_string())));
    client.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_streams_carry_publishes_with_acks_on_the_same_stream() {
    let door = Door::open(TestSessions::default());
    let mut client = door.connect(Some(10)).await;
    // More streams in all than may be open at a time.
    publish_all(&mut client, 0..1000, Qos::ExactlyOnce).await;
    let mut received = door.sessions.server.received();
    let streams: std::collections::BTreeSet<u64> = received.iter().map(|(stream, _)| *stream).collect();
    assert!(streams.into_iter().eq(1..=100), "a stream for every ten messages, none on control");
    received.sort_by_key(|(_, payload)| payload.parse::<u64>().unwrap());
    assert!(received.iter().map(|(_, payload)| payload.clone()).eq((0..1000).map(|tag| tag.to_string())));
    client.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_address_in_mid_flight_loses_nothing() {
    let door = Door::open(TestSessions::default());
    let transport = door.transport(None);
    let Transport::Quic { endpoint, .. } = &transport else { unreachable!() };
    let mut client = Client::connect(&transport, &ConnectOptions::new("meter")).await.unwrap();
    for round in 0..5u64 {
        for tag in round * 8..round * 8 + 8 {
            client.publish("t", Bytes::from(tag.to_string()), Qos::AtLeastOnce, tag).await.unwrap();
        }
        client.flush().await.unwrap();
        let before = endpoint.local_addr().unwrap();
        endpoint.rebind(UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        assert_ne!(endpoint.local_addr().unwrap(), before);
        while client.unacked() > 0 {
            timeout(PATIENCE, client.next()).await.unwrap().unwrap();
        }
    }
    assert!(door.sessions.server.payloads().into_iter().eq((0..40).map(|tag| tag.to_string())));
    client.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_data_streams_left_unacknowledged_is_published_on_the_next_connection() {
    let door = Door::open(TestSessions::default());
    let mut client = door.connect(Some(2)).await;
    for tag in 0..6u64 {
        // Packet identifiers 1 and 2 on each of three streams; nothing is handed to the transport yet.
        client.publish("t", Bytes::from(tag.to_string()), Qos::ExactlyOnce, tag).await.unwrap();
    }
    let unacked = client.into_unacked();
    let options = ConnectOptions::new("meter");
    let mut client = Client::resume(&door.transport(None), &options, unacked).await.unwrap();
    let mut acked = Vec::new();
    while client.unacked() > 0 {
        if let Event::Acked { tag, reason: 0 } = timeout(PATIENCE, client.next()).await.unwrap().unwrap() {
            acked.push(tag);
        }
    }
    acked.sort_unstable();
    assert_eq!(acked, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_streams_wait_until_connect_is_accepted() {
    let door = Door::open(TestSessions::default());
    let connection = door.raw().await;
    let (mut control, _control_reader) = connection.open_bi().await.unwrap();
    // One byte makes the server see the stream.
    let connect = connect_packet();
    control.write_all(&connect[..1]).await.unwrap();
    let (mut data, mut data_reader) = connection.open_bi().await.unwrap();
    let message = Message {
        topic: Text::from("t"),
        payload: Bytes::from_static(b"early"),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: MessageProperties::default(),
    };
    let publish = Publish { dup: false, packet_id: 7, topic_alias: None, message };
    data.write_all(&wire(&Incoming::Publish(publish))).await.unwrap();
    let mut answer = [0; 4];
    let early = timeout(Duration::from_millis(200), data_reader.read_exact(&mut answer)).await;
    assert!(early.is_err(), "nothing is taken before CONNECT is accepted");
    assert!(door.sessions.server.received().is_empty());
    control.write_all(&connect[1..]).await.unwrap();
    timeout(PATIENCE, data_reader.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, [0x40, 2, 0, 7]);
    assert_eq!(door.sessions.server.received(), [(1, "early".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bytes_close_the_connection_after_saying_why() {
    let door = Door::open(TestSessions::default());
    let connection = door.raw().await;
    let (mut control, mut reader) = connection.open_bi().await.unwrap();
    control.write_all(&connect_packet()).await.unwrap();
    control.write_all(b"\xc1\x00").await.unwrap();
    let answer = timeout(PATIENCE, reader.read_to_end(1000)).await.unwrap().unwrap();
    let mut answer = BytesMut::from(&answer[..]);
    let codec = ClientCodec::new(Version::V5, 1000);
    assert!(matches!(codec.decode(&mut answer).unwrap(), Some(Outgoing::ConnAck { reason: 0, .. })));
    assert!(matches!(codec.decode(&mut answer).unwrap(), Some(Outgoing::Disconnect { reason: 0x81, .. })));
    assert_eq!(close_code(&connection).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_ends_with_its_control_stream() {
    let door = Door::open(TestSessions::default());
    let connection = door.raw().await;
    let (mut control, _reader) = connection.open_bi().await.unwrap();
    control.write_all(&connect_packet()).await.unwrap();
    let (mut data, _data_reader) = connection.open_bi().await.unwrap();
    data.write_all(b"\x30").await.unwrap();
    control.finish().unwrap();
    assert_eq!(close_code(&connection).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_early_streams_are_reset_and_overload_has_its_own_code() {
    let door = Door::open(TestSessions::default());
    let connection = door.raw().await;
    let mut streams = Vec::new();
    for _ in 0..12 {
        let (mut writer, reader) = connection.open_bi().await.unwrap();
        writer.write_all(b"\x10").await.unwrap();
        streams.push((writer, reader));
    }
    let (_, last) = streams.last_mut().unwrap();
    let reset = timeout(PATIENCE, last.read_to_end(10)).await.unwrap();
    assert!(format!("{reset:?}").contains("Reset(2)"), "{reset:?}");

    let door = Door::open(TestSessions { overloaded: true, ..TestSessions::default() });
    let connection = door.raw().await;
    let (mut control, _reader) = connection.open_bi().await.unwrap();
    control.write_all(&connect_packet()).await.unwrap();
    assert_eq!(close_code(&connection).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_drains_and_refuses_newcomers() {
    let door = Door::open(TestSessions::default());
    let mut client = door.connect(None).await;
    publish_all(&mut client, 0..5, Qos::AtLeastOnce).await;
    door.shutdown.cancel();
    timeout(PATIENCE, door.served).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, client.next()).await.unwrap().is_err());
    assert_eq!(door.listener.endpoint.open_connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_for_new_connections() {
    let door = Door::open(TestSessions::default());
    let mut client = door.connect(None).await;
    let (pem, tls) = self_signed();
    door.listener.set_tls(tls).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let transport = |trust: Trust| {
        let (endpoint, address) = (trust.quic().unwrap(), door.listener.local_addr());
        Transport::Quic { endpoint, address, server_name: "localhost".to_owned(), messages_per_stream: None }
    };
    let trusted = transport(Trust::CaFile(ca));
    Client::connect(&trusted, &ConnectOptions::new("new")).await.unwrap().disconnect().await.unwrap();
    publish_all(&mut client, 0..5, Qos::AtLeastOnce).await;
}
