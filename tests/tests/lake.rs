//! The cold tier: old offsets come from Parquet, the table holds each record once, payloads of any kind survive.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use forebay_tests::kafka::Client;
use forebay_tests::process::{Node, eventually};
use forebay_tests::{http, lake};
use kafka_protocol::records::Compression;
use parquet::record::Field;

const SETS: &[&str] = &[
    "topics.readings.num.partitions=2",
    "topics.readings.segment.bytes=64KiB",
    "topics.readings.local.retention.bytes=4KiB",
    "topics.readings.lake.commit.interval.ms=200ms",
];

fn start(dir: &std::path::Path) -> Result<Node> {
    Node::start(dir, &SETS.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>())
}

fn flush(node: &Node) -> Result<()> {
    let answer = http::request(node.address("http"), "POST", "/api/v1/lake/flush?topic=readings", "")?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(())
}

/// Payloads a meter, a careless developer and a broken gateway may send.
fn payload(n: usize) -> Vec<u8> {
    match n % 10 {
        0 => format!("{{\"seq\":{n},\"meter\":\"m1\",\"ts\":\"2013-02-04T00:30:00Z\",\"kwh\":{n}.25}}").into_bytes(),
        1 => format!("{{\"seq\":{n},\"meter\":\"m2\",\"nested\":{{\"a\":1,\"b\":[1,2,3]}}}}").into_bytes(),
        2 => format!("{{ \"seq\" : {n} , \"meter\": \"m3\", \"kwh\": 1e3 }}").into_bytes(),
        3 => b"not json at all".to_vec(),
        4 => format!("{{\"seq\":{n},\"kwh\":\"a string now\"}}").into_bytes(),
        5 => vec![0xff, 0xfe, 0x00, n as u8],
        6 => format!("{{\"seq\":{n},\"_offset\":7,\"ok\":true,\"gone\":null}}").into_bytes(),
        7 => b"[1,2,3]".to_vec(),
        8 => format!("{{\"seq\":{n},\"field_{}\":{}}}", n / 10 % 5, n).into_bytes(),
        _ => Vec::new(),
    }
}

#[test]
fn cold_offsets_read_as_they_were_written() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = start(dir.path())?;
    let mut client = Client::connect(node.address("kafka"))?;
    let pad = "p".repeat(400);
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for batch in 0..60 {
        let values: Vec<Vec<u8>> = (0..20)
            .map(
                |n| if n == 0 { format!("{{\"pad\":\"{pad}{batch}\"}}").into_bytes() } else { payload(batch * 20 + n) },
            )
            .collect();
        let records: Vec<_> =
            values.iter().map(|value| (Bytes::from(format!("key-{batch}")), Bytes::from(value.clone()))).collect();
        assert_eq!(client.produce("readings", 0, &records, Compression::Zstd)?.0, 0);
        expected.extend(values);
    }
    flush(&node)?;
    // The local copy goes once the segments are in the lake: then the Parquet is all there is of the beginning.
    eventually(Duration::from_secs(30), || {
        let local = client.offset("readings", 0, -4)?;
        ensure!(local > 100, "the local log still starts at {local}");
        Ok(())
    })?;
    for restart in [false, true] {
        if restart {
            node.kill()?;
            node.restart()?;
            client = Client::connect(node.address("kafka"))?;
        }
        let read = client.read_all("readings", 0)?;
        assert_eq!(read.len(), expected.len());
        for (record, value) in read.iter().zip(&expected) {
            assert_eq!(record.value.as_deref(), Some(value.as_slice()), "offset {}", record.offset);
            let key = format!("key-{}", record.offset / 20);
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
            assert_eq!(record.timestamp, 1_360_000_000_000 + record.offset % 20);
        }
        assert_eq!(client.offset("readings", 0, -2)?, 0, "the log still starts at 0");
        assert_eq!(client.fetch("readings", 0, 37, 0)?.records.first().context("none")?.offset, 37);
    }
    let rows = lake::rows(&node.lake_dir().join("readings"))?;
    lake::check_complete(&rows, &BTreeMap::from([(0, expected.len() as i64)]))?;
    for row in &rows {
        let sent = &expected[row.offset as usize];
        if let Some(kept) = &row.value {
            assert_eq!(kept, sent, "offset {}", row.offset);
        }
        let malformed = serde_json::from_slice::<serde_json::Value>(sent).map_or(true, |json| !json.is_object());
        if malformed {
            assert!(row.error.is_some() && row.value.is_some(), "offset {}: {row:?}", row.offset);
        }
    }
    let clean = rows.iter().find(|row| row.offset % 20 == 10).context("row")?;
    assert!(matches!(clean.columns.get("seq"), Some(Field::Long(_))), "{:?}", clean.columns);
    assert!(clean.value.is_none(), "typed columns reproduce a plain payload");
    let collided = rows.iter().find(|row| row.offset % 10 == 6).context("row")?;
    assert!(collided.columns.contains_key("_offset_"), "{:?}", collided.columns.keys());
    Ok(())
}

#[test]
fn verify_proves_agreement_and_notices_a_missing_object() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = start(dir.path())?;
    let mut client = Client::connect(node.address("kafka"))?;
    for batch in 0..30 {
        let records: Vec<_> =
            (0..20).map(|n| (Bytes::from_static(b"k"), Bytes::from(payload(batch * 20 + n)))).collect();
        assert_eq!(client.produce("readings", 1, &records, Compression::None)?.0, 0);
    }
    flush(&node)?;
    let verify = |expected: bool| -> Result<String> {
        let mut command = forebay_tests::process::forebay()?;
        command.args(["lake", "verify", "readings", "--url", &format!("http://{}", node.address("http"))]);
        let output = command.output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() == expected, "{text}");
        Ok(text)
    };
    verify(true)?;
    let (_, files) = lake::files(&node.lake_dir().join("readings"))?;
    let victim = node.lake_dir().join("readings").join(files.first().context("no file")?);
    std::fs::remove_file(&victim).with_context(|| victim.display().to_string())?;
    let text = verify(false)?;
    let name = victim.file_name().and_then(|name| name.to_str()).context("name")?;
    assert!(text.contains(name), "{name} is not named in: {text}");
    Ok(())
}
