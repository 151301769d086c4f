//! What a publisher is told, and when.

use forebay_log::Epoch;

use super::*;
use crate::mqtt::intents::Mark;
use crate::mqtt::session::{CONTROL, intent_key};

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_comes_after_the_disk_has_synced_and_pings_are_answered_meanwhile() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("m1")).await;
    door.files.shut();
    client.publish(1, Qos::AtLeastOnce, "a").await;
    client.hears_nothing().await;
    client.send(Incoming::PingReq).await;
    assert_eq!(client.receive().await, Outgoing::PingResp);
    assert!(door.values().is_empty(), "nobody reads what is not durable");
    door.files.open();
    assert_eq!(client.receive().await, Outgoing::PubAck(ack(1)));
    door.values_become(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_come_in_the_order_of_the_publishes_of_all_qos() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("m1")).await;
    let mut bytes = BytesMut::new();
    for id in 1..=300u16 {
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(id % 3)];
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { id };
        client.codec.encode(&publish(packet_id, qos, "meters/m1", &id.to_string()), &mut bytes);
    }
    client.stream.write_all(&bytes).await.unwrap();
    for id in (1..=300).filter(|id| id % 3 != 0) {
        let expected = if id % 3 == 1 { Outgoing::PubAck(ack(id)) } else { Outgoing::PubRec(ack(id)) };
        assert_eq!(client.receive().await, expected);
    }
    let expected: Vec<String> = (1..=300).map(|id| id.to_string()).collect();
    assert_eq!(door.values(), expected, "the log has the device's order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_with_quota_exceeded_until_there_is_room_again() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("m1")).await;
    let mut old = door.connect(v4("old")).await;
    door.files.inner.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    client.publish(1, Qos::AtLeastOnce, "lost").await;
    assert_eq!(client.receive().await, Outgoing::PubAck(Ack { packet_id: 1, reason: 0x97 }));
    client.publish(2, Qos::ExactlyOnce, "lost").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(Ack { packet_id: 2, reason: 0x97 }));
    old.publish(1, Qos::AtLeastOnce, "lost").await;
    assert_eq!(old.next().await, None, "3.1.1 has no negative ack");
    door.files.inner.set_faults(Faults::default());
    let mut id = 3;
    loop {
        client.publish(id, Qos::AtLeastOnce, "kept").await;
        match client.receive().await {
            Outgoing::PubAck(Ack { reason: 0, .. }) => break,
            Outgoing::PubAck(Ack { reason: 0x97, .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("{other:?}"),
        }
        id += 1;
        assert!(id < 1000, "the log does not resume");
    }
    assert_eq!(door.values(), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_log_pushes_back_on_the_socket() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v4("m1")).await;
    door.files.shut();
    let payload = "x".repeat(16 << 10);
    let mut bytes = BytesMut::new();
    for id in 1..=400 {
        client.codec.encode(&publish(id, Qos::AtLeastOnce, "meters/m1", &payload), &mut bytes);
    }
    let mut sent = 0;
    // The peer's kernel and ours buffer a few megabytes; the process takes no more than its limits.
    for _ in 0..64 {
        match timeout(SILENCE, client.stream.write_all(&bytes)).await {
            Ok(written) => written.unwrap(),
            Err(_) => break,
        }
        sent += bytes.len();
    }
    assert!(sent < 200 << 20, "{sent} bytes were taken while nothing could be stored");
    door.files.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_holds_across_reconnect_and_release() {
    let door = Door::start(&[]).await;
    let mut first = door.connect(kept("m1")).await;
    first.publish(5, Qos::ExactlyOnce, "once").await;
    assert_eq!(first.receive().await, Outgoing::PubRec(ack(5)));
    drop(first);
    let mut second = door.connect(kept("m1")).await;
    assert!(second.present);
    second.publish(5, Qos::ExactlyOnce, "once").await;
    assert_eq!(second.receive().await, Outgoing::PubRec(ack(5)));
    second.send(Incoming::PubRel(ack(5))).await;
    assert_eq!(second.receive().await, Outgoing::PubComp(ack(5)));
    second.send(Incoming::PubRel(ack(5))).await;
    assert_eq!(second.receive().await, Outgoing::PubComp(Ack { packet_id: 5, reason: 0x92 }));
    second.publish(5, Qos::ExactlyOnce, "twice").await;
    assert_eq!(second.receive().await, Outgoing::PubRec(ack(5)));
    assert_eq!(door.values(), ["once", "twice"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_holds_across_a_crash_of_the_node() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    for (id, payload) in [(5, "five"), (6, "six")] {
        client.publish(id, Qos::ExactlyOnce, payload).await;
        assert_eq!(client.receive().await, Outgoing::PubRec(ack(id)));
    }
    client.send(Incoming::PubRel(ack(6))).await;
    assert_eq!(client.receive().await, Outgoing::PubComp(ack(6)));
    let door = Door::on(door.crash().await, &[]).await;
    let mut client = door.connect(kept("m1")).await;
    assert!(client.present);
    client.publish(5, Qos::ExactlyOnce, "five").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(5)));
    client.publish(6, Qos::ExactlyOnce, "another").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(6)));
    assert_eq!(door.values(), ["five", "six", "another"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_whose_publish_never_reached_the_log_is_no_receipt() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    client.publish(5, Qos::ExactlyOnce, "earlier").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(5)));
    client.send(Incoming::PubRel(ack(5))).await;
    assert_eq!(client.receive().await, Outgoing::PubComp(ack(5)));
    // As a crash between the intent and the append of a later publish with the same id leaves it.
    let mark = Mark::Intent { topic: "mqtt".to_owned(), partition: 0, from: Offset(1), epoch: Epoch(0) };
    door.broker.sessions.put(intent_key("m1", CONTROL, 5), Some(mark.encode())).await.unwrap();
    let door = Door::on(door.crash().await, &[]).await;
    let mut client = door.connect(kept("m1")).await;
    client.publish(5, Qos::ExactlyOnce, "later").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(5)));
    assert_eq!(door.values(), ["earlier", "later"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_whose_log_cannot_be_read_is_neither_appended_again_nor_acknowledged() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    client.publish(5, Qos::ExactlyOnce, "five").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(5)));
    let files = door.crash().await;
    let state = Path::new("log/mqtt-0/partition.state");
    // No partition state is ever empty: the partition cannot be opened.
    files.inner.open(state, true).unwrap();
    let door = Door::on(files.clone(), &[]).await;
    let mut client = door.connect(kept("m1")).await;
    assert!(client.present);
    client.publish(5, Qos::ExactlyOnce, "five").await;
    assert!(matches!(client.receive().await, Outgoing::Disconnect { reason: 0x83, .. }));
    files.inner.remove(state).unwrap();
    let partition = door.log.topic("mqtt").unwrap().partitions[0].clone();
    eventually(|| partition.unopened().is_none()).await;
    // It need not be started again.
    let mut client = door.connect(kept("m1")).await;
    assert!(client.present);
    client.publish(5, Qos::ExactlyOnce, "five").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(5)));
    assert_eq!(door.values(), ["five"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_open_intents_starts_while_nothing_can_be_written() {
    let door = Door::start(&[]).await;
    door.connect(kept("m1")).await.disconnect().await;
    let mark = Mark::Intent { topic: "mqtt".to_owned(), partition: 0, from: Offset(0), epoch: Epoch(0) };
    door.broker.sessions.put(intent_key("m1", CONTROL, 5), Some(mark.encode())).await.unwrap();
    let files = door.crash().await;
    files.inner.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    let door = Door::on(files, &[]).await;
    door.files.inner.set_faults(Faults::default());
    assert!(door.connect(kept("m1")).await.present);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_the_connection_closed_is_stored() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v4("m1")).await;
    let mut bytes = BytesMut::new();
    for id in 0..2000 {
        client.codec.encode(&publish(0, Qos::AtMostOnce, "meters/m1", &id.to_string()), &mut bytes);
    }
    client.stream.write_all(&bytes).await.unwrap();
    client.disconnect().await;
    eventually(|| door.records().len() == 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_packets_end_the_connection_with_their_code() {
    let door = Door::start(&["mqtt.max_packet_size=1024"]).await;
    let mut client = door.connect(v5("m1")).await;
    client.publish(1, Qos::AtLeastOnce, "good").await;
    // PUBLISH with QoS 3.
    client.stream.write_all(&[0x36, 2, 0, 0]).await.unwrap();
    // What came before is stored, whether or not its ack is still sent.
    let mut last = client.receive().await;
    if last == Outgoing::PubAck(ack(1)) {
        last = client.receive().await;
    }
    assert!(matches!(last, Outgoing::Disconnect { reason: 0x81, .. }));
    assert_eq!(client.next().await, None);
    door.values_become(&["good"]).await;

    let mut client = door.connect(v5("m1")).await;
    client.publish(1, Qos::AtLeastOnce, &"x".repeat(2000)).await;
    assert!(matches!(client.receive().await, Outgoing::Disconnect { reason: 0x95, .. }));

    let mut old = door.connect(v4("old")).await;
    old.stream.write_all(&[0x36, 2, 0, 0]).await.unwrap();
    assert_eq!(old.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_acks_and_says_goodbye() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("m1")).await;
    let mut old = door.connect(v4("old")).await;
    door.files.shut();
    client.publish(1, Qos::AtLeastOnce, "a").await;
    client.hears_nothing().await;
    door.shutdown.cancel();
    client.hears_nothing().await;
    door.files.open();
    assert_eq!(client.receive().await, Outgoing::PubAck(ack(1)));
    assert!(matches!(client.receive().await, Outgoing::Disconnect { reason: 0x8B, .. }));
    assert_eq!(client.next().await, None);
    assert_eq!(old.next().await, None);
    timeout(PATIENCE, door.serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_3_1_1_meter_at_qos_0_goes_on_by_itself_when_a_full_disk_has_room_again() {
    let door = Door::start(&[]).await;
    let mut meter = door.connect(v4("m1")).await;
    door.files.inner.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    meter.publish(0, Qos::AtMostOnce, "lost").await;
    eventually(|| door.log.disk_full()).await;
    door.files.inner.set_faults(Faults::default());
    let end = tokio::time::Instant::now() + PATIENCE;
    while door.values().is_empty() {
        assert!(tokio::time::Instant::now() < end, "nothing of this connection is stored any more");
        meter.publish(0, Qos::AtMostOnce, "kept").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(door.values()[0], "kept");
    meter.publish(1, Qos::AtLeastOnce, "acknowledged").await;
    assert_eq!(meter.receive().await, Outgoing::PubAck(ack(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_that_is_refused_on_a_full_disk_is_not_retained() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("m1")).await;
    fill(&door, &mut client).await;
    client.send(retained(2, "meters/m1", "refused")).await;
    assert_eq!(client.receive().await, Outgoing::PubAck(Ack { packet_id: 2, reason: 0x97 }));
    assert_eq!(client.subscribe("meters/#", Qos::AtLeastOnce).await, 1);
    client.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_publishes_that_a_full_disk_refuses_do_not_use_up_its_reserve() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(kept("m1")).await;
    fill(&door, &mut client).await;
    let state = door.log.topic("_mqtt_sessions").unwrap().partitions[0].clone();
    let before = state.watermarks().log_end;
    for id in 1..=50 {
        client.publish(id, Qos::ExactlyOnce, "refused").await;
        assert_eq!(client.receive().await, Outgoing::PubRec(Ack { packet_id: id, reason: 0x97 }));
    }
    assert_eq!(state.watermarks().log_end, before, "each try writes");
}

/// Publishes until the disk is full; what is released then is the reserve.
async fn fill(door: &Door, client: &mut Client) {
    let used = door.files.inner.contents().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    door.files.inner.set_faults(Faults { capacity: Some(used), ..Faults::default() });
    while !door.log.disk_full() {
        client.publish(1, Qos::AtLeastOnce, "the last that fits").await;
        client.receive().await;
    }
}
