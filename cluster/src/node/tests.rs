//! Nodes of a cluster in one process, over loopback sockets and real files.

mod fenced;
mod full;
mod restarts;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_disk::sim::{Faults, SimFiles};
use forebay_disk::{AppendData, Files, Log, LogOptions, Partition, RealFiles};
use forebay_log::cluster::controller::{Assignment, CreateTopic};
use forebay_log::cluster::{PartitionState, Reply, Request};
use forebay_log::record::{Batches, RecordChunk, RecordReader};
use forebay_log::{AppendError, Millis, NodeId, Offset};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{Cluster, Options};

const PATIENCE: Duration = Duration::from_secs(20);
const TOPIC: Uuid = Uuid::from_u128(7);

/// With `RUST_LOG`, for who looks for the cause of a failure.
fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

struct Member {
    dir: TempDir,
    /// In place of the directory.
    disk: Option<SimFiles>,
    address: String,
    running: Option<(Cluster, Log)>,
}

struct World {
    members: BTreeMap<NodeId, Member>,
    voters: BTreeMap<NodeId, String>,
}

impl World {
    async fn start(count: i32) -> World {
        World::start_on(count, |_| None).await
    }

    async fn start_on(count: i32, disk: impl Fn(NodeId) -> Option<SimFiles>) -> World {
        show_logs();
        let mut world = World { members: BTreeMap::new(), voters: BTreeMap::new() };
        let mut listeners = Vec::new();
        for id in (1..=count).map(NodeId) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            world.voters.insert(id, address.clone());
            let dir = tempfile::tempdir().unwrap();
            world.members.insert(id, Member { dir, disk: disk(id), address, running: None });
            listeners.push((id, listener));
        }
        for (id, listener) in listeners {
            world.start_node(id, listener).await;
        }
        for id in world.voters.keys().copied().collect::<Vec<_>>() {
            world.active(id).await;
        }
        world
    }

    async fn start_node(&mut self, id: NodeId, listener: TcpListener) {
        let member = self.members.get_mut(&id).unwrap();
        let files: Arc<dyn Files> = match &member.disk {
            Some(disk) => Arc::new(disk.clone()),
            None => RealFiles::open(member.dir.path()).unwrap(),
        };
        let options = LogOptions { shards: 1, fsync: true, alone: false };
        let (node, opened) = (u32::try_from(id.0).unwrap(), Arc::clone(&files));
        let log = tokio::task::spawn_blocking(move || Log::open_as(node, opened, options)).await.unwrap().unwrap();
        let addresses = BTreeMap::from([("cluster".to_owned(), member.address.clone())]);
        let voters = self.voters.clone();
        let options = Options { voters, addresses, listener: Some(listener), ..Options::alone(id) };
        let cluster = Cluster::start(options, files, log.clone()).await.unwrap();
        member.running = Some((cluster, log));
    }

    fn cluster(&self, id: NodeId) -> &Cluster {
        &self.members[&id].running.as_ref().unwrap().0
    }

    async fn active(&self, id: NodeId) {
        let mut standing = self.cluster(id).standing();
        let active = standing.wait_for(|standing| standing.active);
        tokio::time::timeout(PATIENCE, active).await.unwrap_or_else(|_| panic!("node {id} is not active")).unwrap();
    }

    /// As kill -9 does: nothing is said to anybody.
    async fn kill(&mut self, id: NodeId) {
        let (cluster, log) = self.members.get_mut(&id).unwrap().running.take().unwrap();
        cluster.inner.shutdown.cancel();
        cluster.inner.quorum.shutdown().await;
        drop(cluster);
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
    }

    async fn start_again(&mut self, id: NodeId) {
        let address = self.members[&id].address.clone();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(&address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.start_node(id, listener).await;
    }

    async fn restart(&mut self, id: NodeId) {
        self.start_again(id).await;
        self.active(id).await;
    }

    async fn create(&self, at: NodeId, replicas: Vec<Vec<NodeId>>, config: &[(&str, &str)]) {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let replicas = Assignment::Explicit { replicas };
        let topic = CreateTopic { id: TOPIC, name: "t".to_owned(), replicas, config, validate_only: false };
        let made = self.cluster(at).ask(Request::CreateTopic(topic), PATIENCE).await.unwrap();
        assert!(matches!(made, Reply::Placed { .. }));
    }

    fn partition(&self, id: NodeId) -> Option<Arc<Partition>> {
        let (_, log) = self.members[&id].running.as_ref()?;
        log.topic("t")?.partition(0).cloned()
    }

    fn state(&self, at: NodeId) -> Option<PartitionState> {
        self.cluster(at).metadata().borrow().image.partition(TOPIC, 0).cloned()
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&World) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Who leads, by what `at` knows and by the leader's own word.
    async fn leader(&self, at: NodeId) -> NodeId {
        self.until("a leader", |world| {
            let leader = world.state(at)?.leader?;
            world.partition(leader).filter(|partition| partition.leads()).map(|_| leader)
        })
        .await
    }

    async fn in_sync(&self, at: NodeId, count: usize) {
        self.until("in-sync replicas", |world| (world.state(at)?.isr.len() == count).then_some(())).await;
    }

    /// Every replica that runs holds exactly these values, below its high watermark.
    async fn holds_everywhere(&self, values: &[String]) {
        for (id, _) in self.members.iter().filter(|(_, member)| member.running.is_some()) {
            let what = format!("{} records on node {id}", values.len());
            let held = self.until(&what, |world| {
                let partition = world.partition(*id)?;
                (partition.watermarks().high_watermark == Offset(values.len() as i64)).then_some(partition)
            });
            assert_eq!(read(held.await.as_ref()), values, "node {id}");
        }
    }
}

