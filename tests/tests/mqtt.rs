//! The MQTT door as a client sees it, byte for byte: acks, sessions, wills, takeover, refusals.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use forebay_tests::kafka;
use forebay_tests::mqtt::{Client, Options, packet};
use forebay_tests::process::Node;

fn values(kafka: SocketAddr, topic: &str) -> Result<Vec<String>> {
    let mut client = kafka::Client::connect(kafka)?;
    let mut values = Vec::new();
    for partition in 0..client.topics()?[topic] {
        for record in client.read_all(topic, partition as i32)? {
            values.push(String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned());
        }
    }
    Ok(values)
}

#[test]
fn every_qos_in_both_versions_reaches_the_log_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let mut expected = Vec::new();
    for v5 in [false, true] {
        let id = format!("m-{v5}");
        let options = if v5 { Options::v5(&id) } else { Options::v4(&id) };
        let (mut client, _) = Client::connect(node.address("mqtt"), options)?;
        for qos in 0..=2u8 {
            let payload = format!("{v5}-{qos}");
            assert_eq!(client.publish("plant/a", qos, 10 + u16::from(qos), payload.as_bytes())?, 0);
            expected.push(payload);
        }
        client.ping()?;
    }
    let mut found = values(node.address("kafka"), "mqtt")?;
    found.sort();
    assert_eq!(found, expected);
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    for partition in 0..client.topics()?["mqtt"] {
        for record in client.read_all("mqtt", partition as i32)? {
            assert_eq!(record.key.as_deref(), Some(&b"plant/a"[..]), "unrouted messages are keyed by their topic");
            let header = |name: &str| {
                record.headers.iter().find(|(key, _)| &***key == name).and_then(|(_, value)| value.clone())
            };
            assert_eq!(header("mqtt.topic").as_deref(), Some(&b"plant/a"[..]));
            assert!(header("mqtt.client").is_some_and(|client| client.starts_with(b"m-")));
            assert!(header("mqtt.qos").is_some_and(|qos| matches!(&qos[..], b"0" | b"1" | b"2")));
        }
    }
    Ok(())
}

#[test]
fn qos_2_is_exactly_once_across_reconnect_and_kill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::start(dir.path(), &[])?;
    let options = Options::v4("twice").persistent();
    let (mut client, _) = Client::connect(node.address("mqtt"), options)?;
    let publish = client.publish_bytes("plant/b", 2, 7, false, false, b"once");
    client.send(&publish)?;
    let received = client.receive()?;
    assert_eq!((received.kind(), received.id()), (5, 7), "PUBREC");
    drop(client);
    // The device never saw the PUBREC and sends again: after a reconnect, and after a kill -9.
    let (mut client, present) = Client::connect(node.address("mqtt"), options)?;
    assert!(present);
    let again = client.publish_bytes("plant/b", 2, 7, true, false, b"once");
    client.send(&again)?;
    assert_eq!(client.receive()?.kind(), 5);
    drop(client);
    node.kill()?;
    node.restart()?;
    let (mut client, present) = Client::connect(node.address("mqtt"), options)?;
    assert!(present, "the session survives kill -9");
    client.send(&again)?;
    assert_eq!(client.receive()?.kind(), 5);
    client.ack(0x62, 7)?;
    let complete = client.receive()?;
    assert_eq!((complete.kind(), complete.id()), (7, 7), "PUBCOMP");
    assert_eq!(values(node.address("kafka"), "mqtt")?, ["once"]);
    // The packet id is free again.
    assert_eq!(client.publish("plant/b", 2, 7, b"next")?, 0);
    assert_eq!(values(node.address("kafka"), "mqtt")?.len(), 2);
    Ok(())
}

#[test]
fn subscribers_get_what_matches_at_their_qos() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (mut subscriber, _) = Client::connect(node.address("mqtt"), Options::v4("sub"))?;
    assert_eq!(subscriber.subscribe("plant/+/temp", 1)?, 1);
    assert_eq!(subscriber.subscribe("plant/#", 0)?, 0);
    assert_eq!(subscriber.subscribe("exact/two", 2)?, 1, "QoS 2 is granted as 1");
    let (mut publisher, _) = Client::connect(node.address("mqtt"), Options::v5("pub"))?;
    publisher.publish("other/x", 1, 1, b"no")?;
    publisher.publish("exact/two", 1, 2, b"yes")?;
    let got = subscriber.receive()?;
    let (topic, id, payload) = got.publish(false);
    assert_eq!((topic.as_str(), payload.as_slice()), ("exact/two", &b"yes"[..]));
    assert!(id != 0 && got.first & 6 == 2, "{got:?}");
    subscriber.ack(0x40, id)?;
    Ok(())
}

#[test]
fn a_persistent_session_gets_what_it_missed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::start(dir.path(), &[])?;
    let options = Options::v4("away").persistent();
    let (mut subscriber, _) = Client::connect(node.address("mqtt"), options)?;
    subscriber.subscribe("plant/#", 1)?;
    subscriber.disconnect()?;
    let (mut publisher, _) = Client::connect(node.address("mqtt"), Options::v4("pub"))?;
    for id in 1..=20u16 {
        publisher.publish("plant/c", 1, id, format!("{id}").as_bytes())?;
    }
    node.kill()?;
    node.restart()?;
    let (mut subscriber, present) = Client::connect(node.address("mqtt"), options)?;
    assert!(present);
    for expected in 1..=20u16 {
        let got = subscriber.receive()?;
        let (_, id, payload) = got.publish(false);
        assert_eq!(String::from_utf8_lossy(&payload), expected.to_string());
        subscriber.ack(0x40, id)?;
    }
    Ok(())
}

