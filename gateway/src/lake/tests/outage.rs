//! An object store that is out of reach or slow, and a backlog: who waits, who does not, and what is said of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::store::Mood;
use super::*;
use crate::metrics::{Format, render};

/// The value of a metric, as `/metrics` prints it.
fn metric(node: &TestNode, name: &str) -> Option<f64> {
    let text = render(&node.metrics.registry, Format::Prometheus).expect("printed");
    text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}

/// Segments of ten records each that are not offloaded yet.
async fn backlog(node: &TestNode, segments: i64) -> Arc<Topic> {
    let off = TopicConfig { remote_storage_enable: false, ..config() };
    let topic = node.log.create_topic("readings", 1, off).await.expect("created");
    for segment in 0..segments {
        node.append("readings", 0, segment * 10..(segment + 1) * 10).await;
        topic.partitions[0].roll().await.expect("rolled");
    }
    topic
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_worked_off_with_time_for_questions_in_between() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    let topic = backlog(&node, 40).await;
    let copies = node.lake.shared.copies.clone().acquire_owned().await.expect("the only place");
    node.log.alter_topic("readings", config()).await.expect("altered");
    eventually("the first copy", || !node.lake.shared.manifest.all(topic.id).is_empty()).await;
    let lake = node.lake.clone();
    let asked = tokio::spawn(async move { lake.verify("readings").await });
    let waits = || node.lake.workers.lock().expect("no panic")[&topic.id].commands.capacity() < COMMANDS;
    eventually("the question", waits).await;
    assert_eq!(metric(&node, "forebay_lake_lag_records"), None, "nothing has been done yet");
    drop(copies);
    let report = asked.await.expect("no panic").expect("verified");
    assert!(report.files < 40, "answered after the whole backlog");
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(metric(&node, "forebay_lake_lag_records").is_some_and(|lag| lag > 0.0));
    node.lake.flush("readings").await.expect("flushed");
    assert_eq!((node.status().rows, node.status().lag_records), (400, 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_try_that_fails_is_counted_and_it_is_said_since_when() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, moods) = start_moody(folder.path()).await;
    moods.set(Mood::Fails);
    let topic = node.readings(0..50).await;
    topic.partitions[0].roll().await.expect("rolled");
    eventually("the third failure", || metric(&node, "forebay_lake_failures_total").is_some_and(|n| n >= 3.0)).await;
    let (now, since) =
        (Millis::from_system(std::time::SystemTime::now()), node.status().failing_since.expect("failing"));
    assert!((since..since + 60_000).contains(&now.0), "{since}");
    let shown = || metric(&node, "forebay_lake_failing_since_seconds").expect("shown");
    assert_eq!(shown(), (since / 1000) as f64);
    moods.set(Mood::Works);
    node.lake.flush("readings").await.expect("flushed");
    assert_eq!((node.status().failing_since, shown()), (None, 0.0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_store_that_does_not_answer_leave_the_threads_to_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, moods) = start_moody(folder.path()).await;
    let topic = node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    eventually("the end of the local copy", || topic.partitions[0].watermarks().local_start.0 == 50).await;
    moods.set(Mood::Silent);
    let begun = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..600)
        .map(|_| {
            let (lake, begun) = (node.lake.clone(), begun.clone());
            tokio::spawn(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                lake.read("readings", 0, Offset(0), 1).await
            })
        })
        .collect();
    eventually("the readers", || begun.load(Ordering::SeqCst) == readers.len()).await;
    let other = tokio::time::timeout(Duration::from_secs(10), tokio::task::spawn_blocking(|| ())).await;
    other.expect("no thread is left").expect("no panic");
    // Those that came when too many were waiting know at once.
    eventually("an answer", || readers.iter().any(|reader| reader.is_finished())).await;
    let refused = readers.iter().position(|reader| reader.is_finished()).expect("one");
    for (n, reader) in readers.into_iter().enumerate() {
        if n == refused {
            let error = reader.await.expect("no panic").expect_err("no answer").to_string();
            assert!(error.contains("too many"), "{error}");
        } else {
            reader.abort();
        }
    }
    moods.set(Mood::Works);
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = node.lake.read("readings", 0, Offset(0), 1).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_or_no_longer_offloaded_is_failing_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, moods) = start_moody(folder.path()).await;
    moods.set(Mood::Fails);
    let topic = node.readings(0..50).await;
    topic.partitions[0].roll().await.expect("rolled");
    let failing = || metric(&node, "forebay_lake_failing_since_seconds");
    eventually("a failure", || failing().is_some_and(|since| since > 0.0)).await;
    let off = TopicConfig { remote_storage_enable: false, ..config() };
    node.log.alter_topic("readings", off).await.expect("altered");
    eventually("rest", || failing().is_none()).await;
    node.log.alter_topic("readings", config()).await.expect("altered");
    eventually("a failure again", || failing().is_some_and(|since| since > 0.0)).await;
    node.log.delete_topic("readings").await.expect("deleted");
    eventually("the end", || failing().is_none() && metric(&node, "forebay_lake_lag_records").is_none()).await;
    node.stop().await;
}
