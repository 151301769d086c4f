//! What a node tells of itself to whoever looks after the cluster: the quorum as it sees it, and the followers that are behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use forebay_disk::Partition;
use forebay_log::{Millis, NodeId};
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::limits::{ASKED_AT_ONCE, BEHIND, REPORT_PATIENCE};
use super::{Cluster, Inner};
use crate::kinds;
use crate::link::{Body, Lane};
use crate::quorum;

/// What one node knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    #[serde(default)]
    pub quorum: quorum::Status,
    /// Followers of what the node leads that do not have all of it, the furthest behind first; 1000 at most.
    #[serde(default)]
    pub behind: Vec<Behind>,
}

/// A follower that does not have all that its leader has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    pub topic: Uuid,
    pub partition: u32,
    pub node: NodeId,
    pub in_sync: bool,
    pub records: i64,
    /// As stored; as exact as the offset index.
    pub bytes: u64,
    /// Since when it has not had all that the leader had.
    pub milliseconds: i64,
}

impl Cluster {
    /// What this node knows of itself.
    pub async fn report(&self) -> Report {
        of(&self.inner).await
    }

    /// What each node that is up knows of itself. Those that do not answer within two seconds are left out.
    pub async fn reports(&self) -> BTreeMap<NodeId, Report> {
        let others: Vec<NodeId> = {
            let metadata = self.inner.metadata.borrow();
            let up = metadata.image.nodes().filter(|(id, node)| *id != self.inner.node && node.is_active());
            up.map(|(id, _)| id).collect()
        };
        let asked = others.into_iter().map(|id| async move { Some((id, self.report_of(id).await?)) });
        let (here, others) = tokio::join!(self.report(), futures_util::future::join_all(asked));
        others.into_iter().flatten().chain([(self.inner.node, here)]).collect()
    }

    /// The quorum as its leader sees it: it alone knows how far the others are. None while nobody leads that can be reached.
    pub async fn quorum_at_leader(&self) -> Option<quorum::Status> {
        let here = self.quorum();
        let leader = i32::try_from(here.leader?).ok().map(NodeId)?;
        if leader == self.inner.node {
            return Some(here);
        }
        self.report_of(leader).await.map(|report| report.quorum).filter(|status| status.leader == Some(status.node))
    }

    async fn report_of(&self, id: NodeId) -> Option<Report> {
        let links = &self.inner.links;
        let asked = links.call(id.0, Lane::Control, kinds::REPORT, |_| Body::default(), REPORT_PATIENCE).await;
        serde_json::from_slice(&asked.ok()?.1).ok()
    }
}

pub(super) async fn of(inner: &Inner) -> Report {
    let image = inner.metadata.borrow().image.clone();
    let mut led: Vec<(Uuid, Arc<Partition>)> = Vec::new();
    for topic in inner.log.topics().values() {
        for partition in topic.partitions.iter().filter(|partition| partition.leads()) {
            if image.partition(topic.id, partition.index()).is_some_and(|state| state.replicas.len() > 1) {
                led.push((topic.id, Arc::clone(partition)));
            }
        }
    }
    let now = Millis::from_system(SystemTime::now());
    let asked = stream::iter(led).map(|(topic, partition)| followers(topic, partition, now));
    let mut behind: Vec<Behind> = asked.buffer_unordered(ASKED_AT_ONCE).concat().await;
    behind.sort_unstable_by_key(|one| (std::cmp::Reverse(one.records), one.topic, one.partition, one.node));
    behind.truncate(BEHIND);
    Report { quorum: inner.quorum.status(), behind }
}

async fn followers(topic: Uuid, partition: Arc<Partition>, now: Millis) -> Vec<Behind> {
    // One that shuts down tells nothing any more.
    let followers = partition.followers().await.unwrap_or_default();
    let end = partition.watermarks().log_end;
    let behind = followers.into_iter().filter(|follower| follower.end < end || !follower.in_sync);
    let tell = |follower: forebay_disk::Follower| Behind {
        topic,
        partition: partition.index(),
        node: follower.id,
        in_sync: follower.in_sync,
        records: end.0.saturating_sub(follower.end.0).max(0),
        bytes: partition.bytes_from(follower.end),
        milliseconds: follower.behind_since.map_or(0, |since| now.0.saturating_sub(since.0).max(0)),
    };
    behind.map(tell).collect()
}
