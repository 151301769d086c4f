//! A node as its operator sees it: ready line, health, metrics, draining, one owner for a data directory.

use std::time::{Duration, Instant};

use anyhow::Result;
use forebay_tests::mqtt::{Client, Options};
use forebay_tests::process::{Node, eventually, forebay};
use forebay_tests::{http, kafka};

#[test]
fn needs_no_config_and_says_when_it_is_ready() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    for listener in ["mqtt", "quic", "kafka", "http"] {
        assert!(node.address(listener).ip().is_loopback());
    }
    assert_eq!(http::get(node.address("http"), "/healthz")?.status, 200);
    assert_eq!(http::get(node.address("http"), "/readyz")?.status, 200);
    let status = http::get_json(node.address("http"), "/api/v1/status")?;
    assert!(status.is_object(), "{status}");
    let page = http::get(node.address("http"), "/")?;
    assert!(page.status == 200 && page.body.contains("<html") && !page.body.contains("src=\"http"));
    Ok(())
}

#[test]
fn drains_on_sigterm_and_keeps_what_it_acked() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::start(dir.path(), &[])?;
    let (mut meter, _) = Client::connect(node.address("mqtt"), Options::v4("m1"))?;
    for id in 1..=50 {
        assert_eq!(meter.publish("meters/m1/readings", 1, id, b"{\"v\":1}")?, 0);
    }
    let started = Instant::now();
    let status = node.terminate()?;
    assert!(status.success(), "{status}: {}", node.log());
    assert!(started.elapsed() < Duration::from_secs(10), "drained in {:?}", started.elapsed());
    node.restart()?;
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    let mut records = 0;
    for partition in 0..client.topics()?["mqtt"] {
        records += client.read_all("mqtt", partition as i32)?.len();
    }
    assert_eq!(records, 50);
    Ok(())
}

#[test]
fn a_data_directory_has_one_owner() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let mut second = forebay()?;
    second.args(["serve", "--data-dir"]).arg(node.data_dir());
    for listener in ["mqtt", "quic", "kafka", "http"] {
        second.args(["--set", &format!("listeners.{listener}=127.0.0.1:0")]);
    }
    let output = second.output()?;
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("in use"), "{error}");
    Ok(())
}

#[test]
fn metrics_follow_prometheus_naming() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &[])?;
    let (mut meter, _) = Client::connect(node.address("mqtt"), Options::v4("m1"))?;
    meter.publish("meters/m1/readings", 1, 1, b"{\"v\":1}")?;
    let answer = http::get(node.address("http"), "/metrics")?;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("# EOF") || answer.head.contains("text/plain"), "{}", answer.head);
    for line in answer.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("forebay_") || line.starts_with("process_"), "{line}");
    }
    for line in answer.body.lines().filter(|line| line.starts_with("# TYPE")) {
        assert!(!line.ends_with("_total counter") || line.contains("forebay_"), "{line}");
        assert!(!line.contains("_total_total"), "{line}");
    }
    assert!(answer.body.contains("forebay_mqtt_"), "no MQTT metrics");
    Ok(())
}

#[test]
fn readings_can_be_posted_and_read_over_http() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::start(dir.path(), &["--set", "topics.readings.num.partitions=1"])?;
    let body = r#"[{"key":"m1","value":{"voltage":230.1}},{"key":"m1","value":{"voltage":230.2}}]"#;
    let answer = http::request(node.address("http"), "POST", "/api/v1/topics/readings/records", body)?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let path = "/api/v1/topics/readings/records?partition=0&offset=0&limit=10";
    let records = eventually(Duration::from_secs(5), || http::get_json(node.address("http"), path))?;
    assert!(records.to_string().contains("230.2"), "{records}");
    assert_eq!(http::get(node.address("http"), "/api/v1/topics/nothing")?.status, 404);
    let bad = http::request(node.address("http"), "POST", "/api/v1/topics/readings/records", "{nonsense")?;
    assert_eq!(bad.status, 400, "{}", bad.body);
    Ok(())
}
