//! Whether a node is ready to take readings, and if not, why.

use std::time::Duration;

use super::{Gateway, topics};

/// A sync that takes longer is told of.
const SYNC_STALLED: Duration = Duration::from_secs(10);

impl Gateway {
    /// Why the node should get no traffic now; empty when it is ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.shutdown.is_cancelled() {
            reasons.push("draining".to_owned());
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
        let (off, on): (Vec<_>, Vec<_>) = self.lake.iter().partition(|lake| lake.off().is_some());
        problems.extend(off.into_iter().filter_map(|lake| lake.off()).map(str::to_owned));
        for topic in on.into_iter().flat_map(|lake| lake.status()) {
            if let Some(why) = topic.error {
                problems.push(format!("the lake of {}: {why}", topic.topic));
            }
        }
        let failing = self.alerts.receivers().into_iter().filter(|receiver| receiver.backlog > 0);
        problems.extend(failing.filter_map(|receiver| {
            Some(format!("{} alert records wait for {}: {}", receiver.backlog, receiver.receiver, receiver.last_error?))
        }));
        problems
    }
}