fn read(partition: &Partition) -> Vec<String> {
    let (mut values, mut next) = (Vec::new(), Offset(0));
    while next < partition.watermarks().high_watermark {
        for batch in Batches::new(partition.read(next, 1 << 20).unwrap().batches) {
            let (header, batch) = batch.unwrap();
            next = header.next_offset();
            let records = RecordReader::new(&header, &batch).unwrap().map(Result::unwrap);
            values.extend(records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    values
}

async fn append(partition: &Partition, values: &[String]) -> Result<(), AppendError> {
    let mut chunk = RecordChunk::new();
    for value in values {
        chunk.push(Millis(1_767_225_600_000), None, Some(value.as_bytes()), &[]);
    }
    partition.append(AppendData::Chunk(chunk)).await.map(|_| ())
}

fn values(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| format!("value {n}")).collect()
}

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_on_all_replicas_and_outlives_its_leader() {
    let mut world = World::start(3).await;
    let (one, two) = (NodeId(1), NodeId(2));
    world.create(two, vec![nodes(&[1, 2, 3])], &[("min.insync.replicas", "2")]).await;
    let leader = world.leader(two).await;
    assert_eq!(leader, one, "the first replica is the preferred leader");
    world.in_sync(two, 3).await;
    let mut kept = values(0, 100);
    append(&world.partition(leader).unwrap(), &kept).await.unwrap();
    world.holds_everywhere(&kept).await;

    world.kill(one).await;
    let next = world.until("another leader", |world| world.state(two)?.leader.filter(|id| *id != one)).await;
    let next = world.leader(next).await;
    let more = values(100, 50);
    append(&world.partition(next).unwrap(), &more).await.unwrap();
    kept.extend(more);
    world.holds_everywhere(&kept).await;
    assert_eq!(world.partition(next).unwrap().leader_epoch(), world.state(two).unwrap().leader_epoch);

    world.restart(one).await;
    world.in_sync(two, 3).await;
    world.holds_everywhere(&kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_alone_knows_its_cluster_and_everybodys_data_directory() {
    let mut world = World::start(3).await;
    let two = NodeId(2);
    let cluster = world.cluster(two).metadata().borrow().image.cluster().unwrap().to_string();
    let directories = |world: &World| -> Vec<String> {
        let metadata = world.cluster(two).metadata();
        let image = metadata.borrow().image.clone();
        let registered = image.nodes().filter_map(|(_, node)| node.registration.as_ref());
        registered.map(|registration| registration.directory.to_string()).collect()
    };
    let all = world.until("all registered", |world| Some(directories(world)).filter(|all| all.len() == 3)).await;
    world
        .until("a snapshot with all directories", |world| {
            let stored = std::fs::read(world.members[&two].dir.path().join("quorum/snapshot")).ok()?;
            let stored = String::from_utf8_lossy(&stored);
            all.iter().all(|directory| stored.contains(directory)).then_some(())
        })
        .await;
    for id in [1, 2, 3].map(NodeId) {
        world.kill(id).await;
    }
    world.start_node(two, TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
    assert_eq!(directories(&world), all);
    assert_eq!(world.cluster(two).inner.links.local().identity().cluster_id, cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_is_refused_appends_and_too_few_replicas_refuse_all_but_the_leader() {
    let mut world = World::start(3).await;
    world.create(NodeId(3), vec![nodes(&[1, 2])], &[("min.insync.replicas", "2")]).await;
    let leader = world.leader(NodeId(3)).await;
    let follower = if leader == NodeId(1) { NodeId(2) } else { NodeId(1) };
    world.in_sync(NodeId(3), 2).await;
    let refused = append(&world.partition(follower).unwrap(), &values(0, 1)).await;
    assert_eq!(refused, Err(AppendError::NotLeader));
    assert!(world.partition(NodeId(3)).is_none(), "no replica where none is to be");

    world.kill(follower).await;
    world.in_sync(NodeId(3), 1).await;
    let partition = world.partition(leader).unwrap();
    let refused = world.until("the leader has heard of it", |_| {
        let partition = Arc::clone(&partition);
        let appended = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async move { append(&partition, &values(0, 1)).await })
        });
        appended.err()
    });
    assert!(matches!(refused.await, AppendError::NotEnoughReplicas | AppendError::NotEnoughReplicasAfterAppend));
}

/// Partition 0 is the source, partition 1 holds what its leader writes about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_needs_nobody_and_goes_on_after_a_restart() {
    show_logs();
    let dir = tempfile::tempdir().unwrap();
    for life in 1..=3 {
        let files = RealFiles::open(dir.path()).unwrap();
        let options = LogOptions { shards: 1, fsync: true, alone: false };
        let opened = Arc::clone(&files);
        let log = tokio::task::spawn_blocking(move || Log::open_as(1, opened, options)).await.unwrap().unwrap();
        let cluster = Cluster::start(Options::alone(NodeId(1)), files, log.clone()).await.unwrap();
        let mut standing = cluster.standing();
        let active = standing.wait_for(|standing| standing.active);
        tokio::time::timeout(PATIENCE, active).await.unwrap().unwrap();
        if life == 1 {
            let replicas = Assignment::Placed { partitions: 2, replication_factor: 1 };
            let config = BTreeMap::new();
            let topic = CreateTopic { id: TOPIC, name: "t".to_owned(), replicas, config, validate_only: false };
            cluster.ask(Request::CreateTopic(topic), PATIENCE).await.unwrap();
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let partition = loop {
            let found = log.topic("t").and_then(|topic| topic.partition(0).cloned());
            if let Some(partition) = found.filter(|partition| partition.leads()) {
                break partition;
            }
            assert!(tokio::time::Instant::now() < deadline, "the partition is led");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        append(&partition, &values(life - 1, 1)).await.unwrap();
        assert_eq!(read(&partition), values(0, life));
        cluster.shutdown(Duration::from_secs(1)).await;
        drop((cluster, partition));
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
    }
}

#[test]
fn what_crosses_the_wire_is_read_again() {
    let request = Request::AddNode { id: NodeId(4) };
    let bytes = Bytes::from(serde_json::to_vec(&request).unwrap());
    assert_eq!(serde_json::from_slice::<Request>(&bytes).unwrap(), request);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_a_node_starts_and_deletes_topics_with_the_reserve() {
    show_logs();
    let files = SimFiles::new(1);
    for life in 1..=2 {
        let options = LogOptions { shards: 1, fsync: true, alone: false };
        let opened: Arc<dyn Files> = Arc::new(files.clone());
        let log = tokio::task::spawn_blocking(move || Log::open_as(1, opened, options)).await.unwrap().unwrap();
        let cluster = Cluster::start(Options::alone(NodeId(1)), Arc::new(files.clone()), log.clone()).await.unwrap();
        let mut standing = cluster.standing();
        let active = standing.wait_for(|standing| standing.active);
        tokio::time::timeout(PATIENCE, active).await.expect("active").unwrap();
        if life == 1 {
            let replicas = Assignment::Placed { partitions: 2, replication_factor: 1 };
            let config = BTreeMap::new();
            let topic = CreateTopic { id: TOPIC, name: "t".to_owned(), replicas, config, validate_only: false };
            cluster.ask(Request::CreateTopic(topic), PATIENCE).await.unwrap();
        } else {
            cluster.ask(Request::DeleteTopic { topic: TOPIC }, PATIENCE).await.unwrap();
            assert!(log.disk_full());
        }
        cluster.shutdown(Duration::from_secs(1)).await;
        drop(cluster);
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
        let used = files.contents().iter().map(|(_, bytes)| bytes.len() as u64).sum();
        files.set_faults(Faults { capacity: Some(used), ..Faults::default() });
    }
}
