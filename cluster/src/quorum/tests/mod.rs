//! Tests of the quorum: several of them in one process, over a transport that can be cut.

mod disk;
mod failover;
mod lifecycle;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay_disk::Files;
use forebay_disk::sim::SimFiles;

use super::{
    Answer, Disk, Machine, NodeId, Options, ProposeError, Quorum, QuorumError, Timings, Transport, TransportError,
};

type Applied = Vec<(u64, Vec<u8>)>;

/// What no [`Recorder`] takes.
const REFUSED: &[u8] = b"of a later release";

/// A machine that remembers what it was given. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Applied>>);

impl Machine for Recorder {
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<(), String> {
        if entry == REFUSED {
            return Err("refused on purpose".to_owned());
        }
        self.0.lock().unwrap().push((index, entry.to_vec()));
        Ok(())
    }
    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.0.lock().unwrap()).unwrap()
    }
    fn check(&self, snapshot: &[u8]) -> Result<(), String> {
        serde_json::from_slice::<Applied>(snapshot).map(drop).map_err(|error| error.to_string())
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        *self.0.lock().unwrap() = serde_json::from_slice(snapshot).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// Who is there, and which ways are cut.
#[derive(Default)]
struct Net {
    nodes: Mutex<BTreeMap<NodeId, Quorum>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// How long a message of more than half a MiB is on its way.
    slow: Mutex<Duration>,
}

impl Net {
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.lock().unwrap().contains(&(from, to))
    }
}

/// The transport of one node.
struct Wire {
    from: NodeId,
    net: Arc<Net>,
}

impl Transport for Wire {
    fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> Answer<'_> {
        Box::pin(async move {
            let error = |unreachable| TransportError { unreachable, what: format!("node {to} does not answer") };
            assert!(request.len() <= super::limits::MAX_MESSAGE);
            let there = self.net.nodes.lock().unwrap().get(&to).cloned();
            let there = there.filter(|_| !self.net.is_cut(self.from, to)).ok_or_else(|| error(true))?;
            if request.len() > 1 << 19 {
                let slow = *self.net.slow.lock().unwrap();
                tokio::time::sleep(slow).await;
            }
            let answer = tokio::time::timeout(timeout, there.serve(request)).await.map_err(|_| error(false))?;
            if self.net.is_cut(to, self.from) { Err(error(false)) } else { Ok(answer) }
        })
    }
}

/// Quick enough for tests, slow enough for a busy machine.
fn quick() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(50),
        lease: Duration::from_millis(200),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        proposal: Duration::from_secs(3),
    }
}

fn alone(timings: Timings) -> Options {
    Options { timings, ..Options::new(1, BTreeMap::from([(1, "node-1:9094".to_owned())])) }
}

async fn open_alone(files: Arc<dyn Files>, timings: Timings) -> Result<(Quorum, Recorder), QuorumError> {
    let disk = Disk::new(files, |write| write());
    let machine = Recorder::default();
    let wire = Arc::new(Wire { from: 1, net: Arc::default() });
    Ok((Quorum::open(alone(timings), disk, Box::new(machine.clone()), wire).await?, machine))
}

/// Nodes on simulated disks.
struct Cluster {
    net: Arc<Net>,
    options: Options,
    disks: BTreeMap<NodeId, SimFiles>,
    machines: BTreeMap<NodeId, Recorder>,
}

impl Cluster {
    /// Opens `voters` nodes, numbered from 1 on, with options that `tune` may change.
    async fn open(voters: u64, tune: impl FnOnce(&mut Options)) -> Cluster {
        let addresses = (1..=voters).map(|id| (id, format!("node-{id}:9094"))).collect();
        let mut options = Options::new(0, addresses);
        options.timings = quick();
        tune(&mut options);
        let (disks, machines) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster = Cluster { net: Arc::default(), options, disks, machines };
        for id in (1..=voters).rev() {
            cluster.start(id).await.unwrap();
        }
        cluster
    }

    /// Opens a node on its disk, which is new the first time.
    async fn start(&mut self, id: NodeId) -> Result<(), QuorumError> {
        let disk = self.disks.entry(id).or_insert_with(|| SimFiles::new(id)).clone();
        self.start_on(id, Arc::new(disk)).await
    }

    async fn start_on(&mut self, id: NodeId, disk: Arc<dyn Files>) -> Result<(), QuorumError> {
        let options = Options { node: id, ..self.options.clone() };
        let machine = Recorder::default();
        self.machines.insert(id, machine.clone());
        let wire = Arc::new(Wire { from: id, net: Arc::clone(&self.net) });
        let disk = Disk::new(disk, |write| write());
        let quorum = Quorum::open(options, disk, Box::new(machine), wire).await?;
        self.net.nodes.lock().unwrap().insert(id, quorum);
        Ok(())
    }

    /// The node's machine loses power.
    fn crash(&self, id: NodeId) {
        self.disks[&id].crash();
        self.net.nodes.lock().unwrap().remove(&id);
    }

    /// Cuts all ways from and to a node.
    fn isolate(&self, id: NodeId) {
        let others = self.disks.keys().filter(|other| **other != id);
        self.net.cut.lock().unwrap().extend(others.flat_map(|other| [(id, *other), (*other, id)]));
    }

    fn heal(&self) {
        self.net.cut.lock().unwrap().clear();
    }

    fn node(&self, id: NodeId) -> Quorum {
        self.net.nodes.lock().unwrap()[&id].clone()
    }

    fn running(&self) -> Vec<NodeId> {
        self.net.nodes.lock().unwrap().keys().copied().collect()
    }

    fn applied(&self, id: NodeId) -> Applied {
        self.machines[&id].0.lock().unwrap().clone()
    }

    /// A node among `among` that says of itself that it leads, once there is one.
    async fn leader(&self, among: &[NodeId]) -> NodeId {
        let leads = |id: &NodeId| self.node(*id).status().leader == Some(*id);
        eventually("a leader", || among.iter().copied().find(leads)).await
    }

    /// Proposes on whoever among `among` leads until it is taken.
    async fn propose(&self, among: &[NodeId], entry: impl Into<Vec<u8>>) -> u64 {
        let entry = Bytes::from(entry.into());
        loop {
            match self.node(self.leader(among).await).propose(entry.clone()).await {
                Ok(index) => return index,
                Err(ProposeError::NotLeader { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until the machines of all running nodes are the same, with `count` entries at least.
    async fn converged(&self, count: usize) -> Applied {
        eventually("the same state everywhere", || {
            let all: Vec<Applied> = self.running().into_iter().map(|id| self.applied(id)).collect();
            let same = all.windows(2).all(|pair| pair[0] == pair[1]);
            all.into_iter().next().filter(|first| same && first.len() >= count)
        })
        .await
    }
}

/// Waits until `look` sees something; a minute at most.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

fn text(applied: &Applied) -> Vec<String> {
    applied.iter().map(|(_, entry)| String::from_utf8_lossy(entry).into_owned()).collect()
}
