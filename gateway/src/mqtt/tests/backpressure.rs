//! What the node takes from its connections while the log takes nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_cluster::AppendData;
use forebay_log::record::RecordChunk;
use tokio::io::{duplex, split};

use super::*;
use crate::mqtt::connection::{self, Peer};
use crate::mqtt::limits::MAX_HELD_BYTES;

/// Submits until no byte more may wait for its commit.
async fn fill_the_log(door: &Door) {
    door.files.shut();
    let partition = door.log.topic("mqtt").unwrap().partitions[0].clone();
    for size in [1_000_000, 4000] {
        loop {
            let mut chunk = RecordChunk::new();
            chunk.push(Millis(0), None, Some(&vec![b'x'; size]), &[]);
            if timeout(SILENCE, partition.submit(AppendData::Chunk(chunk))).await.is_err() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_publish_waits_for_a_stalled_disk_is_still_answered_its_pings() {
    let door = Door::start(&[]).await;
    let mut others = door.broker.held.share();
    others.set(MAX_HELD_BYTES);
    let mut client = door.connect(v5("m1")).await;
    fill_the_log(&door).await;
    client.publish(1, Qos::AtLeastOnce, &"x".repeat(4 << 10)).await;
    client.hears_nothing().await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        client.send(Incoming::PingReq).await;
        answers.extend(timeout(PATIENCE / 10, client.next()).await);
    }
    client.publish(2, Qos::AtLeastOnce, &"x".repeat(4 << 10)).await;
    door.files.open();
    assert_eq!(answers, [Some(Outgoing::PingResp), Some(Outgoing::PingResp), Some(Outgoing::PingResp)]);
    assert_eq!(client.receive().await, Outgoing::PubAck(ack(1)));
    assert_eq!(client.receive().await, Outgoing::PubAck(ack(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_connections_together_hold_too_much_each_reads_only_what_it_needs_to_get_on() {
    let door = Door::start(&[]).await;
    let mut others = door.broker.held.share();
    others.set(MAX_HELD_BYTES);
    let (near, far) = duplex(4 << 10);
    let (reader, writer) = split(far);
    let peer = Peer { transport: "tcp", address: "test".to_owned() };
    tokio::spawn(connection::run(door.broker.clone(), peer, reader, writer, door.shutdown.clone(), None));
    let mut client =
        Client { stream: near, codec: ClientCodec::new(Version::V5, 1 << 20), buffer: BytesMut::new(), present: false };
    client.send(Incoming::Connect(Box::new(v5("m1")))).await;
    assert!(matches!(client.receive().await, Outgoing::ConnAck { reason: 0, .. }));
    fill_the_log(&door).await;

    let payload = "x".repeat(4 << 10);
    let mut bytes = BytesMut::new();
    for id in 1..=128 {
        client.codec.encode(&publish(id, Qos::AtLeastOnce, "meters/m1", &payload), &mut bytes);
    }
    let Client { stream, codec, buffer, present } = client;
    let (reader, mut writer) = split(stream);
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let writing = tokio::spawn(async move {
        while !bytes.is_empty() {
            count.fetch_add(writer.write_buf(&mut bytes).await.unwrap(), Ordering::Relaxed);
        }
        writer
    });
    tokio::time::sleep(2 * SILENCE).await;
    let taken = taken.load(Ordering::Relaxed);
    door.files.open();
    assert!(taken < 64 << 10, "{taken} bytes were taken while the log took nothing");
    let stream = reader.unsplit(writing.await.unwrap());
    let mut client = Client { stream, codec, buffer, present };
    for id in 1..=128 {
        assert_eq!(client.receive().await, Outgoing::PubAck(ack(id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_cannot_be_stored_wait_in_the_socket_and_not_in_memory() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    door.files.shut_for("log/_mqtt_sessions-0");
    // One filter again and again: each would be a store of its own.
    let filter = SubscribeFilter {
        filter: Text::from("f".repeat(60_000).as_str()),
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 2,
    };
    let mut packets = BytesMut::new();
    let count = 400;
    for packet_id in 1..=count {
        let packet = Incoming::Subscribe { packet_id, filters: vec![filter.clone()], subscription_identifier: None };
        client.codec.encode(&packet, &mut packets);
    }
    let (mut reader, mut writer) = client.stream.into_split();
    let mut writing = tokio::spawn(async move { writer.write_all(&packets).await.map(|()| writer) });
    assert!(timeout(Duration::from_secs(3), &mut writing).await.is_err(), "the node takes 24 MB of subscriptions");
    door.files.open();
    let _writer = timeout(PATIENCE, writing).await.unwrap().unwrap().unwrap();
    let mut answers = 0;
    while answers < count {
        if let Some(packet) = client.codec.decode(&mut client.buffer).unwrap() {
            assert!(matches!(packet, Outgoing::SubAck { .. }), "{packet:?}");
            answers += 1;
        } else {
            assert!(timeout(PATIENCE, reader.read_buf(&mut client.buffer)).await.unwrap().unwrap() > 0);
        }
    }
}
