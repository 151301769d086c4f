//! What a node keeps for its clients is bounded: sessions and retained messages.

use tokio::io::{duplex, split};

use super::*;
use crate::mqtt::connection::{self, Peer};
use crate::mqtt::registry::Parked;
use crate::mqtt::session::Kept;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_under_a_new_name_each_time_does_not_fill_the_node_with_sessions() {
    let door = Door::start(&["mqtt.max_sessions=2"]).await;
    door.connect(kept("m1")).await.disconnect().await;
    door.connect(kept("m2")).await.disconnect().await;
    let (mut refused, reason, _) = door.try_connect(kept("random-1")).await;
    assert_eq!(reason, 0x97);
    assert_eq!(refused.next().await, None);
    let old = Connect { clean_start: false, session_expiry_interval: u32::MAX, ..v4("random-2") };
    let (_, reason, _) = door.try_connect(old).await;
    assert_eq!(reason, 0x88, "3.1.1: return code 3, server unavailable");
    assert_eq!(door.broker.clients(10).len(), 2);

    door.connect(v5("clean")).await.disconnect().await;
    let _clean = door.connect(v5("trick")).await;
    let (_, reason, _) = door.try_connect(kept("trick")).await;
    assert_eq!(reason, 0x97, "nor by way of a session that was not to be kept");
    eventually(|| door.broker.clients(10).len() == 2).await;
    assert!(door.connect(kept("m1")).await.present, "the sessions that are there go on");
    door.connect(Connect { session_expiry_interval: 0, ..kept("m2") }).await.disconnect().await;
    eventually(|| door.broker.clients(10).len() < 2).await;
    door.connect(kept("m3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_sessions_make_room_for_new_ones_before_the_sweep_has_come_to_them() {
    let door = Door::start(&["mqtt.max_sessions=1"]).await;
    // No sweep from now on.
    door.shutdown.cancel();
    let expired = Parked {
        kept: Kept::default(),
        scope: Text::from("gone"),
        owner: None,
        version: Version::V5,
        expires_at: Millis(0),
        will: None,
    };
    door.broker.registry.restore(Text::from("old"), Box::new(expired));
    let (near, far) = duplex(4 << 10);
    let (reader, writer) = split(far);
    let peer = Peer { transport: "tcp", address: "test".to_owned() };
    tokio::spawn(connection::run(door.broker.clone(), peer, reader, writer, CancellationToken::new(), None));
    let mut client =
        Client { stream: near, codec: ClientCodec::new(Version::V5, 1 << 20), buffer: BytesMut::new(), present: false };
    client.send(Incoming::Connect(Box::new(kept("new")))).await;
    assert!(matches!(client.receive().await, Outgoing::ConnAck { reason: 0, .. }));
    assert_eq!(door.broker.clients(10).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_bounded_by_their_bytes_too() {
    let door = Door::start(&["mqtt.max_retained_bytes=10KiB"]).await;
    let large = "x".repeat(6 << 10);
    let keep = async |door: &Door, topic, payload: &str| {
        door.broker.publish("program", topic, payload.as_bytes(), true).await.unwrap();
    };
    keep(&door, "meters/a", &large).await;
    keep(&door, "meters/b", &large).await;
    let mut client = door.connect(v5("c")).await;
    client.subscribe("meters/+", Qos::AtLeastOnce).await;
    assert_eq!(client.message().await.message.topic.as_str(), "meters/a");
    client.hears_nothing().await;
    // Rather none than one that is out of date.
    keep(&door, "meters/a", &"y".repeat(11 << 10)).await;
    assert!(!client.message().await.message.retain);
    client.subscribe("meters/+", Qos::AtLeastOnce).await;
    client.hears_nothing().await;
    let door = Door::on(door.stop().await, &["mqtt.max_retained_bytes=10KiB"]).await;
    keep(&door, "meters/c", &large).await;
    keep(&door, "meters/a", "small").await;
    keep(&door, "meters/d", &large).await;
    let mut client = door.connect(v5("c")).await;
    client.subscribe("meters/+", Qos::AtLeastOnce).await;
    for (topic, payload) in [("meters/a", "small"), ("meters/c", large.as_str())] {
        let message = client.message().await.message;
        assert_eq!((message.topic.as_str(), message.payload.as_ref()), (topic, payload.as_bytes()));
    }
    client.hears_nothing().await;
}
