//! The service on a real log: transitions recorded once across crashes, receivers told at least once, rules reloaded.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_cluster::{AppendData, LogOptions, RealFiles};
use forebay_log::record::RecordChunk;
use forebay_log::{Millis, TopicConfig};
use forebay_sinks::{Diagnostics, Engine, Reading, State, Transition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::Sources;
use crate::ingest::Router;

pub(super) const RULES: &str = "
groups:
- name: voltage
  source: readings
  key: [meter]
  time: {field: ts}
  rules:
  - alert: Over
    expr: voltage > 250
    clear: voltage < 245
    for: 2m
    annotations: {summary: \"{{ voltage }} V\"}
  - alert: Under
    expr: voltage < 210
";

/// A node's log and alerts, on a folder that survives them.
pub(super) struct Rig {
    pub(super) log: Log,
    pub(super) alerts: Arc<Alerts>,
    pub(super) shutdown: CancellationToken,
}

pub(super) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Rig {
    pub(super) async fn open(folder: &Path) -> Log {
        eventually("the log opening", async || {
            let files = RealFiles::open(folder.join("data")).ok()?;
            Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).ok()
        })
        .await
    }

    /// A node with these rules and an empty topic `readings`.
    pub(super) async fn with_readings(rules: &str) -> (tempfile::TempDir, Rig) {
        let folder = folder(rules);
        let log = Rig::open(folder.path()).await;
        log.create_topic("readings", 1, TopicConfig::default()).await.expect("made");
        let rig = Rig::start_on(folder.path(), log).await;
        (folder, rig)
    }

    pub(super) async fn start(folder: &Path) -> Rig {
        let log = Rig::open(folder).await;
        Rig::start_on(folder, log).await
    }

    pub(super) async fn start_on(folder: &Path, log: Log) -> Rig {
        let mut config = Config::load(&Sources::default()).expect("the defaults");
        config.alerts.rules = vec![folder.join("rules.yaml")];
        let config = Arc::new(config);
        let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
        let reader = Reader::new(None);
        let router = Arc::new(Router::new(&[]).expect("no routes"));
        let broker =
            Broker::start(log.clone(), reader.clone(), router, config.clone(), metrics.clone(), shutdown.clone())
                .await
                .expect("a broker");
        let alerts =
            Alerts::start(log.clone(), reader, broker, config, metrics, shutdown.clone()).await.expect("alerts");
        Rig { log, alerts, shutdown }
    }

    /// As a shutdown that is given its time.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.alerts.stopped().await;
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");
    }

    /// As a crash: nothing can be saved any more.
    pub(super) async fn crash(self) {
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");
        self.shutdown.cancel();
        self.alerts.stopped().await;
    }

    pub(super) async fn settle(&self) {
        eventually("settling", async || self.alerts.settled().await.then_some(())).await;
    }

    pub(super) async fn publish(&self, partition: usize, readings: &[String]) {
        let topic = self.log.topic("readings").expect("the topic");
        let mut chunk = RecordChunk::new();
        for reading in readings {
            chunk.push(Millis(1_600_000_000_000), None, Some(reading.as_bytes()), &[]);
        }
        topic.partitions[partition].append(AppendData::Chunk(chunk)).await.expect("appended");
    }

    pub(super) fn read(&self, topic: &str, partition: usize) -> Vec<forebay_log::record::Record> {
        let partition = self.log.topic(topic).expect("the topic").partitions[partition].clone();
        let mut next = Offset(0);
        let mut found = Vec::new();
        while next < partition.watermarks().high_watermark {
            let fetched = partition.read(next, 1 << 20).expect("readable");
            journal::visit(fetched.batches, &mut next, |record| found.push(record.expect("whole")));
        }
        found
    }

    pub(super) fn transitions(&self) -> Vec<Transition> {
        self.read("_alerts", 0).iter().map(|record| journal::parse(record).expect("a transition")).collect()
    }
}

pub(super) fn reading(meter: &str, minute: usize, voltage: f64) -> String {
    format!("{{\"meter\":\"{meter}\",\"ts\":{},\"voltage\":{voltage}}}", 1_500_000_000 + minute * 60)
}

pub(super) fn folder(rules: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yaml"), rules).expect("written");
    folder
}

pub(super) fn states(transitions: &[Transition]) -> Vec<(&str, State)> {
    transitions.iter().map(|transition| (transition.labels["meter"].as_str(), transition.state)).collect()
}

