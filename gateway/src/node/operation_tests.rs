//! Three nodes in one process, operated as a person would: over the Kafka port and over HTTP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Node;
use super::three_for_tests::Places;
use crate::client::kafka::Client;
use crate::cluster::Controller;

const PATIENCE: Duration = Duration::from_secs(60);

struct Three {
    nodes: Vec<Option<Node>>,
    _places: Places,
}

impl Three {
    async fn start() -> Three {
        let places = Places::new();
        let nodes = places.open_all(|id| vec![format!("node.rack=site-{id}")]).await;
        Three { nodes: nodes.into_values().map(Some).collect(), _places: places }
    }

    fn node(&self, id: usize) -> &Node {
        self.nodes[id - 1].as_ref().unwrap()
    }

    async fn client(&self, id: usize) -> Client {
        Client::connect(&self.node(id).gateway.addresses.kafka.unwrap().to_string()).await.unwrap()
    }

    fn url(&self, id: usize, path: &str) -> String {
        format!("http://{}{path}", self.node(id).gateway.addresses.http.unwrap())
    }

    async fn status(&self, id: usize) -> Value {
        reqwest::get(self.url(id, "/api/v1/cluster")).await.unwrap().json().await.unwrap()
    }

    /// The status code and the answer.
    async fn change(&self, id: usize, what: &str, body: Value) -> (u16, Value) {
        let url = self.url(id, &format!("/api/v1/cluster/{what}"));
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The partition as node `id` shows it, once `is_so`.
    async fn until(&self, id: usize, topic: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(id).await;
            let found = status["partitions"].as_array().unwrap().iter().find(|one| one["topic"] == topic);
            match found.filter(|one| is_so(one)) {
                Some(found) => return found.clone(),
                None => assert!(Instant::now() < deadline, "{topic} at node {id}: {status:#}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(mut self) {
        let draining = self.nodes.iter_mut().filter_map(Option::take).map(Node::drain);
        futures_util::future::join_all(draining).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_and_leaderships_move_and_a_node_is_emptied() {
    let three = Three::start().await;
    three.client(2).await.create_topic("t", Some(1), Some(2), &[]).await.unwrap();
    let made = three.until(1, "t", |one| one["isr"].as_array().unwrap().len() == 2).await;
    let replicas: Vec<i64> = made["replicas"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    let other = (1..=3).find(|id| !replicas.contains(id)).unwrap();

    let status = three.status(3).await;
    let nodes = status["nodes"].as_array().unwrap();
    let racks: Vec<&str> = nodes.iter().map(|node| node["rack"].as_str().unwrap()).collect();
    assert_eq!(racks, ["site-1", "site-2", "site-3"]);
    assert!(nodes.iter().all(|node| node["state"] == "up" && node["voter"] == true), "{status:#}");
    assert_eq!((&status["under_replicated"], &status["offline"]), (&json!([]), &json!([])));

    // To the third node, which leads from then on.
    let target = json!([other, replicas[0]]);
    let wanted = json!({ "partitions": [
        { "topic": "t", "partition": 0, "replicas": target }, { "topic": "none", "partition": 0, "replicas": [1] },
    ] });
    let (code, done) = three.change(1, "reassign", wanted).await;
    assert_eq!((code, &done["partitions"][0]["error"]), (200, &Value::Null), "{done}");
    assert!(done["partitions"][1]["error"].as_str().unwrap().contains("no topic none"), "{done}");
    let misspelt = json!({ "partitions": [{ "topic": "t", "partition": 0, "replica": [1] }] });
    let (code, refused) = three.change(1, "reassign", misspelt).await;
    assert!(code == 400 && refused["error"].as_str().unwrap().contains("`replica`"), "{refused}");
    three.until(2, "t", |one| one["replicas"] == target && one["adding"] == json!([])).await;
    let (code, done) = three.change(2, "elect", json!({ "partitions": [{ "topic": "t", "partition": 0 }] })).await;
    assert_eq!((code, &done["partitions"][0]["error"]), (200, &Value::Null), "{done}");
    three.until(2, "t", |one| one["leader"] == other).await;

    // A node that holds something stays; an empty one that runs does, too.
    let (code, refused) = three.change(1, "remove", json!({ "node": other })).await;
    assert!(code == 409 && refused["error"].as_str().unwrap().contains("replicas"), "{refused}");
    let (code, unknown) = three.change(1, "drain", json!({ "node": 9 })).await;
    assert_eq!(code, 404, "{unknown}");
    let (code, added) = three.change(3, "add", json!({ "node": 4 })).await;
    assert_eq!(code, 200, "{added}");
    let (code, voter) = three.change(3, "add", json!({ "node": 4, "voter": true })).await;
    assert!(code == 409 && voter["error"].as_str().unwrap().contains("does not follow"), "{voter}");
    let awaited = three.status(1).await["nodes"][3].clone();
    assert_eq!((&awaited["id"], &awaited["state"]), (&json!(4), &json!("awaited")));
    let (code, removed) = three.change(1, "remove", json!({ "node": 4 })).await;
    assert_eq!(code, 200, "{removed}");
    assert_eq!(three.status(1).await["nodes"].as_array().unwrap().len(), 3);

    let metrics = reqwest::get(three.url(1, "/metrics")).await.unwrap().text().await.unwrap();
    for name in [
        "forebay_under_replicated_partitions 0",
        "forebay_quorum_voters 3",
        "forebay_link_sent_bytes_total{peer=\"2\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not in the metrics");
    }
    three.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn topics_are_placed_as_clients_ask_and_a_stopped_voter_is_taken_out() {
    let mut three = Three::start().await;
    let mut client = three.client(1).await;
    let error = client.create_topic("four", Some(1), Some(4), &[]).await.unwrap_err().to_string();
    assert!(error.contains("eplication factor 4"), "{error}");
    client.create_topic("t", Some(3), Some(3), &[]).await.unwrap();
    let topic = client.topic("t", false).await.unwrap();
    let leaders: std::collections::BTreeSet<i32> = topic.partitions.iter().map(|part| part.leader).collect();
    assert_eq!(leaders.len(), 3, "each leads one: {topic:?}");

    three.nodes[2].take().unwrap().drain().await;
    let shrunk = three.until(1, "t", |one| one["isr"].as_array().unwrap().len() == 2).await;
    assert_ne!(shrunk["leader"], 3);
    three.until(2, "t", |one| one["isr"].as_array().unwrap().len() == 2).await;
    assert!(three.status(2).await["under_replicated"].as_array().unwrap().contains(&json!("t-0")));
    let deadline = Instant::now() + PATIENCE;
    // Its replicas go to nobody: there is none without one.
    let (code, refused) = three.change(1, "drain", json!({ "node": 3 })).await;
    assert!(code == 409 && refused["error"].as_str().unwrap().contains("cannot be drained"), "{refused}");
    loop {
        let status = three.status(1).await;
        if status["nodes"][2]["state"] == "fenced" {
            break;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Fewer replicas, then it is empty and can go, the quorum's vote with it.
    let all = three.status(1).await["partitions"].as_array().unwrap().clone();
    let moves: Vec<Value> = all
        .iter()
        .filter(|one| one["replicas"].as_array().unwrap().contains(&json!(3)))
        .map(|one| json!({ "topic": one["topic"], "partition": one["partition"], "replicas": [1, 2] }))
        .collect();
    let (code, done) = three.change(1, "reassign", json!({ "partitions": moves })).await;
    assert_eq!(code, 200, "{done}");
    let removed = loop {
        let (code, answer) = three.change(2, "remove", json!({ "node": 3 })).await;
        if code == 200 || Instant::now() > deadline {
            break (code, answer);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(removed.0, 200, "{}", removed.1);
    let status = three.status(1).await;
    assert_eq!(status["quorum"]["voters"], json!([1, 2]), "{status:#}");

    // One of two voters is left: nobody decides any more, and it says so.
    let cluster = three.node(1).gateway.log.cluster();
    let controller = Controller::follow(cluster, Duration::from_millis(50), CancellationToken::new());
    three.nodes[1].take().unwrap().drain().await;
    let deadline = Instant::now() + PATIENCE;
    while controller.silent_for() < Duration::from_secs(3) {
        assert!(Instant::now() < deadline, "it takes itself for a cluster");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let metrics = reqwest::get(three.url(1, "/metrics")).await.unwrap().text().await.unwrap();
    for name in ["forebay_active_controller 0", "forebay_quorum_stopped 0", "forebay_link_failed_handshakes_total"] {
        assert!(metrics.contains(name), "{name} is not in the metrics");
    }
    three.end().await;
}
