//! Three nodes in one process: offload and alerts move with the leaders of their partitions, and lose and double nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forebay_cluster::{AppendData, Log};
use forebay_log::cluster::Request;
use forebay_log::cluster::controller::{Assignment, CreateTopic, ElectionType, Reassign};
use forebay_log::record::{Batches, Record, RecordChunk, RecordReader};
use forebay_log::{Epoch, Millis, NodeId, Offset, TopicConfig};
use forebay_sinks::{Engine, Reading};
use forebay_tiering::parquet::ColdReader;
use forebay_tiering::table::{DeltaLake, Table};
use kafka_protocol::ResponseError;
use object_store::path::Path;

use super::Node;
use super::three_tests::Places;
use crate::alerts::JOURNAL_TOPIC;
use crate::kafka::groups::{Ask, Committed, Membership, TopicPartition};
use crate::reader::Reader;

const PATIENCE: Duration = Duration::from_secs(60);
const RULES: &str = "
groups:
- name: voltage
  source: readings
  key: [meter]
  time: {field: ts}
  rules:
  - alert: Over
    expr: v > 250
    clear: v < 245
    for: 2m
";

pub(crate) struct Trio {
    pub(super) places: Places,
    /// Of the rules.
    pub(super) folder: tempfile::TempDir,
    /// What all nodes are told beside what tells them apart.
    more: Vec<String>,
    pub(crate) nodes: BTreeMap<i32, Node>,
}

pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Trio {
    pub(crate) async fn start() -> Trio {
        let (places, folder) = (Places::new(), tempfile::tempdir().unwrap());
        let rules = folder.path().join("rules.yaml");
        std::fs::write(&rules, RULES).unwrap();
        let off = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=off"));
        let more = [format!("alerts.rules={}", rules.display()), "durability.fsync=false".to_owned()];
        let more: Vec<String> = off.into_iter().chain(more).collect();
        let nodes = places.open_all(|_| more.clone()).await;
        let trio = Trio { places, folder, more, nodes };
        let config = TopicConfig { lake_commit_interval_ms: 50, min_insync_replicas: 2, ..TopicConfig::default() };
        trio.log(1).create_topic("readings", 3, config).await.unwrap();
        eventually("the topic everywhere", async || {
            trio.nodes.keys().all(|id| trio.log(*id).topic("readings").is_some()).then_some(())
        })
        .await;
        trio
    }

    /// Where the lake is.
    pub(crate) fn lake(&self) -> &std::path::Path {
        self.places.lake()
    }

    /// Starts a node that is not there, or not any more.
    pub(super) async fn open(&mut self, id: i32) {
        let node = self.places.open(id, &self.more).await;
        self.nodes.insert(id, node);
    }

    pub(crate) fn log(&self, id: i32) -> &Log {
        &self.nodes[&id].gateway.log
    }

    /// The node that leads, as the node `seen` from sees it.
    pub(crate) fn leader(&self, seen: i32, topic: &str, partition: usize) -> i32 {
        self.log(seen).topic(topic).unwrap().partitions[partition].leader().unwrap_or(NodeId(-1)).0
    }

    /// Cuts a node off for good: the others go on without it, and it does not know that. Its services still run.
    async fn cut_off(&self, id: i32) {
        self.log(id).cluster().unwrap().shutdown(Duration::ZERO).await;
    }

    /// Appends readings through a node, wherever the partitions are led.
    pub(crate) async fn publish(&self, through: i32, minutes: std::ops::Range<usize>) {
        let topic = self.log(through).topic("readings").unwrap();
        for (partition, handle) in topic.partitions.iter().enumerate() {
            for minute in minutes.clone() {
                let v = [251.0, 252.0, 254.0, 249.0, 244.0, 230.0, 251.5][(minute / 2 * 5 + partition) % 7];
                let ts = 1_500_000_000 + minute * 60;
                let value = format!("{{\"meter\":\"m{partition}\",\"ts\":{ts},\"v\":{v}}}");
                eventually("the append", async || {
                    let mut chunk = RecordChunk::new();
                    chunk.push(Millis(1_600_000_000_000), Some(b"m"), Some(value.as_bytes()), &[]);
                    handle.append(AppendData::Chunk(chunk)).await.ok()
                })
                .await;
            }
        }
    }

    /// A topic `quiet` that no service looks at, its leader, and the node that is to follow it; the leader leads none of these.
    pub(crate) async fn quiet(&self, states: &[&str]) -> (i32, i32) {
        let keepers: Vec<i32> = states.iter().map(|state| self.leader(1, state, 0)).collect();
        let old = (1..=3).find(|id| !keepers.contains(id)).unwrap();
        let new = (1..=3).find(|id| *id != old).unwrap();
        let replicas = [old, new, 6 - old - new].map(NodeId).to_vec();
        let config = BTreeMap::from([("remote.storage.enable".to_owned(), "false".to_owned())]);
        let (id, replicas) = (uuid::Uuid::new_v4(), Assignment::Explicit { replicas: vec![replicas] });
        let topic = CreateTopic { id, name: "quiet".to_owned(), replicas, config, validate_only: false };
        self.log(1).cluster().unwrap().ask(Request::CreateTopic(topic), PATIENCE).await.unwrap();
        self.until_led(old).await;
        (old, new)
    }

    async fn until_led(&self, leader: i32) {
        eventually("the leader of quiet", async || {
            let leads = |id: &i32| {
                let topic = self.log(*id).topic("quiet")?;
                (topic.partitions[0].leader() == Some(NodeId(leader))).then_some(topic)
            };
            let all = self.nodes.keys().all(|id| leads(id).is_some());
            (all && leads(&leader)?.partitions[0].leads()).then_some(())
        })
        .await;
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.log(1).topic("quiet").unwrap().partitions[0].placement().leader_epoch
    }

    /// Another node leads `quiet` from now on.
    pub(crate) async fn hand_over(&self, new: i32) {
        let (cluster, topic) = (self.log(1).cluster().unwrap(), self.log(1).topic("quiet").unwrap());
        let mut target: Vec<NodeId> = topic.partitions[0].placement().replicas.clone();
        target.sort_by_key(|id| id.0 != new);
        let partitions = vec![Reassign { topic: topic.id, index: 0, target: Some(target) }];
        cluster.ask(Request::AlterReassignments { partitions }, PATIENCE).await.unwrap();
        eventually("the election", async || {
            let partitions = Some(vec![(topic.id, 0)]);
            let election = ElectionType::Preferred;
            let _ = cluster.ask(Request::ElectLeaders { election, partitions }, PATIENCE).await;
            (self.leader(1, "quiet", 0) == new).then_some(())
        })
        .await;
        self.until_led(new).await;
    }

    /// All committed records of a partition, hot and cold, as a node reads them.
    pub(super) async fn read(&self, id: i32, topic: &str, partition: usize) -> Vec<Record> {
        let reader = Reader::new(self.nodes[&id].gateway.lake.clone());
        let partition = self.log(id).topic(topic).unwrap().partitions[partition].clone();
        let (mut found, mut next) = (Vec::new(), Offset(0));
        while next < partition.watermarks().high_watermark {
            let fetched = reader.read(&partition, next, 1 << 20).await.unwrap();
            records(fetched.batches, &mut next, &mut found);
        }
        found
    }

    /// Each of `count` readings of a partition is in the log and, once, in the table, and these nodes find nothing wrong.
    pub(crate) async fn lake_has_each_once(&self, here: i32, count: usize, nodes: &[&Node]) {
        for partition in 0..3u32 {
            let log = self.read(here, "readings", partition as usize).await;
            assert_eq!(log.len(), count, "partition {partition}");
            let expected: Vec<(i64, Vec<u8>)> =
                log.into_iter().map(|record| (record.offset.0, record.value.unwrap().to_vec())).collect();
            let found = in_table(self, partition).await;
            assert!(
                found == expected,
                "partition {partition}: {} in the table, {} in the log",
                found.len(),
                expected.len()
            );
        }
        for node in nodes {
            let report = node.gateway.lake.as_ref().unwrap().verify("readings").await.unwrap();
            assert_eq!((report.rows, report.problems), (3 * count as u64, Vec::new()));
        }
    }

    /// What one engine over the whole log says is in `_alerts`, in order, once these nodes have evaluated all.
    pub(super) async fn alerts_are_recorded_once(&self, here: i32, nodes: &[&Node]) {
        eventually("the alerts", async || {
            let mut settled = true;
            for node in nodes {
                settled &= node.gateway.alerts.settled().await;
            }
            settled.then_some(())
        })
        .await;
        let rules = forebay_sinks::rules::load(&[self.folder.path().join("rules.yaml")]).unwrap();
        let mut recorded: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for record in self.read(self.leader(here, JOURNAL_TOPIC, 0), JOURNAL_TOPIC, 0).await {
            let transition: serde_json::Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
            let id = transition["id"].as_str().unwrap().to_owned();
            recorded.entry(transition["source"]["partition"].as_u64().unwrap()).or_default().push(id);
        }
        for partition in 0..3u32 {
            let mut engine = Engine::new(&rules, "readings", partition, 0);
            let mut expected = Vec::new();
            for record in self.read(here, "readings", partition as usize).await {
                let reading =
                    Reading { offset: record.offset.0, timestamp: record.timestamp, value: record.value.as_deref() };
                engine.feed(reading, record.timestamp, &mut expected);
            }
            assert!(expected.len() > 8, "{}", expected.len());
            let ids: Vec<String> = expected.into_iter().map(|transition| transition.id).collect();
            assert_eq!(recorded.remove(&u64::from(partition)), Some(ids), "partition {partition}");
        }
    }

    pub(crate) async fn drain(self, cut_off: i32) {
        for (id, node) in self.nodes {
            if id != cut_off {
                node.drain().await;
            }
        }
    }
}

fn records(batches: bytes::Bytes, next: &mut Offset, found: &mut Vec<Record>) {
    for batch in Batches::new(batches) {
        let (header, batch) = batch.unwrap();
        let all = RecordReader::new(&header, &batch).unwrap().map(Result::unwrap);
        found.extend(all.filter(|record| record.offset >= *next));
        *next = header.next_offset().max(*next);
    }
}

