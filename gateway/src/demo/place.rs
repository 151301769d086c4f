//! Where a demo lives: its own directory with configuration and rules in it, and ports that are free.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The file that says that a directory was made by a demo and may be made anew.
const MARKER: &str = ".forebay-demo";
/// Taken by a node that runs on the directory.
const LOCK: &str = ".lock";
/// The rules of the demo: the examples that fire on the embedded readings, and where their alerts go.
const RULES: [(&str, &str); 4] = [
    ("rules/voltage.yaml", include_str!("../../../examples/rules/voltage.yaml")),
    ("rules/load.yaml", include_str!("../../../examples/rules/load.yaml")),
    ("rules/contracts.csv", include_str!("../../../examples/rules/contracts.csv")),
    ("rules/receivers.yaml", RECEIVERS),
];
const RECEIVERS: &str = "# Where firing and resolved alerts go, besides the topic _alerts.\n\
    receivers:\n- mqtt: {topic: \"alerts/{{ alertname }}/{{ meter }}\"}\n";

/// A prepared directory.
#[derive(Debug)]
pub(super) struct Place {
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) config: PathBuf,
}

/// Makes `dir` anew, with a configuration and rules. A directory that holds anything else is left alone.
///
/// # Errors
/// A directory that no demo made, that a running node uses, or that cannot be written.
pub(super) fn prepare(dir: &Path) -> anyhow::Result<Place> {
    if dir.exists() {
        clear(dir)?;
    }
    let failed = || format!("cannot make {}", dir.display());
    fs::create_dir_all(dir.join("rules")).with_context(failed)?;
    let dir = dir.canonicalize().with_context(failed)?;
    let place = Place { config: dir.join("forebay.toml"), dir };
    let write = |name: &str, text: &str| {
        let path = place.dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(MARKER, "Made by `forebay demo`, which makes this directory anew at each start.\n")?;
    for (name, text) in RULES {
        write(name, text)?;
    }
    write("forebay.toml", &config(&place.dir))?;
    Ok(place)
}

fn clear(dir: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot use {}", dir.display());
    let entries = fs::read_dir(dir).with_context(failed)?.collect::<Result<Vec<_>, _>>().with_context(failed)?;
    if entries.is_empty() {
        return Ok(());
    }
    if !dir.join(MARKER).exists() {
        bail!(
            "{} is not empty and was not made by a demo\nname another directory with --data-dir, or remove this one",
            dir.display()
        );
    }
    if let Ok(lock) = fs::File::open(dir.join(LOCK))
        && lock.try_lock().is_err()
    {
        bail!("another forebay is running on {}\nstop it, or name another directory with --data-dir", dir.display());
    }
    for entry in entries {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Segments are so small that they are cold within seconds; nothing expires, for the readings are years old.
fn config(dir: &Path) -> String {
    let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let [mqtt, kafka, http] = [1883, 9092, 8080].map(free_tcp);
    let quic = free_udp(14567);
    format!(
        r#"# Made by `forebay demo`. A node with the same data: forebay serve --config {config}
[node]
data_dir = {data_dir}

[listeners]
mqtt = "{mqtt}"
quic = "{quic}"
kafka = "{kafka}"
http = "{http}"

[object_store]
url = {url}

[topics.readings]
num.partitions = 4
segment.bytes = "64KiB"
segment.ms = "3s"
retention.ms = -1
local.retention.ms = "5s"
lake.commit.interval.ms = "1s"

[[routes]]
filter = "meters/+/readings"
topic = "readings"
key = "{{1}}"
timestamp = "/ts"

[alerts]
rules = ["rules/*.yaml"]
"#,
        config = dir.join("forebay.toml").display(),
        data_dir = quoted(dir),
        url = toml::Value::from(format!("file:{}", dir.join("lake").display())),
    )
}

/// The usual port when it is free, otherwise one that is free now, so that the configuration keeps its ports.
fn free_tcp(port: u16) -> SocketAddr {
    let bound = TcpListener::bind(local(port)).or_else(|_| TcpListener::bind(local(0)));
    bound.and_then(|listener| listener.local_addr()).unwrap_or(local(0))
}

/// As [`free_tcp`] for UDP.
fn free_udp(port: u16) -> SocketAddr {
    let bound = UdpSocket::bind(local(port)).or_else(|_| UdpSocket::bind(local(0)));
    bound.and_then(|socket| socket.local_addr()).unwrap_or(local(0))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn temporary() -> tempfile::TempDir {
        tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_configuration_written_is_one_that_the_program_takes() {
        let dir = temporary();
        let place = prepare(&dir.path().join("demo \"quoted\"")).unwrap_or_else(|error| panic!("{error:#}"));
        let config = Config::load(&Sources { file: Some(place.config), ..Sources::default() });
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.node.data_dir, place.dir);
        assert_eq!(config.topics["readings"].config.retention_ms, None);
        assert_eq!(config.alerts.rules.len(), 1);
    }

    #[test]
    fn a_demos_own_directory_is_made_anew() {
        let dir = temporary();
        let demo = dir.path().join("demo");
        assert!(prepare(&demo).is_ok());
        assert!(fs::create_dir_all(demo.join("log/readings-0")).is_ok());
        assert!(prepare(&demo).is_ok());
        assert!(!demo.join("log").exists());
    }

    #[test]
    fn a_directory_that_no_demo_made_is_left_alone() {
        let dir = temporary();
        assert!(fs::write(dir.path().join("thesis.txt"), "years of work").is_ok());
        let error = prepare(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("was not made by a demo"), "{error}");
        assert!(dir.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let dir = temporary();
        let demo = dir.path().join("demo");
        assert!(prepare(&demo).is_ok());
        let lock = fs::File::create(demo.join(LOCK)).unwrap_or_else(|error| panic!("{error}"));
        assert!(lock.lock().is_ok());
        let error = prepare(&demo).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("another forebay"), "{error}");
    }
}
