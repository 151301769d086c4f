//! A cluster of three that gets a fourth node, which has no replica of the cluster's own topics, and then loses its first.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_cluster::{AppendData, Cluster};
use forebay_log::cluster::Request;
use forebay_log::cluster::controller::{ElectionType, Reassign};
use forebay_log::record::RecordChunk;
use forebay_log::{Millis, NodeId, Offset, TopicConfig};

use super::Node;
use super::cluster_mqtt_tests::{message, publish, retain};
use super::three_tests::{Places, kill};
use super::trio_tests::{Trio, eventually};
use crate::alerts::{JOURNAL_TOPIC, STATE_TOPIC};
use crate::client::kafka::{Client as KafkaClient, Membership};
use crate::client::mqtt::{Client, ConnectOptions, Transport};
use crate::cluster;
use crate::lake::MANIFEST_TOPIC;
use crate::mqtt::packet::Qos;

const PATIENCE: Duration = Duration::from_secs(60);

fn cluster_of(node: &Node) -> &Cluster {
    node.gateway.log.cluster().unwrap()
}

fn has_replica(node: &Node, topic: &str) -> bool {
    node.gateway.log.topic(topic).unwrap().partitions.iter().any(|partition| partition.is_here())
}

/// Puts each partition of a topic where `replicas` says, and has the first of them lead it.
async fn place(node: &Node, topic: &str, replicas: &[&[i32]]) {
    let cluster = cluster_of(node);
    let found = node.gateway.log.topic(topic).unwrap();
    let targets: Vec<Vec<NodeId>> = replicas.iter().map(|ids| ids.iter().copied().map(NodeId).collect()).collect();
    let moves =
        (0..).zip(&targets).map(|(index, target)| Reassign { topic: found.id, index, target: Some(target.clone()) });
    cluster.ask(Request::AlterReassignments { partitions: moves.collect() }, PATIENCE).await.unwrap();
    eventually("the replicas and their leaders", async || {
        let (election, all) = (ElectionType::Preferred, (0..).zip(&targets).map(|(index, _)| (found.id, index)));
        let _ = cluster.ask(Request::ElectLeaders { election, partitions: Some(all.collect()) }, PATIENCE).await;
        let there = found.partitions.iter().zip(&targets).all(|(partition, target)| {
            let placement = partition.placement();
            placement.replicas == *target && placement.adding.is_empty() && placement.leader == target.first().copied()
        });
        there.then_some(())
    })
    .await;
}

/// Waits until the node itself knows that it leads all of a topic.
async fn leads_all(node: &Node, topic: &str) {
    eventually("its leaderships", async || {
        node.gateway.log.topic(topic)?.partitions.iter().all(|partition| partition.leads()).then_some(())
    })
    .await;
}

