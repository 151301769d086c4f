//! What a damaged disk does: flipped bytes are found, named and never served, and cost their partition only.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use forebay_tests::kafka::Client;
use forebay_tests::process::{Node, eventually};
use kafka_protocol::records::Compression;

const CORRUPT_MESSAGE: i16 = 2;

fn segments(node: &Node, partition: &str) -> Result<Vec<PathBuf>> {
    let mut segments: Vec<PathBuf> = fs::read_dir(node.data_dir().join("log").join(partition))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    Ok(segments)
}

fn fill(client: &mut Client, partition: i32, batches: usize) -> Result<()> {
    for batch in 0..batches {
        let value = Bytes::from(format!("{{\"batch\":{batch},\"pad\":\"{}\"}}", "x".repeat(700)));
        let records: Vec<_> = (0..10).map(|_| (Bytes::from_static(b"k"), value.clone())).collect();
        let (error, _) = client.produce("readings", partition, &records, Compression::None)?;
        assert_eq!(error, 0);
    }
    Ok(())
}

fn start(dir: &std::path::Path) -> Result<Node> {
    let sets = [
        "topics.readings.num.partitions=2",
        "topics.readings.segment.bytes=64KiB",
        "topics.readings.remote.storage.enable=false",
    ];
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    Node::start(dir, &args)
}

#[test]
fn flipped_bytes_in_a_closed_segment_are_never_served() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = start(dir.path())?;
    let mut client = Client::connect(node.address("kafka"))?;
    fill(&mut client, 0, 40)?;
    fill(&mut client, 1, 5)?;
    assert!(node.terminate()?.success());
    let first = segments(&node, "readings-0")?.first().cloned().context("no segment")?;
    let mut bytes = fs::read(&first)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&first, &bytes)?;
    node.restart()?;

    let mut client = Client::connect(node.address("kafka"))?;
    let end = client.offset("readings", 0, -1)?;
    assert_eq!(end, 400, "later records are still there");
    let (mut next, mut served, mut refused) = (0, 0, 0);
    while next < end {
        let fetched = client.fetch("readings", 0, next, 0)?;
        match fetched.error {
            0 => {
                served += fetched.records.len();
                assert!(!fetched.records.is_empty(), "nothing at {next}");
                next = fetched.records.last().map_or(next, |record| record.offset) + 1;
            }
            CORRUPT_MESSAGE => {
                refused += 1;
                next += 1;
            }
            other => anyhow::bail!("error {other} at {next}"),
        }
    }
    assert_eq!((served, refused), (390, 10), "exactly the damaged batch is refused");
    let name = first.file_name().and_then(|name| name.to_str()).context("name")?.to_owned();
    let log = node.log();
    assert!(
        log.lines().any(|line| line.contains(&name) && line.contains("corrupt")),
        "the log does not name {name}:\n{log}"
    );
    assert_eq!(client.read_all("readings", 1)?.len(), 50, "the other partition is untouched");
    fill(&mut client, 0, 1)?;
    assert_eq!(client.fetch("readings", 0, 400, 0)?.records.len(), 10);
    Ok(())
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_batch() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = start(dir.path())?;
    let mut client = Client::connect(node.address("kafka"))?;
    fill(&mut client, 0, 5)?;
    node.kill()?;
    let active = segments(&node, "readings-0")?.last().cloned().context("no segment")?;
    let whole = fs::metadata(&active)?.len();
    // Half of another batch, as a power cut in the middle of a write leaves it.
    let mut bytes = fs::read(&active)?;
    let torn = bytes[..5000].to_vec();
    bytes.extend(torn);
    fs::write(&active, &bytes)?;
    node.restart()?;
    let mut client = Client::connect(node.address("kafka"))?;
    assert_eq!(client.read_all("readings", 0)?.len(), 50);
    fill(&mut client, 0, 1)?;
    assert_eq!(client.read_all("readings", 0)?.len(), 60);
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(fs::metadata(&active)?.len() > whole, "appended after the cut");
        Ok(())
    })
}
