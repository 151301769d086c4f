//! Three nodes in one process: MQTT clients may use any of them, and go on at another.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_log::Offset;
use forebay_log::record::{Batches, RecordReader};
use tokio::time::timeout;

use super::{Node, open_data_dir};
use crate::client::mqtt::{Client, ClientError, ConnectOptions, Event, Transport};
use crate::config::{Config, Sources};
use crate::mqtt::packet::{Message, MessageProperties, Qos, Text};

const PATIENCE: Duration = Duration::from_secs(30);

struct Nodes {
    nodes: Vec<Option<Node>>,
    _folders: Vec<tempfile::TempDir>,
}

impl Nodes {
    async fn start() -> Nodes {
        Nodes::start_with(&[]).await
    }

    async fn start_with(more: &[&str]) -> Nodes {
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let peers: Vec<String> = (1..=3).zip(ports).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let starting = (1..=3usize).map(|id| {
            let mut set = vec![
                format!("node.id={id}"),
                format!("cluster.peers={}", peers.join(",")),
                format!("listeners.cluster=127.0.0.1:{}", ports[id - 1]),
                format!("object_store.url=file:{}", folders[3].path().display()),
                "listeners.mqtt=127.0.0.1:0".to_owned(),
                "listeners.quic=off".to_owned(),
                "listeners.kafka=off".to_owned(),
                "listeners.http=off".to_owned(),
                "topic_defaults.num.partitions=3".to_owned(),
            ];
            set.extend(more.iter().map(|setting| (*setting).to_owned()));
            let data_dir = Some(folders[id - 1].path().to_path_buf());
            let config = Config::load(&Sources { set, data_dir, ..Sources::default() }).unwrap();
            tokio::spawn(async move {
                let files = open_data_dir(&config).unwrap();
                Some(Node::start(config, files).await.unwrap())
            })
        });
        let mut nodes = Vec::new();
        for node in starting.collect::<Vec<_>>() {
            nodes.push(timeout(PATIENCE * 2, node).await.expect("the nodes start").unwrap());
        }
        Nodes { nodes, _folders: folders }
    }

    fn at(&self, node: usize) -> Transport {
        let node = self.nodes[node].as_ref().unwrap();
        Transport::Tcp { address: node.gateway.addresses.mqtt.unwrap().to_string() }
    }

    /// Connects; a session may take a moment to be let go elsewhere.
    async fn connect(&self, node: usize, options: &ConnectOptions) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&self.at(node), options).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "node {node}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// It says nothing to anybody.
    async fn kill(&mut self, node: usize) {
        let mut node = self.nodes[node].take().unwrap();
        node.doors.abort_all();
        node.gateway.shutdown.cancel();
        node.services.cancel();
        let log = node.gateway.log.clone();
        log.cluster().unwrap().shutdown(Duration::ZERO).await;
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
    }

    async fn stop(mut self) {
        let stopping = self.nodes.iter_mut().filter_map(Option::take).map(|node| tokio::spawn(node.drain()));
        for node in stopping.collect::<Vec<_>>() {
            let _ = node.await;
        }
    }

    /// How often each payload is in the topic for what no route names, as this node has it.
    fn stored(&self, node: usize) -> BTreeMap<String, usize> {
        let log = &self.nodes[node].as_ref().unwrap().gateway.log;
        let mut stored = BTreeMap::new();
        for partition in &log.topic("mqtt").unwrap().partitions {
            let mut next = Offset(0);
            while next < partition.watermarks().high_watermark {
                for batch in Batches::new(partition.read(next, 1 << 20).unwrap().batches) {
                    let (header, batch) = batch.unwrap();
                    next = header.next_offset();
                    for record in RecordReader::new(&header, &batch).unwrap() {
                        let value = record.unwrap().value.unwrap_or_default();
                        *stored.entry(String::from_utf8_lossy(&value).into_owned()).or_default() += 1;
                    }
                }
            }
        }
        stored
    }
}

pub(super) async fn message(client: &mut Client) -> String {
    loop {
        let event = timeout(PATIENCE, client.next()).await.expect("a message comes").expect("the connection stays");
        if let Event::Message(publish) = event {
            return String::from_utf8_lossy(&publish.message.payload).into_owned();
        }
    }
}

pub(super) async fn publish(client: &mut Client, topic: &str, payload: &str, qos: Qos) -> Result<u8, ClientError> {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    timeout(PATIENCE, client.publish_and_wait(topic, payload, qos)).await.expect("an acknowledgement comes")
}

