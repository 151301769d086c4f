//! Group commit: many appends share a sync, failures are refused and never seen, back-pressure instead of memory.

use std::sync::Arc;

use super::common::{chunk, open_on as open, values};
use forebay_disk::sim::{Faults, HookedFiles, SimFiles};
use forebay_disk::{AppendData, Chain, Files, LogError, NewTopic, RealFiles};
use forebay_log::{AppendError, TopicConfig};

#[tokio::test(flavor = "multi_thread")]
async fn one_commit_covers_many_clients_and_partitions() {
    let files = SimFiles::new(1);
    let log = open(Arc::new(files.clone()), true);
    let topic = log.create_topic("t", 4, TopicConfig::default()).await.unwrap();
    for partition in &topic.partitions {
        partition.append(AppendData::Chunk(chunk(&["first"]))).await.unwrap();
    }
    let before = files.syncs();
    let mut tickets = Vec::new();
    for n in 0..2000 {
        let chunk = chunk(&[&n.to_string()]);
        tickets.push(topic.partitions[n % 4].submit(AppendData::Chunk(chunk)).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let syncs = files.syncs() - before;
    assert!(syncs < 1000, "{syncs} syncs for 2000 appends");
    for (index, partition) in topic.partitions.iter().enumerate() {
        let expected: Vec<String> = (0..500).map(|n| (n * 4 + index).to_string()).collect();
        assert_eq!(values(partition)[1..], expected, "in the order of submission");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fsync_nothing_is_synced_for_an_append_and_a_clean_stop_keeps_all() {
    let files = SimFiles::new(1);
    let log = open(Arc::new(files.clone()), false);
    let topic = log.create_topic("t", 1, TopicConfig::default()).await.unwrap();
    topic.partitions[0].append(AppendData::Chunk(chunk(&["a"]))).await.unwrap();
    let before = files.syncs();
    topic.partitions[0].append(AppendData::Chunk(chunk(&["b"]))).await.unwrap();
    assert_eq!(files.syncs(), before);
    drop((log, topic));
    files.crash();
    let log = open(Arc::new(files), false);
    assert_eq!(values(&log.topic("t").unwrap().partitions[0]), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_failing_writes_and_syncs_each_record_is_kept_or_refused_and_a_restart_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let flaky =
        |seed| Arc::new(HookedFiles::flaky(RealFiles::open(dir.path()).unwrap(), "", 10, seed)) as Arc<dyn Files>;
    let mut kept = Vec::new();
    for life in 0..3 {
        let log = open(flaky(life), true);
        let topic = match log.topic("t") {
            Some(topic) => topic,
            None => log.create_topic("t", 1, TopicConfig::default()).await.unwrap(),
        };
        let partition = Arc::clone(&topic.partitions[0]);
        for n in 0..300 {
            let value = format!("{life}.{n}");
            match partition.append(AppendData::Chunk(chunk(&[&value]))).await {
                Ok(_) => kept.push(value),
                Err(error) => assert!(matches!(error, AppendError::Storage(_) | AppendError::Offline(_)), "{error}"),
            }
            if n % 100 == 0 {
                let _ = partition.roll().await;
            }
        }
        assert_eq!(values(&partition), kept, "life {life}");
    }
    assert!(kept.len() > 700, "{}", kept.len());
    let log = open(RealFiles::open(dir.path()).unwrap(), true);
    assert_eq!(values(&log.topic("t").unwrap().partitions[0]), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_answers_and_its_name_starts_anew() {
    let files = SimFiles::new(3);
    let log = open(Arc::new(files.clone()), true);
    let old = log.create_topic("t", 2, TopicConfig::default()).await.unwrap();
    old.partitions[0].append(AppendData::Chunk(chunk(&["old"]))).await.unwrap();
    log.delete_topic("t").await.unwrap();
    assert!(old.partitions[0].append(AppendData::Chunk(chunk(&["late"]))).await.is_err());
    let new = log.create_topic("t", 1, TopicConfig::default()).await.unwrap();
    assert_ne!(new.id, old.id);
    new.partitions[0].append(AppendData::Chunk(chunk(&["new"]))).await.unwrap();
    drop((log, old, new));
    files.crash();
    let log = open(Arc::new(files), true);
    assert_eq!(values(&log.topic("t").unwrap().partitions[0]), ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_a_crash_interrupts_is_finished_at_the_next_start() {
    for stop in 0..12 {
        let files = SimFiles::new(stop);
        let log = open(Arc::new(files.clone()), true);
        log.create_topic("t", 2, TopicConfig::default()).await.unwrap();
        files.set_faults(Faults { stop_after: Some(stop), ..Faults::default() });
        let deleted = log.delete_topic("t").await.is_ok();
        drop(log);
        files.crash();
        let log = open(Arc::new(files.clone()), true);
        let there = log.topic("t").is_some();
        assert!(!(deleted && there), "stop {stop}: an acknowledged deletion holds");
        let dirs = files.list(std::path::Path::new("log")).unwrap();
        let partitions = dirs.iter().filter(|name| name.to_string_lossy().contains("t-0")).count();
        assert_eq!(partitions, usize::from(there), "stop {stop}: {dirs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_made_together_are_all_there_after_a_crash_or_none() {
    let new = |name: &str| NewTopic { name: name.to_owned(), partitions: 2, config: TopicConfig::default() };
    for stop in 0..40 {
        let files = SimFiles::new(stop);
        let log = open(Arc::new(files.clone()), true);
        files.set_faults(Faults { stop_after: Some(stop), ..Faults::default() });
        let made = log.create_topics(["b", "a", "c"].map(new).to_vec()).await.is_ok();
        drop(log);
        files.crash();
        let log = open(Arc::new(files.clone()), true);
        let names: Vec<String> = log.topics().keys().cloned().collect();
        assert!(names == ["a", "b", "c"] || !made && names.is_empty(), "stop {stop}: made {made}, found {names:?}");
        for name in &names {
            let path = format!("log/{name}-1/partition.metadata");
            let tells = files.contents().iter().any(|(at, text)| at.as_os_str() == path.as_str() && text.len() > 30);
            assert!(tells, "stop {stop}: {path}");
        }
        // What was begun does not stand in the way.
        if names.is_empty() {
            log.create_topics(["b", "a", "c"].map(new).to_vec()).await.unwrap();
        }
        assert!(
            matches!(log.create_topics(vec![new("d"), new("a")]).await, Err(LogError::TopicExists(name)) if name == "a")
        );
        assert!(log.topic("d").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_chain_overtakes_what_was_refused() {
    for seed in 0..20 {
        let files = SimFiles::new(seed);
        let log = open(Arc::new(files.clone()), true);
        let topic = log.create_topic("t", 1, TopicConfig::default()).await.unwrap();
        let partition = &topic.partitions[0];
        files.set_faults(Faults { sync_per_mille: 300, ..Faults::default() });
        let chain = Chain::new();
        let mut tickets = Vec::new();
        for n in 0..200 {
            tickets.push(partition.submit_chained(&chain, true, AppendData::Chunk(chunk(&[&n.to_string()]))).await);
        }
        let mut refused = false;
        for ticket in tickets {
            let kept = match ticket {
                Ok(ticket) => ticket.await.is_ok(),
                Err(_) => false,
            };
            assert!(!(refused && kept), "seed {seed}");
            refused |= !kept;
        }
        files.set_faults(Faults::default());
        if refused {
            let late = partition.submit_chained(&chain, true, AppendData::Chunk(chunk(&["late"]))).await;
            assert!(late.is_err(), "a broken chain stays broken");
        }
    }
}