/// What the table holds of a partition, file by file.
async fn in_table(trio: &Trio, partition: u32) -> Vec<(i64, Vec<u8>)> {
    let url = format!("file:{}", trio.places.lake().display());
    let store = forebay_tiering::store::open(&url, &BTreeMap::new()).unwrap();
    let topic = trio.log(*trio.nodes.keys().next().unwrap()).topic("readings").unwrap();
    let mut table = DeltaLake::new(store.clone(), "readings", topic.id);
    let (reader, mut found) = (ColdReader::new(store), Vec::new());
    for file in table.contents().await.unwrap().files {
        if file.path.contains(&format!("part-{partition:05}-")) {
            let (mut next, path) = (Offset(0), Path::from(file.path));
            loop {
                let batches = reader.read(&path, next, 1 << 20).await.unwrap();
                if batches.is_empty() {
                    break;
                }
                let mut some = Vec::new();
                records(batches, &mut next, &mut some);
                found.extend(some.into_iter().map(|record| (record.offset.0, record.value.unwrap().to_vec())));
            }
        }
    }
    found.sort();
    found
}

/// Offload and alerts through the loss of the node that leads most: what it had begun others finish, and what it still does in
/// the belief that it leads counts for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_is_cut_off_is_followed_in_offload_and_alerts_without_loss_or_doubling() {
    let trio = Trio::start().await;
    trio.publish(1, 0..20).await;
    for node in trio.nodes.values() {
        node.gateway.lake.as_ref().unwrap().flush("readings").await.unwrap();
    }
    trio.publish(2, 20..40).await;
    // Who is cut off has segments that wait, one copy begun perhaps, and state that is not saved.
    let gone = trio.leader(1, "readings", 0);
    let here = (1..=3).find(|id| *id != gone).unwrap();
    let topic = trio.log(gone).topic("readings").unwrap();
    topic.partitions[0].roll().await.unwrap();
    trio.cut_off(gone).await;
    eventually("another leader of every partition", async || {
        let led = |topic: &str, count: usize| {
            (0..count).all(|partition| ![gone, -1].contains(&trio.leader(here, topic, partition)))
        };
        (led("readings", 3) && led("_lake_manifest", 1) && led("_alert_state", 1) && led(JOURNAL_TOPIC, 1))
            .then_some(())
    })
    .await;
    trio.publish(here, 40..60).await;
    let rest: Vec<&Node> = trio.nodes.iter().filter(|(id, _)| **id != gone).map(|(_, node)| node).collect();
    for node in &rest {
        eventually("the flush", async || node.gateway.lake.as_ref().unwrap().flush("readings").await.ok()).await;
    }
    trio.lake_has_each_once(here, 60, &rest).await;
    trio.alerts_are_recorded_once(here, &rest).await;
    // Every node shows all alerts, whoever evaluates them: those of others as of their last checkpoints.
    eventually("the same alerts on both nodes", async || {
        let shown: BTreeSet<usize> = rest.iter().map(|node| node.gateway.alerts.active().len()).collect();
        (shown.len() == 1).then_some(())
    })
    .await;
    drop((rest, topic));
    trio.drain(gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_coordinator_that_is_cut_off_tells_no_old_offsets_when_others_have_given_it_up() {
    let trio = Trio::start().await;
    let of = TopicPartition { topic: "readings".into(), partition: 0 };
    let commit = async |id: i32, offset: i64| {
        let nobody = Membership { generation: -1, id: "".into(), instance: None };
        let committed = Committed { offset, leader_epoch: -1, metadata: String::new() };
        let offsets = vec![(of.clone(), committed)];
        let (groups, log) = (&trio.nodes[&id].gateway.groups, trio.log(id));
        groups.answer(log, "g", |reply| Ask::Commit(nobody, offsets, Millis(1), reply)).await.ok()
    };
    let told = async |id: i32| {
        let found = trio.nodes[&id].gateway.groups.offset(trio.log(id), "g", of.clone()).await;
        found.map(|committed| committed.map(|committed| committed.offset)).map_err(|refusal| refusal.code)
    };
    let coordinator =
        async |seen: i32| trio.nodes[&seen].gateway.groups.coordinator(trio.log(seen), "g").await.map(|id| id.0);
    let old = eventually("a coordinator", async || coordinator(1).await).await;
    eventually("a commit", async || commit(old, 5).await).await;
    assert_eq!(told(old).await, Ok(Some(5)));
    trio.cut_off(old).await;
    let here = (1..=3).find(|id| *id != old).unwrap();
    let new = eventually("another coordinator", async || coordinator(here).await.filter(|id| *id != old)).await;
    eventually("a later commit", async || commit(new, 9).await).await;
    assert_eq!(told(new).await, Ok(Some(9)));
    let refused = Err(ResponseError::NotCoordinator.code());
    eventually("the end of its lease", async || (told(old).await == refused).then_some(())).await;
    trio.drain(old).await;
}
