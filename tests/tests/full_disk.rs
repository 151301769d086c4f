//! A full disk: appends are refused with the right code, nothing acked is lost, and it resumes by itself.
//!
//! Needs a small file system of its own, a tmpfs, which only root (or a user namespace) may mount; elsewhere it says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use forebay_tests::kafka;
use forebay_tests::mqtt::{Client, Options};
use forebay_tests::process::Node;

/// A mounted tmpfs, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        fs::create_dir_all(at).ok()?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()
            .ok()?;
        done.status.success().then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const QUOTA_EXCEEDED: u8 = 0x97;

#[test]
fn a_full_disk_refuses_and_resumes_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("disk");
    let Some(_mounted) = SmallDisk::mount(&disk, "32m") else {
        println!("SKIPPED: this user may not mount a tmpfs, so there is no small disk to fill");
        return Ok(());
    };
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0u8; 6 << 20])?;
    let sets = [
        "topic_defaults.num.partitions=1",
        "topic_defaults.segment.bytes=1MiB",
        "topic_defaults.remote.storage.enable=false",
        "topic_defaults.compression.type=none",
    ];
    let mut node = Node::start(&disk, &sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>())?;
    let (mut meter, _) = Client::connect(node.address("mqtt"), Options::v5("m1"))?;

    let mut acked = Vec::new();
    let mut seq = 0u32;
    let mut publish = |meter: &mut Client, acked: &mut Vec<u32>| -> Result<u8> {
        let payload = format!("{seq} {}", "x".repeat(8000));
        let reason = meter.publish("plant/a", 1, (seq % 60_000) as u16 + 1, payload.as_bytes())?;
        if reason == 0 {
            acked.push(seq);
        }
        seq += 1;
        Ok(reason)
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let refusal = loop {
        let reason = publish(&mut meter, &mut acked)?;
        if reason != 0 {
            break reason;
        }
        ensure!(Instant::now() < deadline, "the disk never filled");
    };
    assert_eq!(refusal, QUOTA_EXCEEDED, "PUBACK of a full disk");
    ensure!(acked.len() > 500, "only {} readings fitted", acked.len());
    // Still alive: it answers pings, serves reads, takes sessions (the reserve), and refuses without lying.
    meter.ping()?;
    let (persistent, _) = Client::connect(node.address("mqtt"), Options::v5("p1").persistent())?;
    persistent.disconnect()?;
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    assert_eq!(client.read_all("mqtt", 0)?.len(), acked.len());
    let refused = (0..20).map(|_| publish(&mut meter, &mut acked)).collect::<Result<Vec<u8>>>()?;
    assert!(refused.contains(&QUOTA_EXCEEDED), "{refused:?}");

    fs::remove_file(&ballast)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while publish(&mut meter, &mut acked)? != 0 {
        ensure!(Instant::now() < deadline, "appends do not resume after space returned");
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..20 {
        assert_eq!(publish(&mut meter, &mut acked)?, 0);
    }
    node.kill()?;
    node.restart()?;
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    let found: Vec<u32> = client
        .read_all("mqtt", 0)?
        .iter()
        .map(|record| {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            Ok(value.split(' ').next().unwrap_or_default().parse()?)
        })
        .collect::<Result<_>>()?;
    assert_eq!(found, acked, "exactly what was acked, in order");
    Ok(())
}
