//! Starting, proposing, restarting, catching up.

use forebay_disk::RealFiles;

use super::*;
use crate::quorum::wire;

/// Timeouts that no test waits for.
fn endless() -> Timings {
    Timings {
        heartbeat: Duration::from_secs(10),
        lease: Duration::from_secs(50),
        election_min: Duration::from_secs(600),
        election_max: Duration::from_secs(700),
        proposal: Duration::from_secs(30),
    }
}

#[tokio::test]
async fn the_only_voter_leads_and_has_everything_at_every_start_without_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFiles::open(dir.path()).unwrap();
    let run = async {
        for start in 0..4_usize {
            let (quorum, machine) = open_alone(files.clone(), endless()).await.unwrap();
            assert_eq!(quorum.leadership().borrow().leader, Some(1));
            assert_eq!(machine.0.lock().unwrap().len(), start * 3, "everything is applied");
            for i in 0..3 {
                let index = quorum.propose(Bytes::from(format!("{start}-{i}"))).await.unwrap();
                assert_eq!(machine.0.lock().unwrap().last().unwrap().0, index, "applied when it is acknowledged");
            }
            assert!(quorum.confirm_leader().await.is_ok());
            quorum.shutdown().await;
            assert_eq!(quorum.propose(Bytes::from_static(b"late")).await, Err(ProposeError::Closed));
        }
    };
    tokio::time::timeout(Duration::from_secs(40), run).await.expect("no election timeout was needed");
}

#[tokio::test]
async fn five_nodes_apply_the_same_entries_in_the_same_order() {
    let cluster = Cluster::open(5, |_| ()).await;
    let all = cluster.running();
    for i in 0..30 {
        cluster.propose(&all, format!("entry {i}")).await;
    }
    let applied = cluster.converged(30).await;
    assert_eq!(text(&applied), (0..30).map(|i| format!("entry {i}")).collect::<Vec<_>>());
    let leader = cluster.leader(&all).await;
    let status = cluster.node(leader).status();
    assert_eq!((status.voters.len(), status.learners.len(), status.followers.len()), (5, 0, 4));
    assert!(status.followers.values().all(|follower| follower.answered.is_some()), "{status:?}");
    eventually("all followers to be caught up", || {
        let status = cluster.node(leader).status();
        let whole =
            |follower: &crate::quorum::Follower| follower.matched == status.last_log && follower.caught_up.is_some();
        status.followers.values().all(whole).then_some(())
    })
    .await;
    let follower = all.into_iter().find(|id| *id != leader).unwrap();
    let refused = cluster.node(follower).propose(Bytes::from_static(b"no")).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader) }));
    assert!(cluster.node(follower).confirm_leader().await.is_err());
}

#[tokio::test]
async fn a_node_that_was_away_catches_up_by_the_log() {
    let mut cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "before").await;
    let leader = cluster.leader(&all).await;
    let away = all.iter().copied().find(|id| *id != leader).unwrap();
    cluster.crash(away);
    let rest = cluster.running();
    for i in 0..50 {
        cluster.propose(&rest, format!("{i}")).await;
    }
    cluster.start(away).await.unwrap();
    cluster.converged(51).await;
    assert_eq!(cluster.node(away).status().snapshot, None);
}

#[tokio::test]
async fn a_node_that_was_away_for_long_catches_up_by_a_snapshot_in_pieces() {
    let mut cluster = Cluster::open(3, |options| {
        options.snapshot_entries = 20;
        options.kept_entries = 5;
    })
    .await;
    let all = cluster.running();
    cluster.propose(&all, "before").await;
    let leader = cluster.leader(&all).await;
    let away = all.iter().copied().find(|id| *id != leader).unwrap();
    cluster.isolate(away);
    let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != away).collect();
    for i in 0..60_u8 {
        cluster.propose(&rest, vec![i; 20_000]).await;
    }
    cluster.heal();
    let applied = cluster.converged(61).await;
    assert!(cluster.node(away).status().snapshot.is_some_and(|index| index >= 40));
    assert!(cluster.machines[&away].snapshot().len() > 2 * crate::quorum::limits::SNAPSHOT_CHUNK);
    cluster.crash(away);
    cluster.start(away).await.unwrap();
    assert_eq!(cluster.converged(61).await, applied, "the snapshot and what follows it survive a crash");
}

#[tokio::test]
async fn a_large_entry_gets_over_a_slow_line() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    *cluster.net.slow.lock().unwrap() = quick().heartbeat * 3;
    cluster.propose(&all, vec![7; 2 << 20]).await;
    cluster.propose(&all, "after").await;
    cluster.converged(2).await;
}

#[tokio::test]
async fn a_snapshot_is_taken_when_entries_have_many_bytes() {
    let cluster = Cluster::open(1, |options| options.snapshot_bytes = 100_000).await;
    for i in 0..40_u8 {
        cluster.propose(&[1], vec![i; 10_000]).await;
    }
    let status =
        eventually("a snapshot", || Some(cluster.node(1).status()).filter(|status| status.snapshot.is_some())).await;
    assert!(status.snapshot < status.last_log);
    eventually("a small log", || (cluster.node(1).inner.log.memory().bytes() < 150_000).then_some(())).await;
}

#[tokio::test]
async fn damage_stops_the_start_and_says_what_to_do() {
    let disk = SimFiles::new(4);
    let (quorum, _) = open_alone(Arc::new(disk.clone()), quick()).await.unwrap();
    quorum.propose(Bytes::from_static(b"kept")).await.unwrap();
    quorum.shutdown().await;
    drop(quorum);
    disk.flip(std::path::Path::new("quorum/0000000001.log"), 40, 1).unwrap();
    let error = open_alone(Arc::new(disk), quick()).await.err().unwrap();
    assert!(matches!(&error, QuorumError::Storage(what) if what.contains("0000000001.log")), "{error}");
}

#[tokio::test]
async fn a_request_of_another_version_is_refused_with_a_reason() {
    let cluster = Cluster::open(1, |_| ()).await;
    for request in [&b""[..], &[9, 1, 0, 0, 0, 0], &[1, 99, 0, 0, 0, 0], &[1, 1, 2, 0, 0, 0, b'{', b'}']] {
        let answer = cluster.node(1).serve(Bytes::copy_from_slice(request)).await;
        assert!(wire::open_answer::<()>(&answer).unwrap_err().starts_with("refused: "));
    }
    let large = Bytes::from(vec![0; crate::quorum::limits::MAX_ENTRY + 1]);
    assert!(matches!(cluster.node(1).propose(large).await, Err(ProposeError::TooLarge { .. })));
    let largest = Bytes::from(vec![0; crate::quorum::limits::MAX_ENTRY]);
    assert!(cluster.node(1).propose(largest).await.is_ok());
}
