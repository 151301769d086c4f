//! kill -9 under load, again and again: whatever was acknowledged is there once and in order, in the log and in the lake.
//!
//! `FOREBAY_CRASH_ROUNDS` sets the number of kills (default 5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use forebay_tests::meter::{self, Plan};
use forebay_tests::process::{Node, eventually};
use forebay_tests::{audit, http, kafka, lake, readings};
use kafka_protocol::records::Compression;

const PARTITIONS: i32 = 4;

fn rounds() -> usize {
    std::env::var("FOREBAY_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

/// A Kafka producer with acks=all that never resends: values acknowledged, and values in doubt.
fn produce(address: std::net::SocketAddr, stop: &AtomicBool) -> (Vec<u64>, Vec<u64>) {
    let (mut acked, mut doubt) = (Vec::new(), Vec::new());
    let mut next = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = kafka::Client::connect(address) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let batch: Vec<u64> = (next..next + 20).collect();
            next += 20;
            let records: Vec<(Bytes, Bytes)> =
                batch.iter().map(|n| (Bytes::from_static(b"app"), Bytes::from(format!("{{\"n\":{n}}}")))).collect();
            match client.produce("app", 0, &records, Compression::Lz4) {
                Ok((0, _)) => acked.extend(batch),
                _ => {
                    doubt.extend(batch);
                    break;
                }
            }
        }
    }
    (acked, doubt)
}

#[test]
fn acked_readings_survive_kill_9_under_load() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("forebay.toml");
    std::fs::write(
        &config,
        format!(
            "[topic_defaults]\nsegment.bytes = \"128KiB\"\nlocal.retention.bytes = \"256KiB\"\nlake.commit.interval.ms = \"300ms\"\n\
             [topics.readings]\nnum.partitions = {PARTITIONS}\n[topics.app]\nnum.partitions = 1\n\
             [[routes]]\nfilter = \"meters/+/readings\"\ntopic = \"readings\"\nkey = \"{{1}}\"\ntimestamp = \"/ts\"\n"
        ),
    )?;
    let mut node = Node::start(dir.path(), &["--config", &config.display().to_string()])?;
    let london = readings::london()?;
    let mut meters: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for reading in london {
        meters.entry(reading.meter.clone()).or_default().push(reading);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let fleet: Vec<_> = meters
        .into_iter()
        .take(24)
        .enumerate()
        .map(|(index, (meter, readings))| {
            let qos = if index % 3 == 0 { 2 } else { 1 };
            let plan = Plan { address: node.address("mqtt"), qos, window: 20, stop: Arc::clone(&stop) };
            std::thread::spawn(move || meter::run(&plan, &meter, &readings))
        })
        .collect();
    let producer = {
        let (stop, address) = (Arc::clone(&stop), node.address("kafka"));
        std::thread::spawn(move || produce(address, &stop))
    };

    let rounds = rounds();
    for round in 0..rounds {
        // Kills at ever different moments of the commit, roll and offload cycles.
        std::thread::sleep(Duration::from_millis(300 + (round as u64 * 137) % 900));
        node.kill()?;
        node.restart().with_context(|| format!("round {round}"))?;
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let accounts: Vec<_> = fleet
        .into_iter()
        .map(|meter| meter.join().map_err(|_| anyhow::anyhow!("a meter panicked"))?)
        .collect::<Result<_>>()?;
    let (app_acked, app_doubt) = producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?;
    let acked: usize = accounts.iter().map(|account| account.acked.len()).sum();
    ensure!(acked > rounds * 24, "too little load to mean anything: {acked} acks");
    node.kill()?;
    node.restart()?;

    let mut client = kafka::Client::connect(node.address("kafka"))?;
    let mut partitions = Vec::new();
    for partition in 0..PARTITIONS {
        partitions.push(client.read_all("readings", partition)?);
    }
    audit::check(&accounts, &audit::by_meter(&partitions)?)?;

    let app = client.read_all("app", 0)?;
    let mut seen = Vec::new();
    for record in &app {
        let json: serde_json::Value = serde_json::from_slice(record.value.as_ref().context("no value")?)?;
        seen.push(json["n"].as_u64().context("no n")?);
    }
    ensure!(seen.windows(2).all(|pair| pair[0] < pair[1]), "the application's records are doubled or out of order");
    ensure!(app_acked.iter().all(|n| seen.binary_search(n).is_ok()), "an acked produce was lost");
    ensure!(
        seen.iter().all(|n| app_acked.binary_search(n).is_ok() || app_doubt.binary_search(n).is_ok()),
        "a record that nobody sent"
    );

    check_lake(&node, &partitions, &accounts)?;
    println!(
        "{rounds} kills, {acked} readings acked, {} in doubt, {} batches of Kafka records acked",
        accounts.iter().map(|account| account.uncertain.len()).sum::<usize>(),
        app_acked.len() / 20
    );
    Ok(())
}

/// Everything that the log holds below the lake's lag is in the table once; with time the table reaches closed segments.
fn check_lake(
    node: &Node,
    partitions: &[Vec<kafka_protocol::records::Record>],
    accounts: &[meter::Account],
) -> Result<()> {
    let answer = http::request(node.address("http"), "POST", "/api/v1/lake/flush?topic=readings", "")?;
    ensure!(answer.status == 200, "flush: {} {}", answer.status, answer.body);
    let ends: BTreeMap<i32, i64> =
        partitions.iter().enumerate().map(|(index, records)| (index as i32, records.len() as i64)).collect();
    let rows = eventually(Duration::from_secs(60), || {
        let rows = lake::rows(&node.lake_dir().join("readings"))?;
        lake::check_complete(&rows, &ends)?;
        Ok(rows)
    })?;
    let mut by_offset: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    for row in &rows {
        by_offset.insert((row.partition, row.offset), row.seq()?);
    }
    let mut meters: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (partition, records) in partitions.iter().enumerate() {
        for record in records {
            let seq = by_offset[&(partition as i32, record.offset)];
            let meter = String::from_utf8_lossy(record.key.as_ref().context("no key")?).into_owned();
            meters.entry(meter).or_default().push(seq);
        }
    }
    audit::check(accounts, &meters)
}
