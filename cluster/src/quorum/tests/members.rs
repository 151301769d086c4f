//! Nodes that join and leave.

use super::*;
use crate::quorum::MemberError;

#[tokio::test]
async fn nodes_join_vote_and_leave_while_entries_are_proposed() {
    let mut cluster = Cluster::open(3, |_| ()).await;
    let first = cluster.running();
    cluster.propose(&first, "three").await;
    cluster.start(4).await.unwrap();
    assert_eq!(cluster.node(4).status().voters.len(), 0, "it waits to be added");
    let leader = cluster.leader(&first).await;
    let voters = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<_>>();
    let unknown = cluster.node(leader).change_voters(voters(&[1, 2, 3, 4])).await;
    assert!(matches!(unknown, Err(MemberError::Refused(_))), "{unknown:?}");
    cluster.node(leader).add_learner(4, "node-4:9094".to_owned()).await.unwrap();
    cluster.converged(1).await;
    let status = cluster.node(leader).status();
    assert_eq!(status.learners, BTreeMap::from([(4, "node-4:9094".to_owned())]));
    cluster.node(leader).change_voters(voters(&[1, 2, 3, 4])).await.unwrap();
    let follower = first.iter().copied().find(|id| *id != leader).unwrap();
    let not_there = cluster.node(follower).remove(4).await;
    assert_eq!(not_there, Err(MemberError::NotLeader { leader: Some(leader) }));
    cluster.node(leader).remove(follower).await.unwrap();
    cluster.crash(follower);
    let rest = cluster.running();
    cluster.propose(&rest, "without one of the first").await;
    assert_eq!(cluster.node(cluster.leader(&rest).await).status().voters.len(), 3);

    // The new one counts: with it and one of the old ones there is a majority.
    cluster.crash(leader);
    let rest = cluster.running();
    cluster.propose(&rest, "by two of three").await;
    cluster.start(leader).await.unwrap();
    let applied = cluster.converged(3).await;
    assert_eq!(text(&applied), ["three", "without one of the first", "by two of three"]);
}

#[tokio::test]
async fn a_leader_that_is_taken_out_hands_over() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let leader = cluster.leader(&all).await;
    cluster.node(leader).remove(leader).await.unwrap();
    let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != leader).collect();
    cluster.propose(&rest, "second").await;
    let next = cluster.leader(&rest).await;
    assert_eq!(cluster.node(next).status().voters.keys().copied().collect::<Vec<_>>(), rest);
}

#[tokio::test]
async fn one_node_grows_to_three_and_shrinks_again() {
    let mut cluster = Cluster::open(1, |_| ()).await;
    cluster.propose(&[1], "alone").await;
    for id in [2, 3] {
        cluster.start(id).await.unwrap();
        cluster.node(1).add_learner(id, format!("node-{id}:9094")).await.unwrap();
    }
    cluster.node(1).change_voters(BTreeSet::from([1, 2, 3])).await.unwrap();
    cluster.propose(&[1, 2, 3], "three").await;
    cluster.converged(2).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.node(leader).change_voters(BTreeSet::from([leader])).await.unwrap();
    for id in [1, 2, 3].into_iter().filter(|id| *id != leader) {
        cluster.crash(id);
    }
    cluster.propose(&[leader], "alone again").await;
    cluster.crash(leader);
    cluster.start(leader).await.unwrap();
    assert_eq!(text(&cluster.applied(leader)), ["alone", "three", "alone again"], "ready when it is open");
}
