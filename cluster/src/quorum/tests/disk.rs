//! Disks that fail under a quorum.

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
