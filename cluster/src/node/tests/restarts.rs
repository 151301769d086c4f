//! Nodes that start again: alone, without their metadata, from a backup.

use forebay_disk::Files;
use tokio::sync::mpsc;

use super::super::{Kept, StartError};
use super::*;
use crate::controller::{AskError, Client};
use crate::quorum::Disk;

async fn begin_alone(dir: &TempDir) -> Result<(Cluster, Log), StartError> {
    show_logs();
    let files = RealFiles::open(dir.path()).unwrap();
    let options = LogOptions { shards: 1, fsync: true, alone: false };
    let opened = Arc::clone(&files);
    let log = tokio::task::spawn_blocking(move || Log::open_as(1, opened, options)).await.unwrap().unwrap();
    match Cluster::start(Options::alone(NodeId(1)), files, log.clone()).await {
        Ok(cluster) => Ok((cluster, log)),
        Err(error) => {
            tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
            Err(error)
        }
    }
}

async fn start_alone(dir: &TempDir) -> Result<(Cluster, Log), StartError> {
    let (cluster, log) = begin_alone(dir).await?;
    let mut standing = cluster.standing();
    let active = standing.wait_for(|standing| standing.active);
    tokio::time::timeout(PATIENCE, active).await.unwrap().unwrap();
    Ok((cluster, log))
}

async fn create_alone(cluster: &Cluster) {
    let replicas = Assignment::Placed { partitions: 2, replication_factor: 1 };
    let config = BTreeMap::new();
    let topic = CreateTopic { id: TOPIC, name: "t".to_owned(), replicas, config, validate_only: false };
    cluster.ask(Request::CreateTopic(topic), PATIENCE).await.unwrap();
}

/// Partition 0, once this node leads it.
async fn led(log: &Log) -> Arc<Partition> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = log.topic("t").and_then(|topic| topic.partition(0).cloned());
        if let Some(partition) = found.filter(|partition| partition.leads()) {
            return partition;
        }
        assert!(tokio::time::Instant::now() < deadline, "the partition is led");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn stop_alone((cluster, log): (Cluster, Log)) {
    cluster.shutdown(Duration::from_secs(1)).await;
    drop(cluster);
    tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_that_has_lost_its_metadata_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, log) = start_alone(&dir).await.unwrap();
    create_alone(&cluster).await;
    append(led(&log).await.as_ref(), &values(0, 3)).await.unwrap();
    stop_alone((cluster, log)).await;

    std::fs::remove_dir_all(dir.path().join("quorum")).unwrap();
    for _ in 0..2 {
        let refused = start_alone(&dir).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("is gone"), "{refused:?}");
    }
    std::fs::remove_file(dir.path().join("node")).unwrap();
    let (cluster, log) = start_alone(&dir).await.unwrap();
    assert_eq!(read(led(&log).await.as_ref()), values(0, 3), "taken in as those of a node that ran alone");
    stop_alone((cluster, log)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_cluster_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, log) = start_alone(&dir).await.unwrap();
    create_alone(&cluster).await;
    append(led(&log).await.as_ref(), &values(0, 3)).await.unwrap();
    stop_alone((cluster, log)).await;

    // As if the node was given to a cluster that knows nothing of what is on it.
    std::fs::remove_dir_all(dir.path().join("quorum")).unwrap();
    let files = RealFiles::open(dir.path()).unwrap();
    let disk = Disk::new(files.clone(), |write| write());
    Kept::begin(disk, NodeId(1)).unwrap().change(|own| own.begun = false).unwrap();
    files.close();
    let (cluster, log) = begin_alone(&dir).await.unwrap();
    let mut metadata = cluster.metadata();
    let incarnation = Some(cluster.incarnation());
    let knows =
        metadata.wait_for(|known| known.image.node(NodeId(1)).and_then(|node| node.incarnation()) == incarnation);
    assert!(tokio::time::timeout(PATIENCE, knows).await.unwrap().unwrap().image.topic(TOPIC).is_none());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(log.topic("t").is_some());
    assert!(!cluster.standing().borrow().active, "it takes no part");
    stop_alone((cluster, log)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_put_back_from_a_backup_is_not_taken_for_the_process_before() {
    let mut world = World::start(3).await;
    let three = NodeId(3);
    world.kill(three).await;
    let file = world.members[&three].dir.path().join("node");
    let backup = std::fs::read(&file).unwrap();
    world.restart(three).await;
    let known = world.cluster(three).incarnation();
    world.kill(three).await;

    std::fs::write(&file, backup).unwrap();
    world.start_again(three).await;
    assert_eq!(world.cluster(three).incarnation(), known, "it counts as it did before");
    let mut standing = world.cluster(three).standing();
    let ended = tokio::time::timeout(PATIENCE, standing.wait_for(|standing| standing.active)).await;
    assert!(ended.unwrap().is_err(), "another process was here with that number");
    world.kill(three).await;
    world.restart(three).await;
    assert!(world.cluster(three).incarnation() > known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_hangs_on_this_node_does_not_hold_up_who_asks_it() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, log) = start_alone(&dir).await.unwrap();
    let (requests, _nobody) = mpsc::channel(1);
    let (quorum, links) = (cluster.inner.quorum.clone(), Arc::clone(&cluster.inner.links));
    let client = Client { node: NodeId(1), quorum, requests, links };
    let asked = client.ask(Request::AddNode { id: NodeId(9) }, Duration::from_millis(100));
    let answer = tokio::time::timeout(PATIENCE, asked).await.expect("not for ever");
    assert!(matches!(answer, Err(AskError::Unavailable(_))));
    stop_alone((cluster, log)).await;
}
