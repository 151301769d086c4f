//! Three nodes in one process evaluate the same alert rules, whose files they may be.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_cluster::AppendData;
use forebay_log::cluster::Request;
use forebay_log::record::RecordChunk;
use forebay_log::{Millis, NodeId, TopicConfig};
use serde_json::Value;

use super::Node;
use super::three_tests::{self, Places};
use super::trio_tests::eventually;
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes, each with a folder of its own for rules.
struct World {
    places: Places,
    folders: Vec<tempfile::TempDir>,
    nodes: BTreeMap<i32, Node>,
}

/// A rule file with one alert over a threshold that a table may raise.
fn rules(alert: &str, threshold: u32) -> String {
    format!(
        "groups:\n- name: g\n  source: readings\n  key: [meter]\n  tables: {{limits: {{file: limits.csv, key: meter}}}}\n  \
         rules: [{{alert: {alert}, expr: \"v > lookup(limits, meter, max, {threshold})\"}}]\n"
    )
}

impl World {
    async fn start() -> World {
        let folders = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut world = World { places: Places::new(), folders, nodes: BTreeMap::new() };
        (1..=3).for_each(|id| world.write(id, &rules("Over", 250), "meter,max\nlow,1\n"));
        world.nodes = world.places.open_all(|id| world.config(id)).await;
        let config = TopicConfig { min_insync_replicas: 2, ..TopicConfig::default() };
        world.nodes[&1].gateway.log.create_topic("readings", 3, config).await.unwrap();
        world.until_in_force(1, "Over").await;
        world
    }

    fn config(&self, id: i32) -> Vec<String> {
        let off = ["mqtt", "quic", "kafka"].map(|name| format!("listeners.{name}=off"));
        let rules = self.folder(id).join("*.yaml");
        let own = [format!("alerts.rules={}", rules.display()), "durability.fsync=false".to_owned()];
        off.into_iter().chain(own).collect()
    }

    fn folder(&self, id: i32) -> &std::path::Path {
        self.folders[usize::try_from(id).unwrap() - 1].path()
    }

    fn write(&self, id: i32, rules: &str, table: &str) {
        std::fs::write(self.folder(id).join("rules.yaml"), rules).unwrap();
        std::fs::write(self.folder(id).join("limits.csv"), table).unwrap();
    }

    async fn open(&mut self, id: i32) {
        let node = self.places.open(id, &self.config(id)).await;
        self.nodes.insert(id, node);
    }

    async fn stop(&mut self, id: i32) {
        self.nodes.remove(&id).unwrap().drain().await;
    }

    async fn api(&self, id: i32) -> Value {
        let url = format!("http://{}/api/v1/rules", self.nodes[&id].gateway.addresses.http.unwrap());
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }

    fn alerts(&self, id: i32) -> Vec<String> {
        self.nodes[&id].gateway.alerts.rules().into_iter().map(|rule| rule.alert).collect()
    }

    fn revision(&self, id: i32) -> Option<u64> {
        self.nodes[&id].gateway.alerts.origin().stamp.map(|stamp| stamp.revision)
    }

    /// Waits until every node evaluates this revision, whose one alert is `alert`.
    async fn until_in_force(&self, revision: u64, alert: &str) {
        let in_force = |id: &i32| self.revision(*id) == Some(revision) && self.alerts(*id) == [alert];
        eventually("the same rules everywhere", async || self.nodes.keys().all(in_force).then_some(())).await;
    }

    /// Waits until a partition that another node than `giver` leads has `alert` for a meter that reads `v`.
    async fn until_fires(&self, giver: i32, alert: &str, meter: &str, v: u32) {
        let fires = |node: &Node| {
            let active = node.gateway.alerts.active();
            active.iter().any(|one| one.0["alert"] == alert && one.0["labels"]["meter"] == meter)
        };
        let any = self.nodes.values().next().unwrap();
        let mut at = 1_600_000_000_000;
        eventually("the alert", async || {
            let topic = any.gateway.log.topic("readings")?;
            let led = |leader: Option<NodeId>| leader.filter(|id| id.0 != giver && self.nodes.contains_key(&id.0));
            let (partition, leader) = topic.partitions.iter().find_map(|p| Some((p, led(p.leader())?)))?;
            at += 1000;
            let mut chunk = RecordChunk::new();
            let reading = format!("{{\"meter\":\"{meter}\",\"v\":{v}}}");
            chunk.push(Millis(at), None, Some(reading.as_bytes()), &[]);
            partition.append(AppendData::Chunk(chunk)).await.ok()?;
            fires(&self.nodes[&leader.0]).then_some(())
        })
        .await;
    }

    /// Has the controller hold a rule file, as it may lie there in a version.
    async fn put(&self, version: u32, rules: &str) {
        let settings = Settings::new(self.nodes[&2].gateway.log.clone());
        let files = serde_json::json!([{ "name": "/x.yaml", "text": "text/x", "tables": {} }]);
        let set = serde_json::json!({ "version": version, "revision": 7, "node": 9, "digest": "d", "files": files });
        let changes = vec![("text/x".to_owned(), Some(rules.to_owned())), ("set".to_owned(), Some(set.to_string()))];
        settings.put("rules", Vec::new(), changes).await.unwrap();
    }