#[test]
fn retained_messages_survive_a_kill_and_can_be_cleared() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::start(dir.path(), &[])?;
    let (mut publisher, _) = Client::connect(node.address("mqtt"), Options::v4("pub"))?;
    let retained = publisher.publish_bytes("state/pump", 1, 1, false, true, b"on");
    publisher.send(&retained)?;
    assert_eq!(publisher.receive()?.kind(), 4);
    node.kill()?;
    node.restart()?;
    let (mut subscriber, _) = Client::connect(node.address("mqtt"), Options::v4("late"))?;
    subscriber.subscribe("state/#", 0)?;
    let got = subscriber.receive()?;
    assert_eq!(got.first & 1, 1, "the retain flag is set");
    assert_eq!(got.publish(false).2, b"on");
    let (mut publisher, _) = Client::connect(node.address("mqtt"), Options::v4("pub"))?;
    let clear = publisher.publish_bytes("state/pump", 1, 2, false, true, b"");
    publisher.send(&clear)?;
    assert_eq!(publisher.receive()?.kind(), 4);
    let (mut subscriber, _) = Client::connect(node.address("mqtt"), Options::v4("later"))?;
    subscriber.subscribe("state/#", 0)?;
    assert_eq!(subscriber.receive_within(Duration::from_millis(300))?, None);
    Ok(())
}

#[test]
fn a_will_is_published_when_the_connection_is_lost_only() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (mut watcher, _) = Client::connect(node.address("mqtt"), Options::v4("watcher"))?;
    watcher.subscribe("wills/#", 0)?;
    let with_will = |id| Options { will: Some(("wills/x", "gone")), ..Options::v4(id) };
    let (polite, _) = Client::connect(node.address("mqtt"), with_will("polite"))?;
    polite.disconnect()?;
    assert_eq!(watcher.receive_within(Duration::from_millis(300))?, None);
    let (rude, _) = Client::connect(node.address("mqtt"), with_will("rude"))?;
    drop(rude);
    assert_eq!(watcher.receive()?.publish(false).2, b"gone");
    Ok(())
}

#[test]
fn the_newer_connection_of_a_client_id_wins() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (mut old, _) = Client::connect(node.address("mqtt"), Options::v5("same"))?;
    let (mut new, _) = Client::connect(node.address("mqtt"), Options::v5("same"))?;
    let goodbye = old.receive()?;
    assert_eq!((goodbye.kind(), goodbye.body[0]), (14, 0x8e), "DISCONNECT, session taken over");
    new.ping()
}

#[test]
fn a_silent_client_is_dropped_after_its_keep_alive() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let options = Options { keep_alive: 1, ..Options::v5("silent") };
    let (mut client, _) = Client::connect(node.address("mqtt"), options)?;
    let goodbye = client.receive()?;
    assert_eq!((goodbye.kind(), goodbye.body[0]), (14, 0x8d), "DISCONNECT, keep alive timeout");
    Ok(())
}

#[test]
fn malformed_bytes_cost_that_connection_only() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &["--set", "mqtt.max_packet_size=64KiB"])?;
    let (mut bystander, _) = Client::connect(node.address("mqtt"), Options::v4("bystander"))?;
    let bad: Vec<(&str, Vec<u8>, u8)> = vec![
        ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1], 0x81),
        ("an empty topic", vec![0x30, 3, 0, 0, 0], 0x82),
        ("a wildcard in a topic", vec![0x30, 5, 0, 1, b'#', 0, b'x'], 0x90),
        ("packet id 0", vec![0x32, 6, 0, 1, b'a', 0, 0, 0], 0x82),
        ("invalid UTF-8", vec![0x30, 5, 0, 1, 0xff, 0, b'x'], 0x81),
        ("reserved flags", vec![0x80, 2, 0, 1], 0x81),
        ("a second CONNECT", packet(0x10, &[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'z']), 0x82),
        ("a packet over the limit", [&[0x30, 0x81, 0x80, 0x08][..], &[0; 64]].concat(), 0x95),
    ];
    for (what, bytes, reason) in bad {
        let (mut client, _) = Client::connect(node.address("mqtt"), Options::v5("bad"))?;
        client.send(&bytes)?;
        let goodbye = client.receive().map_err(|error| error.context(what))?;
        assert_eq!(goodbye.kind(), 14, "{what}: {goodbye:?}");
        let close = [reason, if reason == 0x90 { 0x82 } else { reason }, if reason == 0x82 { 0x81 } else { reason }];
        assert!(close.contains(&goodbye.body[0]), "{what}: {:#04x}", goodbye.body[0]);
    }
    bystander.ping()?;
    assert_eq!(bystander.publish("fine", 1, 1, b"still here")?, 0);
    Ok(())
}
