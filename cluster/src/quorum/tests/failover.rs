//! Leaders that die or are cut off.

use forebay_disk::sim::Random;

use super::*;

#[tokio::test]
async fn what_was_acknowledged_survives_the_leader() {
    let mut cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for i in 0..10 {
            let entry = format!("{round}-{i}");
            cluster.propose(&cluster.running(), entry.clone()).await;
            acknowledged.push(entry);
        }
        let leader = cluster.leader(&all).await;
        cluster.crash(leader);
        let entry = format!("{round}-without {leader}");
        cluster.propose(&cluster.running(), entry.clone()).await;
        acknowledged.push(entry);
        cluster.start(leader).await.unwrap();
    }
    assert_eq!(text(&cluster.converged(acknowledged.len()).await), acknowledged);
}

#[tokio::test]
async fn a_proposal_on_a_leader_that_is_cut_off_is_applied_everywhere_or_nowhere() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let old = cluster.leader(&all).await;
    cluster.isolate(old);
    let outcome = cluster.node(old).propose(Bytes::from_static(b"cut")).await;
    assert!(matches!(outcome, Err(ProposeError::Unknown(_) | ProposeError::NotLeader { .. })), "{outcome:?}");
    assert!(!text(&cluster.applied(old)).contains(&"cut".to_owned()));
    let mut leadership = cluster.node(old).leadership();
    leadership.wait_for(|now| now.leader.is_none()).await.unwrap();
    assert!(cluster.node(old).confirm_leader().await.is_err(), "it cannot prove that it leads");
    let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != old).collect();
    cluster.propose(&rest, "second").await;
    cluster.heal();
    cluster.propose(&all, "third").await;
    let applied = text(&cluster.converged(3).await);
    assert_eq!(applied, ["first", "second", "third"], "the new leader never had it");
}

#[tokio::test]
async fn a_node_that_returns_does_not_depose_the_leader() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let leader = cluster.leader(&all).await;
    let away = all.iter().copied().find(|id| *id != leader).unwrap();
    let term = cluster.node(leader).status().term;
    cluster.isolate(away);
    let silence = cluster.options.timings.election_max * 4;
    tokio::time::sleep(silence).await;
    cluster.heal();
    cluster.propose(&all, "second").await;
    cluster.converged(2).await;
    let status = cluster.node(leader).status();
    assert_eq!((status.term, status.leader), (term, Some(leader)));
}

#[tokio::test]
async fn a_leader_that_reaches_nobody_is_replaced_and_follows_again() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let old = cluster.leader(&all).await;
    let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != old).collect();
    // One way only: it does not reach the others, and they reach it.
    cluster.net.cut.lock().unwrap().extend(rest.iter().map(|other| (old, *other)));
    cluster.propose(&rest, "second").await;
    cluster.heal();
    cluster.converged(2).await;
}

#[tokio::test]
async fn a_leader_that_is_heard_and_hears_nobody_is_replaced() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let old = cluster.leader(&all).await;
    let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != old).collect();
    cluster.net.cut.lock().unwrap().extend(rest.iter().map(|other| (*other, old)));
    cluster.propose(&rest, "second").await;
    cluster.heal();
    assert_eq!(text(&cluster.converged(2).await), ["first", "second"]);
}

#[tokio::test]
async fn a_deaf_leader_with_the_longest_log_leads_again_when_it_hears() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let old = cluster.leader(&all).await;
    let rest: Vec<NodeId> = all.iter().copied().filter(|id| *id != old).collect();
    cluster.isolate(old);
    cluster.crash(rest[1]);
    let unknown = cluster.node(old).propose(Bytes::from_static(b"uncommitted")).await;
    assert!(matches!(unknown, Err(ProposeError::Unknown(_))));
    cluster.heal();
    cluster.propose(&[old, rest[0]], "second").await;
    assert_eq!(text(&cluster.converged(3).await), ["first", "uncommitted", "second"]);
}

/// Without the hint nobody would ask for an election within this test.
fn patient(options: &mut Options) {
    options.timings.election_min = Duration::from_secs(600);
    options.timings.election_max = Duration::from_secs(700);
}

#[tokio::test]
async fn a_hint_brings_the_election_forward() {
    let cluster = Cluster::open(3, patient).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let old = cluster.leader(&all).await;
    cluster.crash(old);
    let rest = cluster.running();
    for id in &rest {
        cluster.node(*id).elect_now();
    }
    cluster.propose(&rest, "second").await;
    assert_eq!(text(&cluster.converged(2).await), ["first", "second"]);
}

#[tokio::test]
async fn a_wrong_hint_changes_nothing() {
    let cluster = Cluster::open(3, |_| ()).await;
    let all = cluster.running();
    cluster.propose(&all, "first").await;
    let leader = cluster.leader(&all).await;
    let term = cluster.node(leader).status().term;
    for id in &all {
        for _ in 0..5 {
            cluster.node(*id).elect_now();
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
    cluster.propose(&all, "second").await;
    let status = cluster.node(leader).status();
    assert_eq!((status.term, status.leader), (term, Some(leader)));
}

#[tokio::test]
async fn crashes_and_cuts_at_random_lose_and_mix_up_nothing() {
    let mut cluster = Cluster::open(3, |options| {
        options.snapshot_entries = 12;
        options.kept_entries = 3;
        options.timings.proposal = Duration::from_millis(600);
    })
    .await;
    let all = cluster.running();
    let mut random = Random::new(11);
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for step in 0..60 {
        let id = all[random.below(3) as usize];
        match random.below(6) {
            0 => cluster.isolate(id),
            1 | 2 => cluster.heal(),
            3 => {
                cluster.crash(id);
                cluster.start(id).await.unwrap();
            }
            _ => {}
        }
        for node in cluster.running() {
            let entry = format!("{step} on {node}");
            match cluster.node(node).propose(Bytes::from(entry.clone())).await {
                Ok(index) => acknowledged.push((index, entry.into_bytes())),
                Err(ProposeError::NotLeader { .. }) => refused.push(entry.into_bytes()),
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(random.below(150))).await;
    }
    cluster.heal();
    cluster.propose(&all, "last").await;
    let applied = cluster.converged(acknowledged.len() + 1).await;
    assert!(acknowledged.len() > 5, "something was acknowledged: {}", acknowledged.len());
    for entry in &acknowledged {
        assert!(applied.contains(entry), "{entry:?} was acknowledged");
    }
    assert!(applied.windows(2).all(|pair| pair[0].0 < pair[1].0), "each index once, in order");
    assert!(applied.iter().all(|(_, entry)| !refused.contains(entry)), "what was refused is not applied");
}