/// A webhook that refuses every request whose number `refuse` says; keeps what it took.
pub(super) async fn webhook(refuse: fn(usize) -> &'static str) -> (String, Arc<Mutex<Vec<(String, Transition)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut buffer = [0; 4096];
                let Ok(read @ 1..) = socket.read(&mut buffer).await else { break Default::default() };
                bytes.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&bytes).to_lowercase();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                if bytes.len() >= head.len() + 4 + length.unwrap_or(0) {
                    break (head.to_owned(), bytes[head.len() + 4..].to_vec());
                }
            };
            let status = refuse(number);
            if status.starts_with('2') {
                let id =
                    head.split("idempotency-key: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
                let transition = serde_json::from_slice(&body).expect("a transition");
                kept.lock().unwrap_or_else(PoisonError::into_inner).push((id.to_owned(), transition));
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (url, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn transitions_are_recorded_shown_and_delivered_in_order_to_a_webhook_that_fails_now_and_then() {
    let (url, taken) = webhook(|number| if number % 3 == 0 { "503 Busy" } else { "204 No Content" }).await;
    let (_folder, rig) =
        Rig::with_readings(&format!("{RULES}receivers:\n- webhook: {{url: \"{url}\"}}\n- kafka: {{topic: told}}\n"))
            .await;
    rig.publish(0, &[reading("m1", 0, 251.0), reading("m1", 1, 252.0), reading("m2", 1, 251.0)]).await;
    rig.publish(0, &[reading("m1", 2, 253.0), reading("m2", 2, 240.0)]).await;
    rig.settle().await;
    let active = rig.alerts.active();
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].0["state"].as_str(), active[0].0["value"].as_f64()), (Some("firing"), Some(253.0)));
    let rules = rig.alerts.rules();
    assert_eq!((rules[0].alert.as_str(), rules[0].pending, rules[0].firing, rules[1].firing), ("Over", 0, 1, 0));
    rig.publish(0, &[reading("m1", 3, 249.0), reading("m1", 4, 244.0)]).await;
    rig.settle().await;
    assert!(rig.alerts.active().is_empty());
    let recorded = rig.transitions();
    use State::{Firing, Pending, Resolved};
    let expected = [("m1", Pending), ("m2", Pending), ("m1", Firing), ("m2", Resolved), ("m1", Resolved)];
    assert_eq!(states(&recorded), expected);
    let told = taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let ids: Vec<&str> = told.iter().map(|(id, _)| id.as_str()).collect();
    let wanted: Vec<&str> = recorded.iter().filter(|t| t.state != Pending).map(|t| t.id.as_str()).collect();
    assert_eq!(ids, wanted);
    assert!(told.iter().all(|(id, transition)| *id == transition.id));
    let partitions = rig.log.topic("told").expect("made for the receiver").partitions.len();
    let records: usize = (0..partitions).map(|partition| rig.read("told", partition).len()).sum();
    assert_eq!(records, 3);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_and_crashes_neither_repeat_nor_lose_a_transition() {
    let folder = folder(RULES);
    let log = Rig::open(folder.path()).await;
    log.create_topic("readings", 2, TopicConfig::default()).await.expect("made");
    let mut rig = Rig::start_on(folder.path(), log).await;
    for round in 0..8usize {
        for partition in 0..2 {
            let meter = format!("m{partition}");
            let level = |minute: usize| [251.0, 252.0, 254.0, 249.0, 244.0, 200.0, 251.0][(minute * 5 + partition) % 7];
            let minutes = round * 9..round * 9 + 9;
            let readings: Vec<String> = minutes.map(|minute| reading(&meter, minute, level(minute / 3))).collect();
            rig.publish(partition, &readings).await;
        }
        match round % 4 {
            0 => rig.crash().await,
            1 => {
                rig.settle().await;
                rig.crash().await;
            }
            2 => rig.stop().await,
            _ => continue,
        }
        rig = Rig::start(folder.path()).await;
    }
    rig.settle().await;
    let rules = forebay_sinks::rules::load(&[folder.path().join("rules.yaml")]).expect("good rules");
    let recorded = rig.transitions();
    for partition in 0..2u32 {
        let mut engine = Engine::new(&rules, "readings", partition, 0);
        let mut expected = Vec::new();
        for record in rig.read("readings", partition as usize) {
            let value = record.value.as_deref();
            let reading = Reading { offset: record.offset.0, timestamp: record.timestamp, value };
            engine.feed(reading, record.timestamp, &mut expected);
        }
        assert!(expected.len() > 10, "{}", expected.len());
        let of_partition: Vec<Transition> =
            recorded.iter().filter(|transition| transition.source.partition == partition).cloned().collect();
        assert_eq!(of_partition, expected);
        let shown = rig.alerts.active().iter().filter(|alert| alert.0["source"]["partition"] == partition).count();
        assert_eq!(shown, engine.active().count());
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_goes_on_after_a_restart_and_one_that_refuses_does_not_stop_the_others() {
    let (url, taken) = webhook(|_| "200 OK").await;
    let (refusing, none) = webhook(|_| "422 Unprocessable").await;
    let rules = format!("{RULES}receivers:\n- webhook: {{url: \"{refusing}\"}}\n- webhook: {{url: \"{url}\"}}\n");
    let (folder, rig) = Rig::with_readings(&rules).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    rig.stop().await;
    let rig = Rig::start(folder.path()).await;
    rig.publish(0, &[reading("m1", 1, 230.0)]).await;
    rig.settle().await;
    let told = taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let told: Vec<Transition> = told.into_iter().map(|(_, transition)| transition).collect();
    assert_eq!(states(&told), [("m1", State::Firing), ("m1", State::Resolved)]);
    assert!(none.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_stays_resolves_what_is_gone_and_refuses_bad_rules() {
    let folder = folder(RULES);
    let rules = folder.path().join("rules.yaml");
    let log = Rig::open(folder.path()).await;
    log.create_topic("readings", 1, TopicConfig::default()).await.expect("made");
    let rig = Rig::start_on(folder.path(), log).await;
    rig.publish(0, &[reading("m1", 0, 251.0), reading("m2", 0, 200.0)]).await;
    rig.settle().await;

    std::fs::write(&rules, RULES.replace("expr: voltage < 210", "exprr: voltage < 210")).expect("written");
    let error = rig.alerts.reload(true).await.expect_err("bad rules");
    assert!(error.downcast_ref::<Diagnostics>().is_some_and(|d| d.to_string().contains("rules.yaml:14:5")), "{error}");
    assert_eq!(rig.alerts.rules().len(), 2);

    std::fs::write(&rules, RULES.replace("alert: Under", "alert: Low")).expect("written");
    rig.alerts.reload(true).await.expect("good rules");
    rig.publish(0, &[reading("m1", 2, 251.0), reading("m2", 2, 200.0)]).await;
    rig.settle().await;
    let seen: Vec<(String, State)> = rig.transitions().iter().map(|t| (t.alert.clone(), t.state)).collect();
    let expected = [
        ("Over", State::Pending),
        ("Under", State::Firing),
        ("Under", State::Resolved),
        ("Over", State::Firing),
        ("Low", State::Firing),
    ];
    assert_eq!(seen, expected.map(|(alert, state)| (alert.to_owned(), state)));

    std::fs::write(&rules, "groups: []\n").expect("written");
    rig.stop().await;
    let rig = Rig::start(folder.path()).await;
    eventually("the alerts of removed rules ending", async || (rig.transitions().len() == 7).then_some(())).await;
    assert!(rig.transitions()[5..].iter().all(|transition| transition.state == State::Resolved));
    assert!(rig.alerts.active().is_empty());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_the_rules_is_left_and_a_later_topic_is_read_from_its_beginning() {
    let folder = folder(RULES);
    let log = Rig::open(folder.path()).await;
    log.create_topic("readings", 1, TopicConfig::default()).await.expect("made");
    let rig = Rig::start_on(folder.path(), log.clone()).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    std::fs::write(folder.path().join("rules.yaml"), RULES.replace("source: readings", "source: later"))
        .expect("written");
    rig.alerts.reload(true).await.expect("good rules");
    eventually("the alert of the old source ending", async || (rig.transitions().len() == 2).then_some(())).await;
    let later = log.create_topic("later", 1, TopicConfig::default()).await.expect("made");
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1_600_000_000_000), None, Some(reading("m3", 0, 200.0).as_bytes()), &[]);
    later.partitions[0].append(AppendData::Chunk(chunk)).await.expect("appended");
    rig.settle().await;
    assert_eq!(states(&rig.transitions()[2..]), [("m3", State::Firing)]);

    std::fs::write(folder.path().join("rules.yaml"), RULES).expect("written");
    rig.publish(0, &[reading("m4", 0, 200.0)]).await;
    rig.alerts.reload(true).await.expect("good rules");
    rig.settle().await;
    rig.publish(0, &[reading("m5", 0, 200.0)]).await;
    rig.settle().await;
    let last = rig.transitions();
    assert!(last.iter().all(|transition| transition.labels["meter"] != "m4"), "it was there before the rules");
    assert!(last.iter().any(|transition| transition.labels["meter"] == "m5"));
    drop(log);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_a_deleted_topic_end_and_a_new_one_of_its_name_begins_afresh() {
    let (_folder, rig) = Rig::with_readings(RULES).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    rig.log.delete_topic("readings").await.expect("deleted");
    eventually("the alert of the deleted topic ending", async || (rig.transitions().len() == 2).then_some(())).await;
    eventually("the board forgetting it", async || rig.alerts.active().is_empty().then_some(())).await;
    let awaited = || checkpoint::is_awaited(&rig.alerts.service().expect("begun").state, "readings");
    eventually("the topic being awaited", async || awaited().then_some(())).await;
    rig.log.create_topic("readings", 1, TopicConfig::default()).await.expect("made again");
    rig.publish(0, &[reading("m1", 1, 201.0)]).await;
    rig.settle().await;
    assert_eq!(states(&rig.transitions()), [State::Firing, State::Resolved, State::Firing].map(|state| ("m1", state)));
    rig.stop().await;
}

#[test]
fn the_example_rules_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rules");
    for file in ["voltage.yaml", "load.yaml"] {
        let set = forebay_sinks::rules::load(&[folder.join(file)]).expect("good rules");
        assert!(set.rule_count() >= 1);
    }
    let report = forebay_sinks::testing::run_file(&folder.join("tests/voltage.yaml")).expect("good tests");
    assert_eq!(report.failures, []);
}
