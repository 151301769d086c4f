//! Disks that fail under a quorum.

use std::sync::atomic::{AtomicBool, Ordering};

use forebay_disk::sim::{HookedFiles, Step};

use super::*;

#[tokio::test]
async fn a_crash_while_a_snapshot_is_installed_leaves_a_node_that_starts() {
    let mut cluster = Cluster::open(3, |options| {
        options.snapshot_entries = 20;
        options.kept_entries = 5;
    })
    .await;
    let all = cluster.running();
    cluster.propose(&all, "before").await;
    let leader = cluster.leader(&all).await;
    let away = all.iter().copied().find(|id| *id != leader).unwrap();
    cluster.crash(away);
    let rest = cluster.running();
    for i in 0..60 {
        cluster.propose(&rest, format!("{i}")).await;
    }
    let fail = |step, path: &std::path::Path| match step {
        Step::Write if path.ends_with("quorum/snapshot.tmp") => Err(std::io::Error::other("no room for it")),
        _ => Ok(()),
    };
    let disk = HookedFiles::new(Arc::new(cluster.disks[&away].clone()), fail);
    cluster.start_on(away, Arc::new(disk)).await.unwrap();
    cluster.node(away).failure().wait_for(Option::is_some).await.unwrap();
    cluster.crash(away);
    cluster.start(away).await.unwrap();
    cluster.converged(61).await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_applied_stops_the_node_before_it_and_is_in_no_snapshot() {
    let disk = SimFiles::new(5);
    let (quorum, machine) = open_alone(Arc::new(disk.clone()), quick()).await.unwrap();
    quorum.propose(Bytes::from_static(b"kept")).await.unwrap();
    assert!(quorum.propose(Bytes::from_static(REFUSED)).await.is_err());
    let failure = quorum.failure().wait_for(Option::is_some).await.unwrap().clone().unwrap().to_string();
    assert!(failure.contains("refused on purpose"), "{failure}");
    assert_eq!(quorum.leadership().borrow().leader, None);
    assert_eq!(machine.0.lock().unwrap().len(), 1);
    quorum.shutdown().await;
    drop(quorum);
    disk.crash();
    let error = open_alone(Arc::new(disk), quick()).await.err().unwrap().to_string();
    assert!(error.contains("refused on purpose"), "the next start meets it again: {error}");
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_quorum_which_goes_on_when_the_disk_does() {
    let broken = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&broken);
    let disk = SimFiles::new(3);
    let files = HookedFiles::new(Arc::new(disk.clone()), move |step, _| match step {
        Step::Sync if look.load(Ordering::SeqCst) => Err(std::io::Error::other("the disk is gone")),
        _ => Ok(()),
    });
    let (quorum, machine) = open_alone(Arc::new(files), quick()).await.unwrap();
    quorum.propose(Bytes::from_static(b"kept")).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(quorum.propose(Bytes::from_static(b"lost")).await, Err(ProposeError::Unknown(_))));
    let mut failure = quorum.failure();
    let failure = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap().to_string();
    assert!(failure.contains("quorum/0000000001.log") && failure.contains("the disk is gone"), "{failure}");
    assert_eq!(quorum.propose(Bytes::from_static(b"later")).await, Err(ProposeError::Closed));
    assert_eq!(quorum.leadership().borrow().leader, None);
    assert_eq!(machine.0.lock().unwrap().len(), 1);
    broken.store(false, Ordering::SeqCst);
    quorum.failure().wait_for(Option::is_none).await.unwrap();
    quorum.propose(Bytes::from_static(b"after")).await.unwrap();
    quorum.shutdown().await;
    drop(quorum);
    disk.crash();
    let (_quorum, machine) = open_alone(Arc::new(disk), quick()).await.unwrap();
    assert_eq!(text(&machine.0.lock().unwrap()), ["kept", "after"]);
}

#[tokio::test]
async fn a_voter_whose_disk_failed_follows_again_without_a_restart() {
    let mut cluster = Cluster::open(3, |options| options.snapshot_entries = 15).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let leader = cluster.leader(&all).await;
    cluster.crash(leader);
    let broken = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&broken);
    let hook = move |step, _: &std::path::Path| match step {
        Step::Sync if look.load(Ordering::SeqCst) => Err(std::io::Error::other("the disk is gone")),
        _ => Ok(()),
    };
    let disk = HookedFiles::new(Arc::new(cluster.disks[&leader].clone()), hook);
    cluster.start_on(leader, Arc::new(disk)).await.unwrap();
    for round in 0..2 {
        broken.store(true, Ordering::SeqCst);
        let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != leader).collect();
        let propose = async {
            for i in 0..20 {
                cluster.propose(&rest, format!("{round}-{i}")).await;
            }
        };
        let stopped = async { cluster.node(leader).failure().wait_for(Option::is_some).await.map(drop) };
        let (_, stopped) = tokio::join!(propose, stopped);
        stopped.unwrap();
        broken.store(false, Ordering::SeqCst);
        cluster.converged(1 + 20 * (round + 1)).await;
        assert_eq!(cluster.applied(leader).len(), 1 + 20 * (round + 1), "nothing is applied twice");
    }
}

#[tokio::test]
async fn a_voter_that_has_lost_its_log_does_not_begin_as_an_empty_one() {
    let open = |begun, disk: SimFiles| async move {
        let options = Options { begun, ..alone(quick()) };
        let disk = Disk::new(Arc::new(disk), |write| write());
        let wire = Arc::new(Wire { from: 1, net: Arc::default() });
        Quorum::open(options, disk, Box::new(Recorder::default()), wire).await
    };
    let disk = SimFiles::new(6);
    open(false, disk.clone()).await.unwrap().shutdown().await;
    open(true, disk).await.unwrap().shutdown().await;
    let error = open(true, SimFiles::new(7)).await.err().unwrap().to_string();
    assert!(error.contains("is gone") && error.contains("restore it from a backup"), "{error}");
}
