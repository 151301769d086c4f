//! A disk that fails one write or sync in a hundred: refusals, reconnects, but no false ack and no reordering.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forebay::config::{Config, Sources};
use forebay::node::{Node, open_data_dir};
use forebay_disk::sim::HookedFiles;
use forebay_tests::meter::{self, Account, Plan};
use forebay_tests::{audit, kafka, readings};

const PARTITIONS: i32 = 4;

fn config(dir: &Path) -> Result<Config> {
    let file = dir.join("forebay.toml");
    std::fs::write(
        &file,
        format!(
            "[node]\ndata_dir = \"{0}/data\"\n[object_store]\nurl = \"file:{0}/lake\"\n[listeners]\nmqtt = \"127.0.0.1:0\"\n\
             quic = \"off\"\nkafka = \"127.0.0.1:0\"\nhttp = \"off\"\n[topic_defaults]\nsegment.bytes = \"256KiB\"\n\
             [topics.readings]\nnum.partitions = {PARTITIONS}\n[[routes]]\nfilter = \"meters/+/readings\"\ntopic = \"readings\"\n\
             key = \"{{1}}\"\n",
            dir.display()
        ),
    )?;
    Ok(Config::load(&Sources { file: Some(file), ..Sources::default() })?)
}

/// Starts a node on a disk that fails; a start that meets a failure is tried again, as a supervisor would.
async fn start_flaky(dir: &Path) -> Result<Node> {
    let mut last = None;
    for seed in 0..50 {
        let config = config(dir)?;
        let files = Arc::new(HookedFiles::flaky(open_data_dir(&config)?, "", 10, seed));
        match Node::start(config, files).await {
            Ok(node) => return Ok(node),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no start was tried")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_write_in_a_hundred_costs_no_acked_reading() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir()?;
    let node = start_flaky(dir.path()).await?;
    let address = node.gateway.addresses.mqtt.context("no MQTT listener")?;
    let stop = Arc::new(AtomicBool::new(false));
    let london = readings::london()?;
    let fleet: Vec<_> = (0..12)
        .map(|index| {
            let meter = format!("flaky-{index}");
            let readings: Vec<_> = london
                .iter()
                .skip(index * 600)
                .take(600)
                .map(|reading| readings::Reading { meter: meter.clone(), ..reading.clone() })
                .collect();
            let qos = if index % 3 == 0 { 2 } else { 1 };
            let plan = Plan { address, qos, window: 10, stop: Arc::clone(&stop) };
            std::thread::spawn(move || meter::run(&plan, &meter, &readings))
        })
        .collect();
    // Long enough for hundreds of failures whatever the disk's speed.
    let partitions = node.gateway.log.topic("readings").context("no topic")?.partitions.clone();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let records: i64 = partitions.iter().map(|partition| partition.watermarks().high_watermark.0).sum();
        if records > 6_000 {
            break;
        }
        ensure!(Instant::now() < deadline, "only {records} records in two minutes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let join = move || -> Result<Vec<Account>> {
        fleet.into_iter().map(|meter| meter.join().map_err(|_| anyhow::anyhow!("a meter panicked"))?).collect()
    };
    let accounts = tokio::task::spawn_blocking(join).await??;
    let doubt: usize = accounts.iter().map(|account| account.uncertain.len()).sum();
    ensure!(doubt > 0, "no write failed, so nothing was tested");
    drop(partitions);
    node.drain().await;

    let config = config(dir.path())?;
    let files = open_data_dir(&config)?;
    let node = Node::start(config, files).await?;
    let address = node.gateway.addresses.kafka.context("no Kafka listener")?;
    let read = move || -> Result<Vec<_>> {
        let mut client = kafka::Client::connect(address)?;
        (0..PARTITIONS).map(|partition| client.read_all("readings", partition)).collect()
    };
    let records = tokio::task::spawn_blocking(read).await??;
    audit::check(&accounts, &audit::by_meter(&records)?)?;
    node.drain().await;
    Ok(())
}
