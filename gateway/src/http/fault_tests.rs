//! The HTTP door towards clients that send slowly, over a log that takes nothing, and what it shows of receivers that are down.

use std::time::Duration;

use axum::routing::get as on_get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tests::{node, request};

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_appended_now_may_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(&folder, &["topics.readings.num.partitions=1"]).await;
    let log = node.gateway.log.clone();
    tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
    let refused = request(&node, "POST", "/api/v1/topics/readings/records", "", "{\"value\":1}").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    node.drain().await;
}

#[tokio::test]
async fn a_client_that_sends_its_head_byte_by_byte_does_not_hold_a_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = async || tokio::time::sleep(Duration::from_millis(1500)).await;
    let routes = axum::Router::new().route("/healthz", on_get(async || "alive")).route("/slow", on_get(slow));
    let (front, end) = (super::Front::new(), tokio_util::sync::CancellationToken::new());
    let timeouts = super::Timeouts { head: Duration::from_secs(1), ..super::TIMEOUTS };
    let serving = tokio::spawn(super::serve_routes(routes, front, listener, 9, timeouts, end.clone()));

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 1024];
    let read = client.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "time for its head does not count the work");
    // The next request on the same connection, a byte at a time.
    let dripping = async {
        client.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await?;
        loop {
            client.write_all(b"x").await?;
            let answer = tokio::time::timeout(Duration::from_millis(100), client.read(&mut buffer)).await;
            if let Ok(ended) = answer {
                return ended;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(8), dripping).await.expect("it is closed");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    end.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_a_receiver_that_cannot_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rules = folder.path().join("rules.yaml");
    let text = format!(
        "groups:\n- name: voltage\n  source: readings\n  key: [meter]\n  rules:\n  - alert: Over\n    expr: v > 250\n\
         receivers:\n- webhook: {{url: \"http://{free}/secret\"}}\n"
    );
    std::fs::write(&rules, text).unwrap();
    let set = format!("alerts.rules=[\"{}\"]", rules.display());
    let node = node(&folder, &["topics.readings.num.partitions=1", &set]).await;
    let reading = "{\"value\":{\"meter\":\"m1\",\"v\":260}}";
    assert_eq!(request(&node, "POST", "/api/v1/topics/readings/records", "", reading).await.status, 200);
    let problem = format!("1 alert records wait for webhook:{free}: Connection refused");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let status = request(&node, "GET", "/api/v1/status", "", "").await;
        assert!(!status.body.contains("/secret"), "{}", status.body);
        if status.body.contains(&problem) {
            assert_eq!(status.json()["receivers"][0]["backlog"], 1);
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", status.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.drain().await;
}

#[tokio::test]
async fn a_long_answer_is_finished_though_the_next_request_has_begun_to_come() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let long = async || {
        let pieces = futures_util::stream::unfold(0, async |number: u32| {
            tokio::time::sleep(Duration::from_millis(250)).await;
            (number < 8).then_some((Ok::<_, std::io::Error>("piece"), number + 1))
        });
        axum::body::Body::from_stream(pieces)
    };
    let routes = axum::Router::new().route("/long", on_get(long));
    let (front, end) = (super::Front::new(), tokio_util::sync::CancellationToken::new());
    let timeouts = super::Timeouts { head: Duration::from_secs(1), ..super::TIMEOUTS };
    let serving = tokio::spawn(super::serve_routes(routes, front, listener, 9, timeouts, end.clone()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write_all(b"GET /long HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), async {
        while answer.windows(5).filter(|piece| piece == b"piece").count() < 8 {
            if client.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    });
    assert!(read.await.expect("in time"), "cut: {}", String::from_utf8_lossy(&answer));
    end.cancel();
    drop(client);
    serving.await.unwrap();
}
