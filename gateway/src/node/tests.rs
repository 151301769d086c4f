//! A node's life: it starts, says what stands in its way, drains, and comes back with what it had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cluster::AppendData;
use forebay_log::record::RecordChunk;
use forebay_log::{Millis, Offset};

use super::{Node, open_data_dir};
use crate::config::{Config, Sources};

fn config(folder: &tempfile::TempDir, more: &[&str]) -> Config {
    let ports = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=127.0.0.1:0"));
    let set = ports.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
    Config::load(&Sources { set, data_dir: Some(folder.path().to_path_buf()), ..Sources::default() }).unwrap()
}

async fn start(config: Config) -> anyhow::Result<Node> {
    let files = open_data_dir(&config)?;
    Node::start(config, files).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_records_and_its_identity_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(&folder, &["node.id=7", "topics.readings.num.partitions=1"])).await.unwrap();
    let line = node.ready_line();
    assert!(line.starts_with("forebay ready node=7 mqtt=127.0.0.1:") && !line.contains(":0 "), "{line}");
    let properties = std::fs::read_to_string(folder.path().join("log/meta.properties")).unwrap();
    assert!(properties.contains("node.id=7\n"), "{properties}");
    let cluster = node.gateway.log.cluster_id();
    let partition = Arc::clone(&node.gateway.log.topic("readings").unwrap().partitions[0]);
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1), Some(b"m1"), Some(b"1"), &[]);
    partition.append(AppendData::Chunk(chunk)).await.unwrap();
    drop(partition);
    let started = Instant::now();
    node.drain().await;
    assert!(started.elapsed() < Duration::from_secs(10));

    let other = format!("{:#}", start(config(&folder, &[])).await.err().unwrap());
    assert!(other.contains("node.id = 7"), "{other}");
    let node = start(config(&folder, &["node.id=7"])).await.unwrap();
    let log = &node.gateway.log;
    assert_eq!(log.cluster_id(), cluster);
    assert_eq!(log.topic("readings").unwrap().partitions[0].watermarks().high_watermark, Offset(1));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_off_is_not_bound() {
    let folder = tempfile::tempdir().unwrap();
    let off = ["listeners.mqtt=off", "listeners.quic=off", "listeners.http=off"];
    let node = start(config(&folder, &off)).await.unwrap();
    let names: Vec<_> = node.gateway.addresses.list().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["kafka"]);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_is_told_that_address_or_directory_is_taken() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = start(config(&one, &[])).await.unwrap();
    let error = format!("{:#}", start(config(&one, &[])).await.err().unwrap());
    assert!(error.contains("node.data_dir") && error.contains("in use"), "{error}");
    let taken = format!("listeners.kafka={}", node.gateway.addresses.kafka.unwrap());
    let error = format!("{:#}", start(config(&two, &[&taken])).await.err().unwrap());
    assert!(error.contains("listeners.kafka") && error.contains("in use"), "{error}");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_served_after_a_reload_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    write("first.example");
    let file = |name: &str, key: &str| format!("tls.{key}={}", folder.path().join(name).display());
    let more = ["listeners.mqtts=127.0.0.1:0".to_owned(), "kafka.security.protocol=SSL".to_owned()];
    let set = [[file("cert.pem", "certfile"), file("key.pem", "keyfile")], more].concat();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let node = start(config(&folder, &set)).await.unwrap();
    let serving = || [&node.tls, &node.kafka_tls].map(|tls| Arc::as_ptr(&tls.as_ref().unwrap().load()));
    let first = serving();
    write("second.example");
    node.reload().await;
    let second = serving();
    assert!(first[0] != second[0] && first[1] != second[1]);
    std::fs::write(folder.path().join("cert.pem"), "broken").unwrap();
    node.reload().await;
    assert_eq!(serving(), second);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_topic_that_was_deleted_is_told_as_missing_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(&folder, &["routes=[{filter=\"meters/+\", topic=\"readings\"}]"])).await.unwrap();
    let (log, gateway) = (node.gateway.log.clone(), node.gateway.clone());
    assert!(gateway.problems().is_empty(), "{:?}", gateway.problems());
    log.delete_topic("readings").await.unwrap();
    assert!(gateway.problems().iter().any(|problem| problem.contains("readings is missing")));
    let deadline = Instant::now() + Duration::from_secs(30);
    while log.topic("readings").is_none() {
        assert!(Instant::now() < deadline, "it is not made again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(gateway.problems().is_empty());
    drop((log, gateway));
    node.drain().await;
}
