//! Whether a node is ready to take readings, and if not, why.

use std::time::Duration;

use forebay_cluster::{Cluster, Standing};

use super::{Gateway, topics};
use crate::cluster::SILENT;

/// A sync that takes longer is told of.
const SYNC_STALLED: Duration = Duration::from_secs(10);

impl Gateway {
    /// Why the node should get no traffic now; empty when it is ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.shutdown.is_cancelled() {
            reasons.push("draining".to_owned());
        } else if let Some(cluster) = self.log.cluster() {
            reasons.extend(Part::of(cluster, self.controller.silent_for()).not_ready());
        }
        if self.log.disk_full() {
            reasons.push("the disk is full: readings are refused until there is room".to_owned());
        }
        let topics = self.log.topics();
        let mut partitions = topics.values().flat_map(|topic| &topic.partitions).peekable();
        if partitions.peek().is_some() && partitions.all(|partition| partition.offline().is_some()) {
            reasons.push("every partition is offline: the disk takes no writes".to_owned());
        }
        let stalled = self.log.sync_stalled();
        if stalled > SYNC_STALLED {
            reasons.push(format!("the disk has not finished a sync for {} s: readings wait", stalled.as_secs()));
        }
        reasons
    }

    /// What is wrong with a part of the node while the rest goes on.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let missing = topics::missing(&self.log, &self.config).into_iter();
        let mut problems: Vec<String> =
            missing.map(|name| format!("topic {name} is missing: what is routed to it is refused")).collect();
        for topic in self.log.topics().values() {
            for partition in &topic.partitions {
                if let Some(why) = partition.offline() {
                    problems.push(format!("{}-{} is offline: {why}", topic.name, partition.index()));
                }
            }
        }
        if let Some(cluster) = self.log.cluster() {
            problems.extend(Part::of(cluster, self.controller.silent_for()).leaderless());
        }
        let (off, on): (Vec<_>, Vec<_>) = self.lake.iter().partition(|lake| lake.off().is_some());
        problems.extend(off.into_iter().filter_map(|lake| lake.off()).map(str::to_owned));
        for topic in on.into_iter().flat_map(|lake| lake.status()) {
            if let Some(why) = topic.error {
                problems.push(format!("the lake of {}: {why}", topic.topic));
            }
        }
        problems.extend(self.alerts.origin().problem);
        let failing = self.alerts.receivers().into_iter().filter(|receiver| receiver.backlog > 0);
        problems.extend(failing.filter_map(|receiver| {
            Some(format!("{} alert records wait for {}: {}", receiver.backlog, receiver.receiver, receiver.last_error?))
        }));
        problems
    }
}

/// This node's part in the cluster.
struct Part {
    /// Why the quorum has stopped here.
    stopped: Option<String>,
    /// For how long no controller has been reached.
    silent: Duration,
    standing: Standing,
    /// Partitions of the cluster without a leader.
    leaderless: usize,
}

impl Part {
    fn of(cluster: &Cluster, silent: Duration) -> Part {
        let image = cluster.metadata().borrow().image.clone();
        Part {
            stopped: cluster.failure().borrow().as_ref().map(ToString::to_string),
            silent,
            standing: *cluster.standing().borrow(),
            leaderless: image.partitions().filter(|(_, _, state)| state.leader.is_none()).count(),
        }
    }

    fn not_ready(&self) -> Option<String> {
        if let Some(why) = &self.stopped {
            return Some(format!(
                "the controller quorum has stopped on this node until what is wrong is mended: {why}"
            ));
        }
        if self.silent > SILENT {
            let secs = self.silent.as_secs();
            return Some(format!("no controller for {secs} s: no leader moves, and a majority of voters may be gone"));
        }
        let fenced = !self.standing.active;
        fenced.then(|| "this node is fenced: it leads nothing until the controller hears from it again".to_owned())
    }

    fn leaderless(&self) -> Option<String> {
        match self.leaderless {
            0 => None,
            1 => Some("1 partition of the cluster has no leader".to_owned()),
            count => Some(format!("{count} partitions of the cluster have no leader")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_what_of_the_cluster_is_lost() {
        let well = || Part {
            stopped: None,
            silent: Duration::from_secs(11),
            standing: Standing { registered: true, active: true, ..Standing::default() },
            leaderless: 0,
        };
        assert_eq!((well().not_ready(), well().leaderless()), (None, None));
        let says = |part: Part, what: &str| {
            let told = part.not_ready().into_iter().chain(part.leaderless()).collect::<Vec<_>>();
            assert!(told.len() == 1 && told[0].contains(what), "{told:?}");
        };
        says(
            Part { stopped: Some("journal: os error 5".to_owned()), ..well() },
            "until what is wrong is mended: journal: os error 5",
        );
        says(Part { silent: Duration::from_secs(31), ..well() }, "no controller for 31 s");
        says(Part { standing: Standing::default(), ..well() }, "fenced");
        says(Part { leaderless: 1, ..well() }, "1 partition of the cluster has no leader");
        says(Part { leaderless: 12, ..well() }, "12 partitions of the cluster have no leader");
    }
}
