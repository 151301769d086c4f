//! The service when something is wrong under it: damaged files, refused appends, sources that change while nobody looks.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_cluster::AppendData;
use forebay_log::record::RecordChunk;
use forebay_log::{Epoch, Millis, TopicConfig};
use forebay_sinks::{State, Transition};

use super::recorder::Recorder;
use super::tests::{RULES, Rig, eventually, folder, reading, states, webhook};

/// Flips the last byte of a partition's only segment.
fn damage_last_batch(folder: &std::path::Path, partition: &str) {
    let file = folder.join("data/log").join(partition).join("00000000000000000000.log");
    let mut bytes = std::fs::read(&file).expect("a segment");
    *bytes.last_mut().expect("a batch") ^= 1;
    std::fs::write(file, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_batch_of_readings_or_of_transitions_costs_its_own_records_only() {
    static DOWN: AtomicBool = AtomicBool::new(true);
    let (url, taken) = webhook(|_| if DOWN.load(Ordering::Acquire) { "503 Busy" } else { "200 OK" }).await;
    let (folder, rig) = Rig::with_readings(&format!("{RULES}receivers:\n- webhook: {{url: \"{url}\"}}\n")).await;
    for (recorded, meter) in [(1, "m1"), (2, "m2")] {
        rig.publish(0, &[reading(meter, 0, 200.0)]).await;
        eventually("the transition", async || (rig.transitions().len() == recorded).then_some(())).await;
    }
    rig.stop().await;
    let log = Rig::open(folder.path()).await;
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1_600_000_000_000), None, Some(reading("m3", 0, 200.0).as_bytes()), &[]);
    let readings = log.topic("readings").expect("the topic").partitions[0].clone();
    readings.append(AppendData::Chunk(chunk)).await.expect("appended");
    tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");
    drop(readings);
    damage_last_batch(folder.path(), "readings-0");
    damage_last_batch(folder.path(), "_alerts-0");

    DOWN.store(false, Ordering::Release);
    let rig = Rig::start(folder.path()).await;
    rig.publish(0, &[reading("m4", 0, 200.0)]).await;
    rig.settle().await;
    let told: Vec<Transition> =
        taken.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, transition)| transition.clone()).collect();
    assert_eq!(states(&told), [("m1", State::Firing), ("m4", State::Firing)]);
    assert!(
        rig.alerts.service().expect("begun").metrics.alerts.skipped_records.get() >= 2,
        "the reading of m3 and the transition of m2"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_over_damaged_transitions_leaves_out_those_that_are_whole() {
    let (folder, rig) = Rig::with_readings(RULES).await;
    for (recorded, meter) in [(1, "m1"), (2, "m2")] {
        rig.publish(0, &[reading(meter, 0, 200.0)]).await;
        eventually("the transition", async || (rig.transitions().len() == recorded).then_some(())).await;
    }
    let first = rig.transitions();
    let id = (String::from("readings"), rig.log.topic("readings").expect("the topic").id, 0);
    rig.stop().await;
    damage_last_batch(folder.path(), "_alerts-0");
    let rig = Rig::start(folder.path()).await;
    let stop = rig.shutdown.child_token();
    let beginning = forebay_log::Offset(0);
    let recorder = Recorder::new(rig.alerts.service().expect("begun").clone(), id, Epoch(0));
    let found = recorder.emitted_since(beginning, &stop);
    let found =
        tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("it does not try for ever");
    assert_eq!(found.expect("not told to stop"), [first[0].id.clone()].into());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_cannot_be_noted_leaves_the_old_receivers_at_work() {
    static DOWN: AtomicBool = AtomicBool::new(true);
    let (url, taken) = webhook(|_| if DOWN.load(Ordering::Acquire) { "503 Busy" } else { "200 OK" }).await;
    let rules = format!("{RULES}receivers:\n- webhook: {{url: \"{url}\"}}\n");
    let (folder, rig) = Rig::with_readings(&rules).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    eventually("an attempt", async || {
        let metrics = crate::metrics::render(
            &rig.alerts.service().expect("begun").metrics.registry,
            crate::metrics::Format::Prometheus,
        )
        .expect("metrics");
        metrics.contains("outcome=\"failed\"").then_some(())
    })
    .await;
    // Nothing can be written any more.
    let log = rig.log.clone();
    tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");
    std::fs::write(
        folder.path().join("rules.yaml"),
        rules.replace("receivers:\n", "receivers:\n- kafka: {topic: told}\n"),
    )
    .expect("written");
    rig.alerts.reload(true).await.expect_err("the new receiver's place cannot be noted");
    DOWN.store(false, Ordering::Release);
    eventually("the delivery", async || {
        (taken.lock().unwrap_or_else(PoisonError::into_inner).len() == 1).then_some(())
    })
    .await;
    rig.shutdown.cancel();
    rig.alerts.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transitions_of_which_a_part_was_refused_at_first_are_recorded_once_and_in_order() {
    let (_folder, rig) = Rig::with_readings(RULES).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    let original = rig.transitions().remove(0);
    // Text that no codec makes much smaller.
    let noise = |bytes: usize| {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + ((seed >> 57) % 90) as u8)
        };
        (0..bytes).map(|_| next()).filter(|c| !matches!(c, '"' | '\\')).collect::<String>()
    };
    let sizes = [100_000, 100_000, 100_000, 2_000_000, 1000];
    let transitions: Vec<Transition> = sizes
        .iter()
        .enumerate()
        .map(|(number, size)| {
            let mut transition = original.clone();
            transition.id = format!("t{number}");
            transition.source.offset = number as i64;
            transition.annotations.insert("noise".to_owned(), noise(*size));
            transition
        })
        .collect();
    // Room for the first chunk, not for the second.
    let roomy = rig.log.topic("_alerts").expect("the topic").config().as_ref().clone();
    let narrow = TopicConfig { max_message_bytes: 1 << 20, ..roomy.clone() };
    rig.log.alter_topic("_alerts", narrow).await.expect("altered");
    let (service, stop) = (rig.alerts.service().expect("begun").clone(), rig.shutdown.child_token());
    let source = (String::from("readings"), rig.log.topic("readings").expect("the topic").id, 0);
    let mut recorder = Recorder::new(service, source, Epoch(0));
    let recording = tokio::spawn(async move { recorder.record(&transitions, &stop).await });
    let end = || rig.log.topic("_alerts").map(|topic| topic.partitions[0].watermarks().high_watermark.0);
    eventually("the first chunk", async || (end() >= Some(4)).then_some(())).await;
    // At least one more attempt.
    tokio::time::sleep(super::limits::RETRY_PAUSE * 2).await;
    rig.log.alter_topic("_alerts", roomy).await.expect("altered");
    assert!(recording.await.expect("no panic"));
    let ids: Vec<String> = rig.transitions()[1..].iter().map(|transition| transition.id.clone()).collect();
    assert_eq!(ids, ["t0", "t1", "t2", "t3", "t4"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_made_again_while_nobody_looked_is_read_from_its_beginning() {
    let (folder, rig) = Rig::with_readings(RULES).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    rig.stop().await;
    let log = Rig::open(folder.path()).await;
    log.delete_topic("readings").await.expect("deleted");
    let again = log.create_topic("readings", 1, TopicConfig::default()).await.expect("made again");
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1_600_000_000_000), None, Some(reading("m2", 0, 200.0).as_bytes()), &[]);
    again.partitions[0].append(AppendData::Chunk(chunk)).await.expect("appended");
    let rig = Rig::start_on(folder.path(), log).await;
    rig.settle().await;
    let recorded = rig.transitions();
    assert_eq!(states(&recorded), [("m1", State::Firing), ("m1", State::Resolved), ("m2", State::Firing)]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_starts_while_alerts_cannot_be_recorded_and_they_are_once_they_can() {
    let (folder, rig) = Rig::with_readings(RULES).await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    rig.stop().await;
    // The alert ends with its rule, and there is no room for that in `_alerts`.
    std::fs::write(folder.path().join("rules.yaml"), "groups: []\n").expect("written");
    let log = Rig::open(folder.path()).await;
    let roomy = log.topic("_alerts").expect("the topic").config().as_ref().clone();
    log.alter_topic("_alerts", TopicConfig { max_message_bytes: 1, ..roomy.clone() }).await.expect("altered");
    let started = tokio::time::timeout(Duration::from_secs(20), Rig::start_on(folder.path(), log)).await;
    let rig = started.expect("the doors open whatever the alerts do");
    tokio::time::sleep(super::limits::RETRY_PAUSE).await;
    assert!(!rig.alerts.settled().await, "a transition is still to be recorded");
    rig.log.alter_topic("_alerts", roomy).await.expect("altered");
    rig.settle().await;
    assert_eq!(states(&rig.transitions()), [("m1", State::Firing), ("m1", State::Resolved)]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_starts_while_nothing_can_be_noted_about_new_rules_and_receivers() {
    let folder = folder("groups: []\n");
    let log = Rig::open(folder.path()).await;
    log.create_topic("readings", 1, TopicConfig::default()).await.expect("made");
    Rig::start_on(folder.path(), log).await.stop().await;
    std::fs::write(folder.path().join("rules.yaml"), format!("{RULES}receivers:\n- kafka: {{topic: told}}\n"))
        .expect("written");
    let log = Rig::open(folder.path()).await;
    let roomy = log.topic("_alert_state").expect("the topic").config().as_ref().clone();
    log.alter_topic("_alert_state", TopicConfig { max_message_bytes: 1, ..roomy.clone() }).await.expect("altered");
    let rig = Rig::start_on(folder.path(), log).await;
    assert!(!rig.alerts.settled().await, "where the rules begin is not noted");
    rig.log.alter_topic("_alert_state", roomy).await.expect("altered");
    rig.settle().await;
    rig.publish(0, &[reading("m1", 0, 200.0)]).await;
    rig.settle().await;
    let partitions = rig.log.topic("told").expect("made for the receiver").partitions.len();
    let told: usize = (0..partitions).map(|partition| rig.read("told", partition).len()).sum();
    assert_eq!(told, 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_receiver_and_why_is_seen_in_metrics_and_status() {
    static DOWN: AtomicBool = AtomicBool::new(true);
    let (url, _taken) = webhook(|_| if DOWN.load(Ordering::Acquire) { "401 Unauthorized" } else { "200 OK" }).await;
    let (_folder, rig) =
        Rig::with_readings(&format!("{RULES}receivers:\n- webhook: {{url: \"{url}?token=secret\"}}\n")).await;
    rig.publish(0, &[reading("m1", 0, 200.0), reading("m2", 0, 200.0)]).await;
    let shows = async |line: &str| {
        let registry = &rig.alerts.service().expect("begun").metrics.registry;
        let metrics = crate::metrics::render(registry, crate::metrics::Format::Prometheus).expect("metrics");
        assert!(!metrics.contains("secret"), "{metrics}");
        metrics.lines().any(|l| l.starts_with("forebay_alerts_") && l.ends_with(line)).then_some(())
    };
    let receiver = format!("webhook:{}", url.trim_start_matches("http://").trim_end_matches("/hook"));
    let waiting = format!("receiver_backlog{{receiver=\"{receiver}\"}} 2");
    eventually("the backlog", async || shows(&waiting).await).await;
    eventually("the reason", async || {
        let status = rig.alerts.receivers();
        assert_eq!((status.len(), status[0].receiver.as_str()), (1, receiver.as_str()));
        (status[0].last_error.as_deref() == Some("answered with status 401") && status[0].backlog == 2).then_some(())
    })
    .await;
    eventually("no lag", async || shows("lag_records{topic=\"readings\",partition=\"0\"} 0").await).await;
    DOWN.store(false, Ordering::Release);
    rig.settle().await;
    assert_eq!((rig.alerts.receivers()[0].backlog, rig.alerts.receivers()[0].last_error.clone()), (0, None));
    rig.log.delete_topic("readings").await.expect("deleted");
    eventually("no gauge of what is gone", async || {
        match shows("lag_records{topic=\"readings\",partition=\"0\"} 0").await {
            None => Some(()),
            Some(()) => None,
        }
    })
    .await;
    rig.stop().await;
}
