//! Whether there is a controller that decides: without one nothing in the cluster's metadata changes, so that nothing there tells it.

use std::time::Duration;

use forebay_cluster::Cluster;
use forebay_cluster::quorum::Status;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the controller is looked for.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// Without a controller for longer a node says so.
pub(crate) const SILENT: Duration = Duration::from_secs(30);
/// A voter that has not answered its leader for longer counts as gone.
const ANSWERED: Duration = Duration::from_secs(10);

/// When a controller was last reached.
#[derive(Debug, Clone)]
pub(crate) struct Controller(watch::Receiver<Instant>);

impl Controller {
    /// Looks for the controller until `shutdown`. A node in no cluster needs none.
    pub(crate) fn follow(cluster: Option<&Cluster>, every: Duration, shutdown: CancellationToken) -> Controller {
        let (seen, last) = watch::channel(Instant::now());
        if let Some(cluster) = cluster.cloned() {
            tokio::spawn(async move {
                let look = async {
                    loop {
                        if cluster.quorum_at_leader().await.is_some_and(|status| decides(&status)) {
                            seen.send_replace(Instant::now());
                        }
                        tokio::time::sleep(every).await;
                    }
                };
                tokio::select! {
                    () = look => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        Controller(last)
    }

    /// For how long none has been reached.
    pub(crate) fn silent_for(&self) -> Duration {
        // Whoever has stopped to look says nothing.
        if self.0.has_changed().is_err() { Duration::ZERO } else { self.0.borrow().elapsed() }
    }
}

/// Whether the node leads the quorum and a majority of voters answers it. One that is cut off may still take itself for the leader.
pub(crate) fn decides(status: &Status) -> bool {
    let answers = |id: &u64| {
        let answered = status.followers.get(id).and_then(|follower| follower.answered);
        *id == status.node || answered.is_some_and(|ago| ago <= ANSWERED)
    };
    let there = status.voters.keys().filter(|id| answers(id)).count();
    status.leader == Some(status.node) && there > status.voters.len() / 2
}

#[cfg(test)]
mod tests {
    use forebay_cluster::quorum::Follower;

    use super::*;

    #[test]
    fn a_leader_whom_nobody_answers_decides_nothing() {
        let follower = |id: u64, secs: Option<u64>| {
            (id, Follower { answered: secs.map(Duration::from_secs), ..Follower::default() })
        };
        let status = |node: u64, followers: Vec<(u64, Follower)>| Status {
            node,
            leader: Some(1),
            voters: (1..=3).map(|id| (id, String::new())).collect(),
            followers: followers.into_iter().collect(),
            ..Status::default()
        };
        assert!(decides(&status(1, vec![follower(2, Some(1)), follower(3, Some(60))])));
        assert!(!decides(&status(1, vec![follower(2, Some(11)), follower(3, None)])));
        assert!(!decides(&status(1, vec![follower(4, Some(1)), follower(5, Some(1))])), "learners have no vote");
        assert!(!decides(&status(2, vec![])), "it follows");
        let alone = Status { node: 7, leader: Some(7), voters: [(7, String::new())].into(), ..Status::default() };
        assert!(decides(&alone));
        assert!(!decides(&Status::default()));
    }
}