pub(super) async fn retain(client: &mut Client, topic: &str, payload: &str) {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let properties = MessageProperties::default();
    let message = Message { topic: Text::from(topic), payload, qos: Qos::AtLeastOnce, retain: true, properties };
    client.publish_message(message, 7).await.unwrap();
    loop {
        let event = timeout(PATIENCE, client.next()).await.expect("an acknowledgement comes").unwrap();
        if let Event::Acked { tag: 7, reason } = event {
            return assert_eq!(reason, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_published_on_one_node_reaches_subscribers_and_new_subscribers_on_the_others() {
    let nodes = Nodes::start().await;
    let mut subscribers = Vec::new();
    for node in 0..3 {
        let mut subscriber = nodes.connect(node, &ConnectOptions::new(format!("s{node}"))).await;
        assert_eq!(subscriber.subscribe(&[("meters/+", Qos::AtLeastOnce)]).await.unwrap(), [1]);
        subscribers.push(subscriber);
    }
    for node in 0..3 {
        let mut meter = nodes.connect(node, &ConnectOptions::new(format!("m{node}"))).await;
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let payload = format!("{node}-{qos:?}");
            assert_eq!(publish(&mut meter, &format!("meters/{node}"), &payload, qos).await.unwrap(), 0);
            for subscriber in &mut subscribers {
                assert_eq!(message(subscriber).await, payload);
            }
        }
    }
    let mut meter = nodes.connect(0, &ConnectOptions::new("keeper")).await;
    for round in 0..5 {
        retain(&mut meter, "state/m1", &format!("{round}")).await;
        for node in 0..3 {
            let mut fresh = nodes.connect(node, &ConnectOptions::new(format!("fresh{node}{round}"))).await;
            fresh.subscribe(&[("state/+", Qos::AtLeastOnce)]).await.unwrap();
            assert_eq!(message(&mut fresh).await, format!("{round}"), "node {node}");
        }
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_goes_on_at_another_node_and_has_one_connection() {
    let nodes = Nodes::start().await;
    let persistent = ConnectOptions::new("reader").persistent(3600);
    let mut reader = nodes.connect(0, &persistent).await;
    reader.subscribe(&[("meters/#", Qos::AtLeastOnce)]).await.unwrap();
    let mut meter = nodes.connect(2, &ConnectOptions::new("meter")).await;
    publish(&mut meter, "meters/1", "first", Qos::AtLeastOnce).await.unwrap();
    assert_eq!(message(&mut reader).await, "first");
    reader.disconnect().await.unwrap();
    for payload in ["second", "third"] {
        publish(&mut meter, "meters/1", payload, Qos::AtLeastOnce).await.unwrap();
    }
    let mut reader = nodes.connect(1, &persistent).await;
    assert!(reader.session_present());
    for payload in ["second", "third"] {
        assert_eq!(message(&mut reader).await, payload);
    }

    // The one that was connected is told, and goes; the other has the session.
    let mut taker = nodes.connect(2, &persistent).await;
    assert!(taker.session_present());
    let told = timeout(PATIENCE, async {
        loop {
            match reader.next().await {
                Ok(Event::Disconnected { reason, .. }) => return Some(reason),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    });
    assert_eq!(told.await.expect("the connection ends"), Some(0x8e));
    publish(&mut meter, "meters/1", "fourth", Qos::AtLeastOnce).await.unwrap();
    while message(&mut taker).await != "fourth" {}

    // A clean start ends the session for all nodes.
    let mut clean = nodes.connect(0, &ConnectOptions { clean_start: true, ..persistent.clone() }).await;
    assert!(!clean.session_present());
    clean.subscribe(&[("other", Qos::AtLeastOnce)]).await.unwrap();
    clean.disconnect().await.unwrap();
    let mut again = nodes.connect(1, &persistent).await;
    assert!(again.session_present());
    publish(&mut meter, "meters/1", "unheard", Qos::AtLeastOnce).await.unwrap();
    publish(&mut meter, "other", "heard", Qos::AtLeastOnce).await.unwrap();
    assert_eq!(message(&mut again).await, "heard");
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_once_holds_while_a_meter_changes_nodes_and_a_node_goes() {
    let mut nodes = Nodes::start().await;
    let options = ConnectOptions::new("meter").persistent(3600);
    let mut unacked = Vec::new();
    let (mut sent, mut present) = (0usize, false);
    for round in 0..12usize {
        let at = [0, 1, 2][round % 3];
        if round == 9 {
            nodes.kill(0).await;
        }
        let at = if nodes.nodes[at].is_some() { at } else { 1 };
        let deadline = Instant::now() + PATIENCE;
        let mut client = loop {
            let retry = unacked.clone();
            match Client::resume(&nodes.at(at), &options, retry).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "round {round}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(client.session_present(), present, "round {round}");
        present = true;
        let mut acked = 0;
        for _ in 0..10 {
            let payload = Bytes::from(format!("reading {sent}"));
            client.publish("meters/m", payload, Qos::ExactlyOnce, sent as u64).await.unwrap();
            sent += 1;
        }
        // Cut off somewhere in the middle.
        while acked < round % 7 {
            match timeout(PATIENCE, client.next()).await.expect("acknowledgements come") {
                Ok(Event::Acked { .. }) => acked += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        client.flush().await.ok();
        unacked = client.into_unacked();
    }
    let deadline = Instant::now() + PATIENCE;
    while !unacked.is_empty() {
        assert!(Instant::now() < deadline, "{} are not acknowledged", unacked.len());
        let Ok(mut client) = Client::resume(&nodes.at(2), &options, unacked.clone()).await else { continue };
        while client.unacked() > 0 && matches!(timeout(PATIENCE, client.next()).await, Ok(Ok(_))) {}
        unacked = client.into_unacked();
    }
    let stored = nodes.stored(2);
    let expected: BTreeMap<String, usize> = (0..sent).map(|i| (format!("reading {i}"), 1)).collect();
    assert_eq!(stored, expected);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_ack_waits_for_all_in_sync_replicas_unless_the_leader_is_enough() {
    for (acks, kept) in [("all", false), ("leader", true)] {
        let acks = format!("durability.acks={acks}");
        let mut nodes = Nodes::start_with(&[&acks, "topics.mqtt.min.insync.replicas=3"]).await;
        nodes.kill(2).await;
        let log = nodes.nodes[0].as_ref().unwrap().gateway.log.clone();
        let topic = log.topic("mqtt").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while topic.partitions.iter().any(|partition| partition.placement().isr.len() != 2) {
            assert!(Instant::now() < deadline, "the dead node leaves the in-sync replicas");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Led by this node and by the other.
        let mut meter = nodes.connect(0, &ConnectOptions::new("meter")).await;
        for n in 0..12 {
            let reason = publish(&mut meter, &format!("meters/{n}"), "reading", Qos::AtLeastOnce).await.unwrap();
            assert_eq!(reason < 0x80, kept, "{acks}: {reason:#x}");
        }
        nodes.stop().await;
    }
}