    /// Waits until every node names this problem.
    async fn until_all_say(&self, what: &str) {
        let says = |node: &Node| node.gateway.problems().iter().any(|problem| problem.contains(what));
        eventually(what, async || self.nodes.values().all(says).then_some(())).await;
    }

    async fn drain(self) {
        for (_, node) in self.nodes {
            node.drain().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rules_of_one_node_are_evaluated_by_all_and_outlive_it() {
    let mut world = World::start().await;
    // A mistake is that node's, and nothing changes anywhere.
    world.write(2, &rules("High", 100).replace("expr", "exprr"), "meter,max\nlow,1\n");
    let error = world.nodes[&2].gateway.alerts.reload(true).await.unwrap_err().to_string();
    assert!(error.contains("rules.yaml:6:25: unknown key `exprr`"), "{error}");
    world.until_in_force(1, "Over").await;

    world.write(2, &rules("High", 100), "meter,max\nlow,10\n");
    world.nodes[&2].gateway.alerts.reload(true).await.unwrap();
    assert_eq!(world.revision(2), Some(2), "when the reload returns it is done");
    world.until_in_force(2, "High").await;
    world.until_fires(2, "High", "m", 120).await;
    // With the table of node 2, too.
    world.until_fires(2, "High", "low", 11).await;
    let shown = world.api(3).await;
    assert_eq!((&shown["revision"], &shown["node"], &shown["problem"]), (&2.into(), &2.into(), &Value::Null));
    assert_eq!(shown["rules"][0]["alert"], "High", "{shown}");

    three_tests::kill(world.nodes.remove(&2).unwrap()).await;
    world.until_fires(2, "High", "after", 130).await;
    assert!(world.nodes.keys().all(|id| world.revision(*id) == Some(2)));
    // It comes back as it was.
    world.open(2).await;
    world.until_in_force(2, "High").await;
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_files_bring_no_old_rules_back_and_new_ones_are_offered() {
    let mut world = World::start().await;
    world.write(2, &rules("High", 100), "meter,max\nlow,1\n");
    // As on SIGHUP: they have changed.
    world.nodes[&2].gateway.alerts.reload(false).await.unwrap();
    world.until_in_force(2, "High").await;

    // A node with the old files, at a start and on SIGHUP.
    world.stop(1).await;
    world.open(1).await;
    assert_eq!((world.revision(1), world.alerts(1)), (Some(2), vec!["High".to_owned()]), "from the start on");
    world.nodes[&1].gateway.alerts.reload(false).await.unwrap();
    world.until_in_force(2, "High").await;

    // Edited while it was down.
    world.stop(1).await;
    world.write(1, &rules("Edited", 50), "meter,max\nlow,1\n");
    world.open(1).await;
    world.until_in_force(3, "Edited").await;
    assert_eq!(world.api(2).await["node"], 1);

    // A node that has no rules, at its first start and on a reload.
    let cluster = world.nodes[&1].gateway.log.cluster().unwrap();
    cluster.ask(Request::AddNode { id: NodeId(4) }, PATIENCE).await.unwrap();
    world.open(4).await;
    assert_eq!((world.revision(4), world.alerts(4)), (Some(3), vec!["Edited".to_owned()]));
    world.nodes[&4].gateway.alerts.reload(true).await.unwrap();
    world.until_in_force(3, "Edited").await;

    // Asked for, old files become the cluster's again.
    world.nodes[&3].gateway.alerts.reload(true).await.unwrap();
    world.until_in_force(4, "Over").await;

    // More than the controller keeps: the bound is named, and nothing changes.
    let large = (0..60_000).map(|meter| format!("meter-{meter},{meter}\n")).collect::<String>();
    world.write(2, &rules("Large", 1), &format!("meter,max\n{large}"));
    let error = world.nodes[&2].gateway.alerts.reload(true).await.unwrap_err().to_string();
    assert!(error.contains("the controller keeps 1048576 bytes"), "{error}");
    world.until_in_force(4, "Over").await;
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rules_that_a_node_cannot_read_are_not_taken_up_and_it_says_so() {
    let mut world = World::start().await;
    world.put(1, "groups:\n- {name: g, of: later}\n").await;
    world.until_all_say("unknown key `of` in a group").await;
    assert!(world.nodes.keys().all(|id| world.alerts(*id) == ["Over"]), "the rules of before stay");
    world.until_fires(9, "Over", "m", 300).await;
    world.put(2, "").await;
    world.until_all_say("this release reads 1; those of before stay").await;

    // At a start there are none of before: no alert ends because of that.
    world.stop(1).await;
    world.open(1).await;
    assert_eq!(world.alerts(1), [""; 0]);
    world.until_all_say("this release reads 1").await;
    assert_eq!(world.nodes[&1].gateway.not_ready(), [""; 0]);
    eventually("the alert as it was", async || {
        let active = world.nodes[&2].gateway.alerts.active();
        active.iter().any(|one| one.0["alert"] == "Over" && one.0["labels"]["meter"] == "m").then_some(())
    })
    .await;
    world.nodes[&2].gateway.alerts.reload(true).await.unwrap_err();
    let plain = "groups:\n- {name: g, source: readings, key: [meter], rules: [{alert: Again, expr: v > 1}]}\n";
    world.put(1, plain).await;
    world.until_in_force(7, "Again").await;
    world.until_fires(9, "Again", "m", 300).await;
    world.drain().await;
}