async fn flush(node: &Node) {
    let lake = node.gateway.lake.as_ref().unwrap();
    eventually("the flush", async || {
        let flushed = tokio::time::timeout(PATIENCE, lake.flush("readings")).await;
        flushed.ok()?.inspect_err(|error| eprintln!("not flushed yet: {error:#}")).ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fourth_node_takes_over_offload_and_alerts_starts_again_and_the_first_one_goes() {
    let mut trio = Trio::start().await;
    trio.publish(1, 0..20).await;
    cluster::add(trio.log(1).cluster().unwrap(), 4, false).await.unwrap();
    trio.open(4).await;
    for topic in [MANIFEST_TOPIC, STATE_TOPIC, JOURNAL_TOPIC] {
        assert!(!has_replica(&trio.nodes[&4], topic), "{topic}");
    }
    eventually("transitions", async || {
        (trio.log(1).topic(JOURNAL_TOPIC)?.partitions[0].watermarks().high_watermark > Offset(3)).then_some(())
    })
    .await;

    place(&trio.nodes[&1], "readings", &[&[4, 1, 2], &[4, 2, 3], &[4, 3, 1]]).await;
    leads_all(&trio.nodes[&4], "readings").await;
    trio.publish(4, 20..40).await;
    flush(&trio.nodes[&4]).await;
    trio.lake_has_each_once(4, 40, &[&trio.nodes[&4]]).await;
    trio.alerts_are_recorded_once(4, &[&trio.nodes[&4]]).await;

    // It starts again, with none of what it remembers on its own disk.
    trio.nodes.remove(&4).unwrap().drain().await;
    trio.publish(2, 40..60).await;
    trio.open(4).await;
    assert_eq!(trio.nodes[&4].gateway.lake.as_ref().unwrap().off(), None);
    place(&trio.nodes[&1], "readings", &[&[4, 1, 2], &[4, 2, 3], &[4, 3, 1]]).await;
    leads_all(&trio.nodes[&4], "readings").await;
    trio.publish(3, 60..80).await;
    flush(&trio.nodes[&4]).await;
    trio.lake_has_each_once(4, 80, &[&trio.nodes[&4]]).await;
    trio.alerts_are_recorded_once(4, &[&trio.nodes[&4]]).await;

    // The fourth votes, the first goes.
    cluster::add(trio.log(1).cluster().unwrap(), 4, true).await.unwrap();
    cluster::drain(trio.log(2).cluster().unwrap(), 1, false).await.unwrap();
    eventually("the first is empty", async || {
        let topics = trio.log(4).topics();
        let mut partitions = topics.values().flat_map(|topic| &topic.partitions);
        partitions.all(|partition| !partition.placement().replicas.contains(&NodeId(1))).then_some(())
    })
    .await;
    trio.nodes.remove(&1).unwrap().drain().await;
    eventually("the first is out", async || cluster::remove(trio.log(4).cluster().unwrap(), 1).await.ok()).await;
    let voters: BTreeSet<u64> = trio.log(4).cluster().unwrap().quorum().voters.keys().copied().collect();
    assert_eq!(voters.len(), 3, "{voters:?}");
    trio.publish(2, 80..100).await;
    for node in trio.nodes.values() {
        flush(node).await;
    }
    let rest: Vec<&Node> = trio.nodes.values().collect();
    trio.lake_has_each_once(4, 100, &rest).await;
    trio.alerts_are_recorded_once(4, &rest).await;
    drop(rest);
    trio.drain(0).await;
}

async fn connect(node: &Node, options: &ConnectOptions) -> Client {
    let at = Transport::Tcp { address: node.gateway.addresses.mqtt.unwrap().to_string() };
    eventually("the connection", async || Client::connect(&at, options).await.ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_of_every_door_go_on_at_a_fourth_node_with_no_replica_of_what_they_need() {
    let places = Places::new();
    let mut nodes = places.open_all(|_| vec!["topics.mqtt.num.partitions=3".to_owned()]).await;
    let persistent = ConnectOptions::new("reader").persistent(3600);
    let mut reader = connect(&nodes[&1], &persistent).await;
    reader.subscribe(&[("meters/#", Qos::AtLeastOnce)]).await.unwrap();
    reader.disconnect().await.unwrap();
    let mut meter = connect(&nodes[&1], &ConnectOptions::new("meter")).await;
    retain(&mut meter, "state/m1", "on").await;
    publish(&mut meter, "meters/1", "before", Qos::AtLeastOnce).await.unwrap();

    cluster::add(cluster_of(&nodes[&1]), 4, false).await.unwrap();
    nodes.insert(4, places.open(4, &[]).await);
    let fourth = &nodes[&4];
    for topic in ["_mqtt_sessions", "_mqtt_retained", "mqtt"] {
        assert!(!has_replica(fourth, topic), "{topic}");
    }
    let mut reader = connect(fourth, &persistent).await;
    assert!(reader.session_present());
    assert_eq!(message(&mut reader).await, "before");
    let mut meter = connect(fourth, &ConnectOptions::new("meter 4").persistent(3600)).await;
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let payload = format!("{qos:?}");
        assert_eq!(publish(&mut meter, "meters/4", &payload, qos).await.unwrap(), 0);
        assert_eq!(message(&mut reader).await, payload);
    }
    let mut fresh = connect(fourth, &ConnectOptions::new("fresh")).await;
    fresh.subscribe(&[("state/+", Qos::AtLeastOnce)]).await.unwrap();
    assert_eq!(message(&mut fresh).await, "on");
    // And back.
    reader.disconnect().await.unwrap();
    publish(&mut meter, "meters/4", "parked at 4", Qos::AtLeastOnce).await.unwrap();
    let mut reader = connect(&nodes[&2], &persistent).await;
    assert!(reader.session_present());
    assert_eq!(message(&mut reader).await, "parked at 4");

    let mut kafka = KafkaClient::connect(&fourth.gateway.addresses.kafka.unwrap().to_string()).await.unwrap();
    kafka.create_topic("t", Some(2), Some(3), &[]).await.unwrap();
    let mut member = Membership { group: "g".to_owned(), ..Membership::default() };
    let assigned = eventually("a generation", async || {
        let joined = kafka.join(&mut member, "t").await.ok()?;
        kafka.sync(&member, joined).await.ok()
    })
    .await;
    assert_eq!(assigned, [("t".to_owned(), 0), ("t".to_owned(), 1)]);
    kafka.commit(&member, "t", &[(0, Offset(0)), (1, Offset(0))]).await.unwrap();
    kafka.leave(&member).await.unwrap();
    assert_eq!(kafka.group_offsets("g").await.unwrap().len(), 2);
    assert_eq!(kafka.groups().await.unwrap(), ["g"]);

    // Started again, it has its clients' sessions from the others.
    nodes.remove(&4).unwrap().drain().await;
    nodes.insert(4, places.open(4, &[]).await);
    let meter = connect(&nodes[&4], &ConnectOptions::new("meter 4").persistent(3600)).await;
    assert!(meter.session_present());
    drop((reader, meter, fresh));
    for node in nodes.into_values() {
        node.drain().await;
    }
}

/// What cannot be read at a start is read when it can be: meanwhile the node takes readings.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_starts_while_its_manifest_and_alert_state_have_no_leader_and_goes_on_with_them_later() {
    let mut trio = Trio::start().await;
    for topic in [MANIFEST_TOPIC, STATE_TOPIC] {
        let config = trio.log(1).topic(topic).unwrap().config();
        let config = TopicConfig { min_insync_replicas: 1, ..TopicConfig::clone(&config) };
        trio.log(1).alter_topic(topic, config).await.unwrap();
        place(&trio.nodes[&1], topic, &[&[1]]).await;
    }
    cluster::add(trio.log(1).cluster().unwrap(), 4, false).await.unwrap();
    trio.open(4).await;
    place(&trio.nodes[&1], "readings", &[&[4, 2, 3], &[4, 2, 3], &[4, 2, 3]]).await;
    leads_all(&trio.nodes[&4], "readings").await;
    trio.nodes.remove(&4).unwrap().drain().await;
    kill(trio.nodes.remove(&1).unwrap()).await;
    eventually("no leader", async || (trio.leader(2, MANIFEST_TOPIC, 0) == -1).then_some(())).await;

    trio.open(4).await;
    trio.publish(4, 0..40).await;
    let off = trio.nodes[&4].gateway.lake.as_ref().unwrap().off().expect("its manifest cannot be read").to_owned();
    assert!(off.contains(MANIFEST_TOPIC), "{off}");
    trio.open(1).await;
    eventually("the lake", async || {
        let lake = trio.nodes[&4].gateway.lake.as_ref().unwrap();
        lake.off().is_none().then_some(())
    })
    .await;
    place(&trio.nodes[&1], "readings", &[&[4, 2, 3], &[4, 2, 3], &[4, 2, 3]]).await;
    leads_all(&trio.nodes[&4], "readings").await;
    trio.publish(2, 40..60).await;
    flush(&trio.nodes[&4]).await;
    trio.lake_has_each_once(4, 60, &[&trio.nodes[&4]]).await;
    trio.alerts_are_recorded_once(2, &[&trio.nodes[&4]]).await;
    trio.drain(0).await;
}

const NEW_RULES: &str = "
groups:
- name: later
  source: older
  key: [meter]
  rules:
  - alert: Seen
    expr: v > 250
";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_rules_read_nothing_old_where_who_settles_that_has_no_replica_of_their_source() {
    let mut trio = Trio::start().await;
    let older = trio.log(1).create_topic("older", 1, TopicConfig::default()).await.unwrap();
    let reading = async |meter: &str| {
        let value = format!("{{\"meter\":\"{meter}\",\"v\":300}}");
        eventually("the append", async || {
            let mut chunk = RecordChunk::new();
            chunk.push(Millis(1_600_000_000_000), None, Some(value.as_bytes()), &[]);
            older.partitions[0].append(AppendData::Chunk(chunk)).await.ok()
        })
        .await;
    };
    reading("before").await;
    cluster::add(trio.log(1).cluster().unwrap(), 4, false).await.unwrap();
    trio.open(4).await;
    place(&trio.nodes[&1], JOURNAL_TOPIC, &[&[4, 1]]).await;
    leads_all(&trio.nodes[&4], JOURNAL_TOPIC).await;
    assert!(!has_replica(&trio.nodes[&4], "older"));
    std::fs::write(trio.folder.path().join("rules.yaml"), NEW_RULES).unwrap();
    trio.nodes[&2].gateway.alerts.reload(true).await.unwrap();
    let seen = eventually("an alert", async || {
        reading("after").await;
        let found = trio.read(4, JOURNAL_TOPIC, 0).await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    for record in seen {
        let transition: serde_json::Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        assert_eq!(transition["labels"]["meter"], "after", "{transition}");
    }
    drop(older);
    trio.drain(0).await;
}
