//! A full disk: appends are refused with the right code, nothing acked is lost, and it resumes by itself.
//!
//! Needs a small file system of its own, a tmpfs: root may mount it, others in a user namespace of their own. Where neither is
//! allowed it says so, and fails if `FOREBAY_REQUIRE_FULL_DISK` is set, as in `.ci/run`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use forebay_tests::kafka;
use forebay_tests::mqtt::{Client, Options, packet};
use forebay_tests::process::Node;
use kafka_protocol::records::Record;

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

/// Set when the test runs in a namespace of its own.
const NESTED: &str = "FOREBAY_FULL_DISK_NESTED";

/// Runs this test once more where this user is root; whether there is such a place.
fn run_as_root(name: &str) -> Result<bool> {
    let inside = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]).arg(command);
        unshare
    };
    let allowed = inside("true").output().is_ok_and(|done| done.status.success());
    if !allowed || env::var_os(NESTED).is_some() {
        return Ok(false);
    }
    let test = env::current_exe()?;
    let done = inside(&test.to_string_lossy()).args([name, "--exact", "--nocapture"]).env(NESTED, "1").status()?;
    ensure!(done.success(), "the test failed in a user namespace");
    Ok(true)
}

fn of_client(record: &Record, client: &[u8]) -> bool {
    record.headers.iter().any(|(name, value)| &**name == "mqtt.client" && value.as_deref() == Some(client))
}

/// Publishes retained messages until one is refused; its payload.
fn refused_retained(client: &mut Client) -> Result<Vec<u8>> {
    for number in 0..50u16 {
        let payload = format!("{number} {}", "r".repeat(8000)).into_bytes();
        let id = 60_001 + number;
        client.send(&client.publish_bytes("plant/state", 1, id, false, true, &payload))?;
        let ack = client.receive()?;
        ensure!(ack.kind() == 4 && ack.id() == id, "expected a PUBACK, got {ack:?}");
        if ack.reason() == QUOTA_EXCEEDED {
            return Ok(payload);
        }
    }
    bail!("the full disk takes retained messages")
}

#[test]
fn a_full_disk_refuses_and_resumes_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("disk");
    let Some(_mounted) = SmallDisk::mount(&disk, "32m") else {
        if run_as_root("a_full_disk_refuses_and_resumes_by_itself")? {
            return Ok(());
        }
        let why = "this user may not mount a tmpfs, so there is no small disk to fill";
        ensure!(env::var_os("FOREBAY_REQUIRE_FULL_DISK").is_none(), "{why}");
        println!("SKIPPED: {why}");
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
    // A 3.1.1 client that never asks for an ack: nothing tells it to connect again.
    let (mut simple, _) = Client::connect(node.address("mqtt"), Options::v4("z1"))?;

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
    let unasked = simple.publish_bytes("plant/b", 0, 0, false, false, &[b'y'; 8000]);
    simple.send(&unasked.repeat(20))?;
    simple.ping()?;
    let (mut keeper, _) = Client::connect(node.address("mqtt"), Options::v5("r1"))?;
    let refused = refused_retained(&mut keeper)?;
    let (mut late, _) = Client::connect(node.address("mqtt"), Options::v5("late"))?;
    late.subscribe("plant/state", 1)?;
    late.send(&packet(0xc0, &[]))?;
    loop {
        let next = late.receive()?;
        match next.kind() {
            3 => assert!(next.publish(true).2 != refused, "refused and kept all the same"),
            13 => break,
            _ => {}
        }
    }

    fs::remove_file(&ballast)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while publish(&mut meter, &mut acked)? != 0 {
        ensure!(Instant::now() < deadline, "appends do not resume after space returned");
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..20 {
        assert_eq!(publish(&mut meter, &mut acked)?, 0);
    }
    simple.publish("plant/b", 0, 0, b"again")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !client.read_all("mqtt", 0)?.iter().any(|record| record.value.as_deref() == Some(b"again")) {
        ensure!(Instant::now() < deadline, "what comes without asking for an ack is not stored any more");
        std::thread::sleep(Duration::from_millis(100));
    }
    node.kill()?;
    node.restart()?;
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    let found: Vec<u32> = client
        .read_all("mqtt", 0)?
        .iter()
        .filter(|record| of_client(record, b"m1"))
        .map(|record| {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            Ok(value.split(' ').next().unwrap_or_default().parse()?)
        })
        .collect::<Result<_>>()?;
    assert_eq!(found, acked, "exactly what was acked, in order");
    Ok(())
}
