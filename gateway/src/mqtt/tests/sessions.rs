//! Sessions as clients see them: identifiers, takeover, wills, expiry, limits.

use super::*;
use crate::client::mqtt::{self as client, ConnectOptions, Transport, Trust};
use crate::mqtt::limits::{MAX_TLS_HANDSHAKES, TLS_TIMEOUT};
use crate::mqtt::session::{Entry, session_key};

#[tokio::test(flavor = "multi_thread")]
async fn client_identifiers_are_assigned_or_refused_by_the_rules() {
    let door = Door::start(&[]).await;
    let (_, reason, properties) = door.try_connect(v5("")).await;
    assert_eq!(reason, 0);
    assert!(properties.assigned_client_identifier.is_some_and(|id| !id.is_empty()));
    assert_eq!(properties.shared_subscription_available, Some(false));
    let kept_without_name = Connect { clean_start: false, session_expiry_interval: u32::MAX, ..v4("") };
    let (mut refused, reason, _) = door.try_connect(kept_without_name).await;
    assert_ne!(reason, 0);
    assert_eq!(refused.next().await, None);
    let (_, reason, _) = door.try_connect(v5(&"x".repeat(300))).await;
    assert_eq!(reason, 0x85);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_refuses_connections_beyond_its_maximum() {
    let door = Door::start(&["mqtt.max_connections=1"]).await;
    let first = door.connect(v5("a")).await;
    let (_, reason, _) = door.try_connect(v5("b")).await;
    assert_eq!(reason, 0x97);
    first.disconnect().await;
    eventually(|| door.broker.connected() == 0).await;
    door.connect(v5("b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_the_old_connections_appends() {
    let door = Door::start(&[]).await;
    let mut old = door.connect(kept("m1")).await;
    door.files.shut();
    old.publish(1, Qos::AtLeastOnce, "first").await;
    old.hears_nothing().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let codec = ClientCodec::new(Version::V5, 1 << 20);
    let mut bytes = BytesMut::new();
    codec.encode(&Incoming::Connect(Box::new(kept("m1"))), &mut bytes);
    codec.encode(&publish(2, Qos::AtLeastOnce, "meters/m1", "second"), &mut bytes);
    stream.write_all(&bytes).await.unwrap();
    let mut new = Client { stream, codec, buffer: BytesMut::new(), present: false };
    new.hears_nothing().await;
    door.files.open();
    assert_eq!(old.receive().await, Outgoing::PubAck(ack(1)));
    assert!(matches!(old.receive().await, Outgoing::Disconnect { reason: 0x8E, .. }));
    assert!(matches!(new.receive().await, Outgoing::ConnAck { session_present: true, .. }));
    assert_eq!(new.receive().await, Outgoing::PubAck(ack(2)));
    assert_eq!(door.values(), ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_takeovers_leaves_one_connection() {
    let door = Door::start(&[]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(door.connect(kept("m1")).await);
    }
    let mut last = clients.pop().unwrap();
    for mut client in clients {
        assert!(matches!(client.receive().await, Outgoing::Disconnect { reason: 0x8E, .. }));
    }
    last.publish(1, Qos::AtLeastOnce, "a").await;
    assert_eq!(last.receive().await, Outgoing::PubAck(ack(1)));
    assert_eq!(door.broker.clients(10).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_published_when_the_client_is_lost_and_not_when_it_says_goodbye() {
    let door = Door::start(&[]).await;
    let polite = door.connect(Connect { will: will("polite", 0), ..v5("a") }).await;
    polite.disconnect().await;
    let lost = door.connect(Connect { will: will("lost", 0), ..v5("b") }).await;
    drop(lost);
    door.values_become(&["lost"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_will_is_dropped_when_the_client_comes_back_in_time() {
    let door = Door::start(&[]).await;
    let away = door.connect(Connect { will: will("back in time", 3600), ..kept("a") }).await;
    let gone = door.connect(Connect { will: will("gone", 1), ..kept("b") }).await;
    let restarted = door.connect(Connect { will: will("session ended", 3600), ..kept("c") }).await;
    drop((away, gone, restarted));
    eventually(|| door.broker.connected() == 0).await;
    let back = door.connect(Connect { will: None, ..kept("a") }).await;
    assert!(back.present);
    let fresh = door.connect(Connect { clean_start: true, ..kept("c") }).await;
    assert!(!fresh.present);
    door.values_become(&["session ended", "gone"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_disconnected_and_its_will_published() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(Connect { keep_alive: 1, will: will("silent", 0), ..v5("a") }).await;
    assert!(matches!(client.receive().await, Outgoing::Disconnect { reason: 0x8D, .. }));
    assert_eq!(client.next().await, None);
    door.values_become(&["silent"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_expiry_has_passed_or_the_client_says_so() {
    let door = Door::start(&[]).await;
    let short = door.connect(Connect { session_expiry_interval: 1, ..kept("short") }).await;
    let mut ended = door.connect(kept("ended")).await;
    let long = door.connect(kept("long")).await;
    drop((short, long));
    ended.send(Incoming::Disconnect { reason: 0, session_expiry_interval: Some(0) }).await;
    assert_eq!(ended.next().await, None);
    eventually(|| door.broker.clients(10).len() == 1).await;
    assert!(door.connect(kept("long")).await.present);
    assert!(!door.connect(kept("short")).await.present);
    assert!(!door.connect(kept("ended")).await.present);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_subscriptions_survive_a_crash_and_clean_ones_do_not() {
    let door = Door::start(&[]).await;
    let mut subscriber = door.connect(kept("kept")).await;
    assert_eq!(subscriber.subscribe("meters/#", Qos::AtLeastOnce).await, 1);
    let _clean = door.connect(v5("clean")).await;
    let door = Door::on(door.crash().await, &[]).await;
    assert!(!door.connect(v5("clean")).await.present);
    let mut subscriber = door.connect(kept("kept")).await;
    assert!(subscriber.present);
    door.broker.publish("program", "meters/m9", b"hello", false).await.unwrap();
    assert_eq!(subscriber.message().await.message.payload, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_start_is_refused_while_the_former_session_cannot_be_removed() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    client.publish(7, Qos::ExactlyOnce, "once").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(7)));
    client.disconnect().await;
    door.files.inner.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    // Accepted, its packet id 7 would be taken for the former session's after a restart: acknowledged and never stored.
    let (_, reason, _) = door.try_connect(v5("m1")).await;
    assert_eq!(reason, 0x97);
    door.files.inner.set_faults(Faults::default());
    let mut client = door.connect(kept("m1")).await;
    assert!(client.present, "a refused clean start ends nothing");
    client.publish(7, Qos::ExactlyOnce, "once").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(7)));
    client.disconnect().await;
    assert!(!door.connect(v5("m1")).await.present);
    assert_eq!(door.values(), ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_expiry_cannot_become_persistent() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("a")).await;
    client.send(Incoming::Disconnect { reason: 0, session_expiry_interval: Some(60) }).await;
    assert!(matches!(client.receive().await, Outgoing::Disconnect { reason: 0x82, .. }));
}

/// Serves TLS too; returns where and how to get there.
async fn serve_tls(door: &Door) -> (SocketAddr, Transport) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let tls = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::new(arc_swap::ArcSwap::from_pointee(tls));
    tokio::spawn(serve(door.broker.clone(), listener, Some(tls), door.shutdown.clone()));
    let transport = Transport::Tls {
        address: address.to_string(),
        server_name: "localhost".to_owned(),
        config: Arc::new(Trust::Anything.tls().unwrap()),
    };
    (address, transport)
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_stay_silent_do_not_keep_clients_out_of_tls() {
    let door = Door::start(&[]).await;
    let (address, transport) = serve_tls(&door).await;
    let mut dead = Vec::new();
    for _ in 0..2 * MAX_TLS_HANDSHAKES {
        dead.push(TcpStream::connect(address).await.unwrap());
    }
    let options = ConnectOptions::new("m1");
    let connecting = client::Client::connect(&transport, &options);
    let connected = timeout(TLS_TIMEOUT / 2, connecting).await;
    assert!(connected.expect("the silent ones hold it up").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_clients_are_served_and_others_at_their_port_are_not() {
    let door = Door::start(&["mqtt.connect_timeout=500ms"]).await;
    let (address, transport) = serve_tls(&door).await;
    let mut client = client::Client::connect(&transport, &ConnectOptions::new("m1")).await.unwrap();
    let reason = client.publish_and_wait("meters/m1", Bytes::from_static(b"a"), Qos::ExactlyOnce).await.unwrap();
    assert_eq!(reason, 0);
    assert_eq!(door.broker.clients(1)[0].transport, "tls");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_sends_no_connect_is_closed() {
    let door = Door::start(&["mqtt.connect_timeout=200ms"]).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_resumed_without_expiry_does_not_come_back_after_a_crash() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    client.subscribe("meters/#", Qos::AtLeastOnce).await;
    client.disconnect().await;
    let client = door.connect(Connect { session_expiry_interval: 0, ..kept("m1") }).await;
    assert!(client.present);
    let stored = || Entry::decode(door.broker.sessions.get(&session_key("m1")).unwrap()).unwrap();
    eventually(|| stored().expiry == 0).await;
    let door = Door::on(door.crash().await, &[]).await;
    assert!(!door.connect(kept("m1")).await.present, "it ended with its connection");
}
