//! What subscribers receive: live, after an absence, when they are slow, and what was retained.

use super::*;
use crate::mqtt::session::{Subscription, cursor_key};

fn payloads(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(|publish| String::from_utf8_lossy(&publish.message.payload).into_owned()).collect()
}

async fn messages(client: &mut Client, count: usize) -> Vec<Publish> {
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(client.message().await);
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_what_matches_at_the_granted_qos_and_no_older_messages() {
    let door = Door::start(&[]).await;
    let mut publisher = door.connect(v5("p")).await;
    publisher.publish(1, Qos::AtLeastOnce, "before").await;
    assert_eq!(publisher.receive().await, Outgoing::PubAck(ack(1)));
    let mut one = door.connect(v5("one")).await;
    assert_eq!(one.subscribe("meters/+", Qos::ExactlyOnce).await, 1, "QoS 2 is granted 1");
    let mut zero = door.connect(v4("zero")).await;
    assert_eq!(zero.subscribe("#", Qos::AtMostOnce).await, 0);
    let mut other = door.connect(v5("other")).await;
    other.subscribe("pumps/#", Qos::AtLeastOnce).await;
    publisher.publish(2, Qos::ExactlyOnce, "two").await;
    publisher.publish(0, Qos::AtMostOnce, "zero").await;
    let received = messages(&mut one, 2).await;
    assert_eq!(payloads(&received), ["two", "zero"]);
    assert_eq!([received[0].message.qos, received[1].message.qos], [Qos::AtLeastOnce, Qos::AtMostOnce]);
    assert_eq!(payloads(&messages(&mut zero, 2).await), ["two", "zero"]);
    other.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_filters_deliver_once_with_all_identifiers_and_no_local_holds() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("c")).await;
    client.subscribe_with("meters/#", Qos::AtLeastOnce, 0, false, Some(7)).await;
    client.subscribe_with("meters/m1", Qos::AtMostOnce, 0, false, Some(8)).await;
    client.subscribe_with("own/#", Qos::AtLeastOnce, 0, true, None).await;
    door.broker.publish("program", "own/x", b"theirs", false).await.unwrap();
    assert_eq!(client.message().await.message.payload, "theirs");
    client.send(publish(1, Qos::AtLeastOnce, "own/x", "mine")).await;
    assert_eq!(client.receive().await, Outgoing::PubAck(ack(1)));
    door.broker.publish("program", "meters/m1", b"once", false).await.unwrap();
    let message = client.message().await.message;
    assert_eq!((message.payload.as_ref(), message.qos), (&b"once"[..], Qos::AtLeastOnce));
    let mut identifiers = message.properties.subscription_identifiers;
    identifiers.sort_unstable();
    assert_eq!(identifiers, [7, 8]);
    client.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_and_malformed_filters_are_refused() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("c")).await;
    assert_eq!(client.subscribe("$share/g/meters/#", Qos::AtLeastOnce).await, 0x9E);
    let mut old = door.connect(v4("old")).await;
    assert_eq!(old.subscribe("$share/g/meters/#", Qos::AtLeastOnce).await, 0x80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_session_gets_what_it_missed_in_order_after_restart_too() {
    let mut door = Door::start(&[]).await;
    let mut away = door.connect(kept("away")).await;
    away.subscribe("meters/#", Qos::AtLeastOnce).await;
    door.broker.publish("program", "meters/m1", b"live", false).await.unwrap();
    assert_eq!(away.message().await.message.payload, "live");
    away.disconnect().await;
    for at in 0..50 {
        if at == 25 {
            door = Door::on(door.stop().await, &[]).await;
        }
        door.broker.publish("program", "meters/m1", at.to_string().as_bytes(), false).await.unwrap();
        door.broker.publish("program", "pumps/p1", b"not for it", false).await.unwrap();
    }
    let mut back = door.connect(kept("away")).await;
    assert!(back.present);
    let expected: Vec<String> = (0..50).map(|at| at.to_string()).collect();
    assert_eq!(payloads(&messages(&mut back, 50).await), expected);
    door.broker.publish("program", "meters/m1", b"live again", false).await.unwrap();
    assert_eq!(back.message().await.message.payload, "live again");
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_messages_come_again_with_dup_and_their_ids() {
    let door = Door::start(&[]).await;
    let connect = Connect { receive_maximum: 2, ..kept("c") };
    let mut client = door.connect(connect.clone()).await;
    client.subscribe("meters/#", Qos::AtLeastOnce).await;
    for payload in ["a", "b", "c"] {
        door.broker.publish("program", "meters/m1", payload.as_bytes(), false).await.unwrap();
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        let Outgoing::Publish(publish) = client.receive().await else { panic!("expected PUBLISH") };
        ids.push(publish.packet_id);
    }
    client.hears_nothing().await;
    drop(client);
    let mut client = door.connect(connect).await;
    let again = messages(&mut client, 3).await;
    assert_eq!(payloads(&again), ["a", "b", "c"]);
    assert_eq!([again[0].packet_id, again[1].packet_id], ids[..]);
    assert_eq!([again[0].dup, again[1].dup, again[2].dup], [true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_reads_on_from_the_log_and_misses_nothing_at_qos_1() {
    let door = Door::start(&["mqtt.max_queued_messages=10"]).await;
    let mut slow = door.connect(Connect { receive_maximum: 1, ..v5("slow") }).await;
    slow.subscribe("meters/#", Qos::AtLeastOnce).await;
    let mut publisher = door.connect(v5("p")).await;
    for id in 1..=500 {
        publisher.publish(id, Qos::AtLeastOnce, &id.to_string()).await;
    }
    for id in 1..=500 {
        assert_eq!(publisher.receive().await, Outgoing::PubAck(ack(id)));
    }
    let expected: Vec<String> = (1..=500).map(|id| id.to_string()).collect();
    assert_eq!(payloads(&messages(&mut slow, 500).await), expected);
    publisher.publish(501, Qos::AtLeastOnce, "live").await;
    assert_eq!(slow.message().await.message.payload, "live");
    slow.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_sent_to_new_subscriptions_and_cleared_by_an_empty_payload() {
    let door = Door::start(&[]).await;
    let mut publisher = door.connect(v5("p")).await;
    for (id, topic, payload) in
        [(1, "meters/a", "1"), (2, "meters/b", "old"), (3, "meters/b", "2"), (4, "meters/c", "3")]
    {
        publisher.send(retained(id, topic, payload)).await;
        assert_eq!(publisher.receive().await, Outgoing::PubAck(ack(id)));
    }
    publisher.send(retained(5, "meters/c", "")).await;
    assert_eq!(publisher.receive().await, Outgoing::PubAck(ack(5)));
    let door = Door::on(door.stop().await, &[]).await;
    let mut client = door.connect(v5("c")).await;
    client.subscribe("meters/+", Qos::AtLeastOnce).await;
    let received = messages(&mut client, 2).await;
    assert_eq!(payloads(&received), ["1", "2"]);
    assert!(received.iter().all(|publish| publish.message.retain));
    client.subscribe_with("meters/+", Qos::AtLeastOnce, 1, false, None).await;
    client.subscribe_with("meters/a", Qos::AtLeastOnce, 2, false, None).await;
    client.hears_nothing().await;
    door.broker.publish("program", "meters/a", b"now", true).await.unwrap();
    assert!(!client.message().await.message.retain, "a live message does not carry the flag");
}

#[tokio::test(flavor = "multi_thread")]
async fn v5_properties_travel_from_publisher_to_subscriber() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(v5("c")).await;
    client.subscribe("meters/#", Qos::AtLeastOnce).await;
    let properties = MessageProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(600),
        content_type: Some(Text::from("application/json")),
        response_topic: Some(Text::from("answers/1")),
        correlation_data: Some(Bytes::from_static(&[0, 1, 2])),
        user_properties: vec![(Text::from("b"), Text::from("1")), (Text::from("a"), Text::from("2"))],
        subscription_identifiers: Vec::new(),
    };
    let message = Message { properties: properties.clone(), ..message(Qos::AtLeastOnce, "meters/m1", "{}") };
    let packet = Incoming::Publish(Publish { dup: false, packet_id: 1, topic_alias: None, message });
    door.connect(v5("p")).await.send(packet).await;
    let received = client.message().await.message.properties;
    assert!(received.message_expiry_interval.is_some_and(|left| (590..=600).contains(&left)));
    assert_eq!(MessageProperties { message_expiry_interval: Some(600), ..received }, properties);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_larger_than_the_client_takes_are_left_out() {
    let door = Door::start(&[]).await;
    let mut client = door.connect(Connect { maximum_packet_size: Some(200), receive_maximum: 1, ..v5("c") }).await;
    client.subscribe("meters/#", Qos::AtLeastOnce).await;
    door.broker.publish("program", "meters/m1", "x".repeat(500).as_bytes(), false).await.unwrap();
    door.broker.publish("program", "meters/m1", b"small", false).await.unwrap();
    assert_eq!(client.message().await.message.payload, "small");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_batch_is_passed_over_and_delivery_goes_on_behind_it() {
    let door = Door::start(&[]).await;
    let mut away = door.connect(kept("away")).await;
    away.subscribe("meters/#", Qos::AtLeastOnce).await;
    away.disconnect().await;
    let file = Path::new("log/mqtt-0/00000000000000000000.log");
    door.broker.publish("program", "meters/m1", b"sound", false).await.unwrap();
    let contents = door.files.inner.contents();
    let end = contents.iter().find(|(path, _)| path == file).unwrap().1.len() as u64;
    door.broker.publish("program", "meters/m1", b"damaged", false).await.unwrap();
    door.files.inner.flip(file, end + 70, 0xFF).unwrap();
    let mut back = door.connect(kept("away")).await;
    assert_eq!(back.message().await.message.payload, "sound");
    eventually(|| door.broker.metrics.mqtt.delivery_gaps.get() > 0).await;
    door.broker.publish("program", "meters/m1", b"after", false).await.unwrap();
    assert_eq!(back.message().await.message.payload, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_at_qos_0_do_not_move_a_cursor_past_those_at_qos_1_that_wait_in_the_log() {
    let door = Door::start(&[]).await;
    let hub = &door.broker.hub;
    let mut receiving = hub.join(Text::from("slow"), 2, None);
    let mut quick = hub.join(Text::from("quick"), 100, None);
    let subscribe = |receiving, filter, qos| {
        let filter = Text::from(filter);
        let subscription = Subscription { filter, qos, no_local: false, retain_as_published: false, identifier: None };
        hub.subscribe(receiving, &subscription).unwrap();
    };
    subscribe(&receiving, "meters/#", Qos::AtLeastOnce);
    subscribe(&receiving, "state/#", Qos::AtMostOnce);
    subscribe(&quick, "meters/#", Qos::AtLeastOnce);
    let mut take = async |topics: &[&str]| {
        for topic in topics {
            let delivery = timeout(PATIENCE, receiving.next()).await.unwrap();
            assert_eq!(delivery.published.message.topic.as_str(), *topic);
        }
        hub.standing(&receiving).0.into_values().collect::<Vec<Offset>>()
    };
    // Two fit into the queue, the others are left to the log.
    for _ in 0..5 {
        door.broker.publish("program", "meters/m1", b"x", false).await.unwrap();
        timeout(PATIENCE, quick.next()).await.unwrap();
    }
    assert_eq!(take(&["meters/m1", "meters/m1"]).await, [Offset(2)]);
    for _ in 0..2 {
        door.broker.publish("program", "state/m1", b"x", false).await.unwrap();
    }
    assert_eq!(take(&["state/m1"]).await, [Offset(2)]);
}

async fn recreate(door: &Door) {
    door.log.delete_topic("mqtt").await.unwrap();
    door.log.create_topic("mqtt", 1, TopicConfig::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_session_gets_all_of_a_topic_that_was_made_anew_while_it_was_away_and_nothing_of_the_deleted_one() {
    let door = Door::start(&[]).await;
    let mut away = door.connect(kept("away")).await;
    away.subscribe("meters/#", Qos::AtLeastOnce).await;
    for _ in 0..3 {
        door.broker.publish("program", "meters/m1", b"old", false).await.unwrap();
        assert_eq!(away.message().await.message.payload, "old");
    }
    away.disconnect().await;
    door.broker.publish("program", "meters/m1", b"deleted", false).await.unwrap();
    recreate(&door).await;
    for at in ["1", "2", "3", "4", "5"] {
        door.broker.publish("program", "meters/m1", at.as_bytes(), false).await.unwrap();
    }
    let mut back = door.connect(kept("away")).await;
    assert_eq!(payloads(&messages(&mut back, 5).await), ["1", "2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_goes_on_with_a_topic_that_was_deleted_and_made_again() {
    let door = Door::start(&["mqtt.max_queued_messages=2"]).await;
    let mut slow = door.connect(Connect { receive_maximum: 1, ..v5("slow") }).await;
    slow.subscribe("meters/#", Qos::AtLeastOnce).await;
    let mut publisher = door.connect(v5("p")).await;
    for id in 1..=20 {
        if id == 11 {
            // The subscriber is behind now.
            recreate(&door).await;
        }
        publisher.publish(id, Qos::AtLeastOnce, &id.to_string()).await;
        assert_eq!(publisher.receive().await, Outgoing::PubAck(ack(id)));
    }
    let mut received = Vec::new();
    while received.last().is_none_or(|last| last != "20") {
        received.extend(payloads(&messages(&mut slow, 1).await));
    }
    let later: Vec<String> = received.into_iter().filter(|at| at.parse::<u16>().unwrap() > 10).collect();
    let expected: Vec<String> = (11..=20).map(|at| at.to_string()).collect();
    assert_eq!(later, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_read_does_not_hold_up_what_a_kept_session_missed_in_others() {
    for (unreadable, first, second) in
        [("log/mqtt-0", "pumps/p1", "meters/m1"), ("log/pumps-0", "meters/m1", "pumps/p1")]
    {
        let door = Door::start(&["routes=[{filter=\"pumps/#\", topic=\"pumps\"}]"]).await;
        let mut away = door.connect(kept("away")).await;
        away.subscribe("#", Qos::AtLeastOnce).await;
        away.disconnect().await;
        for topic in ["meters/m1", "pumps/p1"] {
            door.broker.publish("program", topic, b"missed", false).await.unwrap();
        }
        door.files.make_unreadable(Some(unreadable));
        let mut back = door.connect(kept("away")).await;
        assert_eq!(back.message().await.message.topic.as_str(), first, "{unreadable}");
        back.hears_nothing().await;
        door.files.make_unreadable(None);
        assert_eq!(back.message().await.message.topic.as_str(), second, "{unreadable}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_an_older_layout_count_from_the_present_end_and_not_from_the_start_of_the_log() {
    let door = Door::start(&[]).await;
    let mut away = door.connect(kept("away")).await;
    away.subscribe("meters/#", Qos::AtLeastOnce).await;
    away.disconnect().await;
    eventually(|| door.broker.connected() == 0).await;
    door.broker.publish("program", "meters/m1", b"long ago", false).await.unwrap();
    let older = Bytes::from_static(&[1, 0, 0, 0, 0]);
    door.broker.sessions.put(cursor_key("away"), Some(older)).await.unwrap();
    let door = Door::on(door.stop().await, &[]).await;
    door.broker.publish("program", "meters/m1", b"since the start", false).await.unwrap();
    let mut back = door.connect(kept("away")).await;
    assert!(back.present);
    assert_eq!(back.message().await.message.payload, "since the start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_comes_while_a_retained_message_is_durable_but_not_yet_kept_does_not_miss_it() {
    let door = Door::start(&[]).await;
    door.files.shut_for("log/_mqtt_retained-0");
    let mut publisher = door.connect(v5("p")).await;
    publisher.send(retained(1, "meters/a", "1")).await;
    door.values_become(&["1"]).await;
    let mut client = door.connect(v5("c")).await;
    client.subscribe("meters/+", Qos::AtLeastOnce).await;
    let early = timeout(SILENCE, client.message()).await;
    door.files.open();
    let Ok(message) = early else {
        assert!(client.message().await.message.retain);
        return;
    };
    panic!("delivered before it was kept: {message:?}");
}
