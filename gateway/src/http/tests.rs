//! The HTTP door as its users see it, on a node with every listener at a free port.

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::{get as on_get, post as on_post};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{Config, Sources};
use crate::node::{Node, open_data_dir};

pub(super) async fn node(folder: &tempfile::TempDir, more: &[&str]) -> Node {
    let off = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=127.0.0.1:0"));
    let set = off.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
    let config = Config::load(&Sources { set, data_dir: Some(folder.path().to_path_buf()), ..Sources::default() });
    let config = config.unwrap();
    let files = open_data_dir(&config).unwrap();
    Node::start(config, files).await.unwrap()
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(super) async fn request(node: &Node, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    request_at(node.gateway.addresses.http.unwrap(), method, path, headers, body).await
}

async fn request_at(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn get(node: &Node, path: &str) -> Answer {
    request(node, "GET", path, "", "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_and_errors_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &[]).await;
    for path in [
        "/",
        "/console.css",
        "/console.js",
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/topics",
        "/api/v1/topics/mqtt",
        "/api/v1/topics/mqtt/records",
        "/api/v1/clients",
        "/api/v1/alerts",
        "/api/v1/rules",
        "/api/v1/lake",
        "/api/v1/openapi.json",
    ] {
        let answer = get(&node, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    for (path, status) in [
        ("/nothing", 404),
        ("/api/v1/topics/nothing", 404),
        ("/api/v1/topics/mqtt/records?partition=99", 404),
        ("/api/v1/topics/mqtt/records?partition=x", 400),
        ("/api/v1/topics/mqtt/records?offset=5", 416),
        ("/api/v1/topics/mqtt/records?offset=0&timestamp=0", 400),
        ("/api/v1/topics/mqtt/records?timestamp=noon", 400),
        ("/api/v1/rules/reload", 405),
    ] {
        let answer = get(&node, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.json()["error"].is_string());
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_records_are_read_back_by_offset_and_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=2"]).await;
    let lines = "{\"key\":\"m1\",\"value\":{\"v\":1},\"timestamp\":1000,\"headers\":{\"h\":\"x\"}}\n\
                 {\"key\":\"m1\",\"value\":\"plain\",\"timestamp\":2000}\n\n\
                 {\"key\":\"m2\",\"value_base64\":\"AP8=\",\"partition\":1}\n";
    let answer = request(&node, "POST", "/api/v1/topics/readings/records", "", lines).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let places = answer.json()["records"].clone();
    let partition = places[0]["partition"].as_u64().unwrap();
    assert_eq!((&places[0]["offset"], &places[1]["partition"]), (&json!(0), &json!(partition)));

    let page = get(&node, &format!("/api/v1/topics/readings/records?partition={partition}&offset=1")).await.json();
    assert_eq!(page["records"][0]["value"], "plain");
    for time in ["1500", "1970-01-01T00:00:01.5Z", "1970-01-01T01:00:01.5+01:00"] {
        let by_time = format!("/api/v1/topics/readings/records?partition={partition}&timestamp={time}&limit=1");
        let page = get(&node, &by_time).await.json();
        assert_eq!((&page["records"][0]["offset"], &page["records"][0]["key"]), (&json!(1), &json!("m1")), "{time}");
    }
    let page = get(&node, &format!("/api/v1/topics/readings/records?partition={partition}&limit=1")).await.json();
    assert_eq!(page["records"][0]["value"], "{\"v\":1}");
    assert_eq!(page["records"][0]["headers"], json!([{"name": "h", "value": "x"}]));
    assert_eq!(page["next_offset"], 1);
    let other = get(&node, "/api/v1/topics/readings/records?partition=1").await.json();
    assert!(other["records"].as_array().unwrap().iter().any(|record| record["value_base64"] == "AP8="), "{other}");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_post_is_split_into_batches_and_keeps_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=1"]).await;
    let records: Vec<Value> =
        (0..3000).map(|n| json!({ "key": "m1", "value": { "n": n, "pad": "x".repeat(1000) } })).collect();
    let body = Value::Array(records).to_string();
    let answer = request(&node, "POST", "/api/v1/topics/readings/records", "", &body).await;
    assert_eq!(answer.status, 200, "{}", &answer.body[..200]);
    let places = answer.json()["records"].clone();
    for (number, place) in places.as_array().unwrap().iter().enumerate() {
        assert_eq!(place["offset"], number);
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_to_a_topic_of_small_batches_is_refused_only_what_does_not_fit_alone() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["num.partitions=1", "max.message.bytes=2000", "compression.type=none"];
    let node = node(&folder, &small.map(|set| format!("topics.readings.{set}")).each_ref().map(String::as_str)).await;
    let records: Vec<Value> = (0..100)
        .map(|n| json!({ "value": "x".repeat(if n == 50 { 2500 } else { 100 }), "timestamp": n * 1_000_000 }))
        .collect();
    let answer =
        request(&node, "POST", "/api/v1/topics/readings/records", "", &Value::Array(records).to_string()).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
    let mut stored = 0;
    for (number, place) in answer.json()["records"].as_array().unwrap().iter().enumerate() {
        assert_eq!(place["error"].is_string(), number == 50, "{number}: {place}");
        if number != 50 {
            assert_eq!(place["offset"], stored, "{number}");
            stored += 1;
        }
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_foreign_posts_are_refused_and_append_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=1"]).await;
    let good = "{\"value\":1}";
    let bad = "{\"value\":1}\n{\"value\":1,\"timestamp\":true}\n";
    for (path, headers, body, status) in [
        ("/api/v1/topics/readings/records", "", bad, 400),
        ("/api/v1/topics/readings/records", "Origin: http://evil.example\r\n", good, 403),
        ("/api/v1/topics/nothing/records", "", good, 404),
        ("/api/v1/rules/reload", "Origin: null\r\n", "", 403),
    ] {
        let answer = request(&node, "POST", path, headers, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.json()["error"].is_string());
    }
    // Refused by its length alone, before the body is sent.
    let mut stream = TcpStream::connect(node.gateway.addresses.http.unwrap()).await.unwrap();
    let head = "POST /api/v1/topics/readings/records HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(get(&node, "/api/v1/topics/readings").await.json()["partitions"][0]["log_end"], 0);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_the_format_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=1"]).await;
    request(&node, "POST", "/api/v1/topics/readings/records", "", "{\"value\":1}").await;
    let plain = get(&node, "/metrics").await;
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    for line in [
        "forebay_log_appended_records_total{topic=\"readings\"} 1",
        "forebay_partition_high_watermark{topic=\"readings\",partition=\"0\"} 1",
        "forebay_log_disk_full 0",
        "# TYPE forebay_process_cpu_seconds_total counter",
        "forebay_http_requests_total{route=\"/api/v1/topics/{topic}/records\",code=\"200\"} 1",
    ] {
        assert!(plain.body.contains(line), "no {line} in\n{}", plain.body);
    }
    let open = request(&node, "GET", "/metrics", "Accept: application/openmetrics-text\r\n", "").await;
    assert!(open.head.contains("application/openmetrics-text") && open.body.ends_with("# EOF\n"));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_is_not_ready_and_takes_no_records() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &[]).await;
    assert_eq!(get(&node, "/readyz").await.status, 200);
    node.gateway.shutdown.cancel();
    let ready = get(&node, "/readyz").await;
    assert_eq!((ready.status, &ready.json()["reasons"]), (503, &json!(["draining"])));
    assert_eq!(request(&node, "POST", "/api/v1/topics/mqtt/records", "", "{\"value\":1}").await.status, 503);
    assert_eq!(get(&node, "/healthz").await.status, 200);
    tokio::time::timeout(Duration::from_secs(10), node.drain()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_loads_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &[]).await;
    let page = get(&node, "/").await;
    assert!(page.body.contains("<html") && page.head.contains("default-src 'none'"));
    assert!(!page.body.contains("src=\"http") && !page.body.contains("href=\"http"));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_node_is_assembled_it_is_alive_but_not_ready() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(super::serve(super::Front::new(), listener, super::MAX_CONNECTIONS, end.clone()));
    for (path, status, reason) in [
        ("/healthz", 200, "ok"),
        ("/readyz", 503, "the node is starting"),
        ("/api/v1/status", 503, "the node is starting"),
        ("/metrics", 503, "the node is starting"),
    ] {
        let answer = request_at(address, "GET", path, "", "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(reason), "{path}: {}", answer.body);
    }
    end.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn verify_and_flush_take_as_long_as_they_need_and_other_requests_time_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        "done"
    };
    let routes = axum::Router::new()
        .route("/api/v1/lake/verify", on_get(slow))
        .route("/api/v1/lake/flush", on_post(slow))
        .route("/api/v1/status", on_get(slow));
    let end = tokio_util::sync::CancellationToken::new();
    let front = super::Front::new();
    let short = Duration::from_millis(300);
    let timeouts = super::Timeouts { idle: short, head: 10 * short, request: short };
    let serving = tokio::spawn(super::serve_routes(routes, front, listener, 9, timeouts, end.clone()));
    for (method, path, status) in
        [("GET", "/api/v1/lake/verify", 200), ("POST", "/api/v1/lake/flush", 200), ("GET", "/api/v1/status", 504)]
    {
        let answer = request_at(address, method, path, "", "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    end.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn work_for_a_client_that_has_gone_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Dropped with the request's work.
    let (working, mut workers) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(1);
    let endless = move || async move {
        let (work, ended) = tokio::sync::oneshot::channel();
        working.send(work).await.unwrap();
        let _ = ended.await;
        std::future::pending::<()>().await;
    };
    let routes = axum::Router::new().route("/api/v1/lake/verify", on_get(endless));
    let (front, end) = (super::Front::new(), tokio_util::sync::CancellationToken::new());
    let serving = tokio::spawn(super::serve_routes(routes, front, listener, 9, super::TIMEOUTS, end.clone()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /api/v1/lake/verify HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut work = workers.recv().await.unwrap();
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), work.closed()).await.expect("the work ends");
    end.cancel();
    serving.await.unwrap();
}

/// The HTTP door of a node once more, at a port of its own and with what its requests share in hand.
async fn second_door(node: &Node) -> (SocketAddr, std::sync::Arc<super::Front>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = super::Front::new();
    front.open(node.gateway.clone());
    let end = node.gateway.shutdown.clone();
    tokio::spawn(super::serve(front.clone(), listener, super::MAX_CONNECTIONS, end));
    (address, front)
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_memory_for_all_are_refused_for_now_and_give_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=1"]).await;
    let (address, front) = second_door(&node).await;
    let bodies = &front.budget.bodies;
    let all = bodies.available_permits();
    let others = bodies.clone().acquire_many_owned(u32::try_from(all).unwrap() - 1000).await.unwrap();
    let path = "/api/v1/topics/readings/records";
    let body = |bytes: usize| format!("{{\"value\":\"{}\"}}", "x".repeat(bytes));
    let refused = request_at(address, "POST", path, "", &body(2000)).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert_eq!(request_at(address, "POST", path, "", &body(500)).await.status, 200);
    drop(others);
    assert_eq!(request_at(address, "POST", path, "", &body(2000)).await.status, 200);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while bodies.available_permits() < all {
        assert!(std::time::Instant::now() < deadline, "memory is not given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_records_wait_for_the_memory_of_others_and_hold_their_answers_share_only() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=1"]).await;
    let (address, front) = second_door(&node).await;
    let path = "/api/v1/topics/readings/records";
    // More than the buffers of a socket that nobody reads from take.
    for _ in 0..8 {
        let body = format!("{{\"value\":\"{}\"}}", "x".repeat(900_000));
        assert_eq!(request_at(address, "POST", path, "", &body).await.status, 200);
    }
    let reads = &front.budget.reads;
    let all = reads.available_permits();
    let others = reads.clone().acquire_many_owned(u32::try_from(all).unwrap() - 1000).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    let early = tokio::time::timeout(Duration::from_millis(300), slow.read_exact(&mut first)).await;
    assert!(early.is_err(), "it is answered although the memory is taken");
    drop(others);
    slow.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let held = all - reads.available_permits();
    assert!((3 << 20..8 << 20).contains(&held), "{held}");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while reads.available_permits() < all {
        assert!(std::time::Instant::now() < deadline, "memory is not given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.drain().await;
}
