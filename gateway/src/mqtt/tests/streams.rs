//! Data streams beside a control stream, as the QUIC door attaches them.

use tokio::io::{DuplexStream, duplex, split};
use tokio::sync::oneshot;

use super::*;
use crate::mqtt::connection::{self, Peer, SessionHandle};

/// A connection over pipes: its control stream, and the handle for further ones.
async fn connect(door: &Door, connect: Connect) -> (Client<DuplexStream>, SessionHandle) {
    let (near, far) = duplex(64 << 10);
    let (reader, writer) = split(far);
    let (accepted, handle) = oneshot::channel();
    let peer = Peer { transport: "quic", address: "test".to_owned() };
    tokio::spawn(connection::run(door.broker.clone(), peer, reader, writer, door.shutdown.clone(), Some(accepted)));
    let codec = ClientCodec::new(connect.version, 1 << 20);
    let mut client = Client { stream: near, codec, buffer: BytesMut::new(), present: false };
    client.send(Incoming::Connect(Box::new(connect))).await;
    assert!(matches!(client.receive().await, Outgoing::ConnAck { reason: 0, .. }));
    (client, handle.await.unwrap())
}

fn open_stream(handle: &SessionHandle, id: u64) -> Client<DuplexStream> {
    let (near, far) = duplex(64 << 10);
    let (reader, writer) = split(far);
    let handle = handle.clone();
    tokio::spawn(async move { connection::run_data_stream(handle, id, reader, writer).await });
    Client { stream: near, codec: ClientCodec::new(Version::V5, 1 << 20), buffer: BytesMut::new(), present: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_of_a_data_stream_are_acknowledged_on_it_and_packet_ids_count_by_stream() {
    let door = Door::start(&[]).await;
    let (mut control, handle) = connect(&door, kept("m1")).await;
    let mut streams = [open_stream(&handle, 4), open_stream(&handle, 8)];
    for stream in &mut streams {
        stream.publish(1, Qos::ExactlyOnce, "a").await;
        assert_eq!(stream.receive().await, Outgoing::PubRec(ack(1)));
        stream.publish(1, Qos::ExactlyOnce, "a").await;
        assert_eq!(stream.receive().await, Outgoing::PubRec(ack(1)));
        stream.send(Incoming::PubRel(ack(1))).await;
        assert_eq!(stream.receive().await, Outgoing::PubComp(ack(1)));
    }
    control.publish(1, Qos::AtLeastOnce, "b").await;
    assert_eq!(control.receive().await, Outgoing::PubAck(ack(1)));
    assert_eq!(door.values(), ["a", "a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_finished_gets_its_acks_and_makes_room_for_others() {
    let door = Door::start(&[]).await;
    let (control, handle) = connect(&door, v5("m1")).await;
    for id in 1..=150 {
        let mut stream = open_stream(&handle, id * 4);
        stream.publish(1, Qos::AtLeastOnce, "x").await;
        stream.stream.shutdown().await.unwrap();
        assert_eq!(stream.receive().await, Outgoing::PubAck(ack(1)));
        assert_eq!(stream.next().await, None);
    }
    assert_eq!(door.records().len(), 150);
    drop(control);
    timeout(PATIENCE, handle.closed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_packets_on_a_data_stream_end_the_connection() {
    let door = Door::start(&[]).await;
    let (mut control, handle) = connect(&door, v5("m1")).await;
    let mut stream = open_stream(&handle, 4);
    stream.send(Incoming::PingReq).await;
    assert!(matches!(control.receive().await, Outgoing::Disconnect { reason: 0x82, .. }));
    assert_eq!(control.next().await, None);
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_finishes_while_its_packets_wait_for_the_disk_gets_all_its_acks() {
    let door = Door::start(&[]).await;
    let (mut control, handle) = connect(&door, v5("m1")).await;
    let mut stream = open_stream(&handle, 4);
    door.files.shut();
    // As much as a connection appends at a time; what follows waits.
    let large = "x".repeat(900 << 10);
    for id in 1..=5 {
        control.publish(id, Qos::AtLeastOnce, &large).await;
    }
    control.hears_nothing().await;
    for id in 6..=9 {
        stream.publish(id, Qos::AtLeastOnce, "small").await;
    }
    stream.stream.shutdown().await.unwrap();
    control.hears_nothing().await;
    door.files.open();
    for id in 6..=9 {
        assert_eq!(stream.receive().await, Outgoing::PubAck(ack(id)));
    }
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_finishes_behind_its_subscribe_or_release_gets_the_answer() {
    let door = Door::start(&[]).await;
    let (_control, handle) = connect(&door, kept("m1")).await;
    let mut stream = open_stream(&handle, 4);
    stream.publish(1, Qos::ExactlyOnce, "a").await;
    assert_eq!(stream.receive().await, Outgoing::PubRec(ack(1)));
    door.files.shut();
    stream.send(Incoming::PubRel(ack(1))).await;
    stream.send(Incoming::Unsubscribe { packet_id: 2, filters: vec![Text::from("nothing")] }).await;
    stream.stream.shutdown().await.unwrap();
    assert!(matches!(stream.receive().await, Outgoing::UnsubAck { packet_id: 2, .. }));
    let mut other = open_stream(&handle, 8);
    let filter = SubscribeFilter {
        filter: Text::from("meters/#"),
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 2,
    };
    let subscribe = Incoming::Subscribe { packet_id: 3, filters: vec![filter], subscription_identifier: None };
    other.send(subscribe).await;
    other.stream.shutdown().await.unwrap();
    tokio::time::sleep(SILENCE).await;
    door.files.open();
    assert_eq!(stream.next().await, Some(Outgoing::PubComp(ack(1))));
    assert_eq!(stream.next().await, None);
    assert_eq!(other.next().await, Some(Outgoing::SubAck { packet_id: 3, reasons: vec![1] }));
    assert_eq!(other.next().await, None);
}
