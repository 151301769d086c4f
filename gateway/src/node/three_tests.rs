//! What tests of several nodes in one process share: where the nodes are, how they start, and how one dies.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::{Node, open_data_dir};
use crate::config::{Config, Sources};

/// How long three nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports for the links: each node must know those of the others before they are bound, so that nobody holds them meanwhile. They lie
/// below those that systems hand out by themselves (32768 and on), so that no other socket gets one in between.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Tests of several processes begin at different places.
    let first = u16::try_from(std::process::id() % u32::from(span)).unwrap_or(0);
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < span, "no port is free");
        let port =
            PORTS.start + u16::try_from((u32::from(first) * 37 + u32::from(taken)) % u32::from(span)).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Nodes that there may be; the first three begin the cluster.
const MOST: usize = 5;

/// The directories of the nodes, one store for all, and the addresses at which they reach each other.
pub(super) struct Places {
    folders: Vec<tempfile::TempDir>,
    lake: tempfile::TempDir,
    links: Vec<String>,
}

impl Places {
    pub(super) fn new() -> Places {
        Places {
            folders: (0..MOST).map(|_| tempfile::tempdir().unwrap()).collect(),
            lake: tempfile::tempdir().unwrap(),
            links: (0..MOST).map(|_| format!("127.0.0.1:{}", free_port())).collect(),
        }
    }

    /// Where the lake is.
    pub(super) fn lake(&self) -> &Path {
        self.lake.path()
    }

    /// Starts a node, or starts it again: every door on a port of its own, and what `more` says.
    pub(super) async fn open(&self, id: i32, more: &[String]) -> Node {
        let ports = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=127.0.0.1:0"));
        let place = usize::try_from(id).unwrap() - 1;
        let peers: Vec<String> = (1..=3).zip(&self.links).map(|(id, at)| format!("{id}@{at}")).collect();
        let own = [
            format!("node.id={id}"),
            format!("cluster.peers={}", peers.join(",")),
            format!("listeners.cluster={}", self.links[place]),
            format!("object_store.url=file:{}", self.lake().display()),
        ];
        let set = ports.into_iter().chain(own).chain(more.iter().cloned()).collect();
        let data_dir = Some(self.folders[place].path().to_path_buf());
        let config = Config::load(&Sources { set, data_dir, ..Sources::default() }).unwrap();
        let start = tokio::spawn(async move {
            // The tasks of a node before this one let go of the directory when they next run.
            let files = loop {
                match open_data_dir(&config) {
                    Ok(files) => break files,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            Node::start(config, files).await.unwrap()
        });
        tokio::time::timeout(PATIENCE, start).await.expect("it starts in time").unwrap()
    }

    /// Starts the first three, by id.
    pub(super) async fn open_all(&self, more: impl Fn(i32) -> Vec<String>) -> BTreeMap<i32, Node> {
        let [one, two, three] = [1, 2, 3].map(more);
        let (one, two, three) = tokio::join!(self.open(1, &one), self.open(2, &two), self.open(3, &three));
        BTreeMap::from([(1, one), (2, two), (3, three)])
    }
}

/// It says nothing to anybody any more.
pub(super) async fn kill(mut node: Node) {
    node.doors.abort_all();
    node.http.abort_all();
    node.gateway.shutdown.cancel();
    node.services.cancel();
    let log = node.gateway.log.clone();
    log.cluster().unwrap().shutdown(Duration::ZERO).await;
    tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
}
