//! What tests of three nodes in one process share: where the nodes are, how they start, and how one dies.

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

/// The directories of three nodes and of one that may join them, one store for all, and the addresses at which they reach each other.
pub(super) struct Places {
    folders: Vec<tempfile::TempDir>,
    lake: tempfile::TempDir,
    peers: String,
    fourth: u16,
}

impl Places {
    pub(super) fn new() -> Places {
        let peers: Vec<String> = (1..=3).map(|id| format!("{id}@127.0.0.1:{}", free_port())).collect();
        Places {
            folders: (0..4).map(|_| tempfile::tempdir().unwrap()).collect(),
            lake: tempfile::tempdir().unwrap(),
            peers: peers.join(","),
            fourth: free_port(),
        }
    }

    /// Where the lake is.
    pub(super) fn lake(&self) -> &Path {
        self.lake.path()
    }

    /// Starts a node, or starts it again: every door on a port of its own, and what `more` says.
    pub(super) async fn open(&self, id: i32, more: &[String]) -> Node {
        let ports = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=127.0.0.1:0"));
        let own = [
            format!("node.id={id}"),
            format!("cluster.peers={}", self.peers),
            format!("object_store.url=file:{}", self.lake().display()),
        ];
        // What joins has to say where it listens.
        let joins = (id == 4).then(|| format!("listeners.cluster=127.0.0.1:{}", self.fourth));
        let set = ports.into_iter().chain(own).chain(joins).chain(more.iter().cloned()).collect();
        let data_dir = Some(self.folders[usize::try_from(id).unwrap() - 1].path().to_path_buf());
        let config = Config::load(&Sources { set, data_dir, ..Sources::default() }).unwrap();
        let start = tokio::spawn(async move {
            let files = open_data_dir(&config).unwrap();
            Node::start(config, files).await.unwrap()
        });
        tokio::time::timeout(PATIENCE, start).await.expect("it starts in time").unwrap()
    }

    /// Starts all of them, by id.
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
