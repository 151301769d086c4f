//! What the cluster is like: its nodes, its quorum, its partitions and their followers.

use std::collections::{BTreeMap, BTreeSet};

use forebay_cluster::{Cluster, Report, kafka_id};
use forebay_log::NodeId;
use forebay_log::cluster::{Image, Liveness, Node, PartitionState, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::alerts::{RuleStamp, held_stamp};

/// The cluster as one node knows it. What only leaders know is asked of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterStatus {
    pub(crate) cluster_id: String,
    /// The node that says so.
    pub(crate) node: i32,
    /// Who decides; none while nobody can.
    pub(crate) controller: Option<i32>,
    pub(crate) quorum: QuorumStatus,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) partition_count: usize,
    /// `topic-partition` of those with fewer in-sync replicas than replicas.
    pub(crate) under_replicated: Vec<String>,
    /// `topic-partition` of those without a leader.
    pub(crate) offline: Vec<String>,
    /// `topic-partition` of those whose replicas are moving.
    pub(crate) reassigning: Vec<String>,
    pub(crate) partitions: Vec<PartitionStatus>,
    /// The alert rules that the controller holds for all nodes; none where each has its own.
    #[serde(default)]
    pub(crate) rules: Option<RuleStamp>,
}

/// The controller quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuorumStatus {
    pub(crate) term: u64,
    /// Up to here entries are committed.
    pub(crate) committed: Option<u64>,
    pub(crate) voters: Vec<i32>,
    /// Nodes that get every entry and do not vote.
    pub(crate) learners: Vec<i32>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) id: i32,
    /// `up`, `fenced`, `stopping`, or `awaited` where it has never been heard of.
    pub(crate) state: String,
    pub(crate) draining: bool,
    pub(crate) controller: bool,
    pub(crate) voter: bool,
    pub(crate) rack: Option<String>,
    /// `host:port` by the listener's name.
    pub(crate) addresses: BTreeMap<String, String>,
    pub(crate) replicas: usize,
    pub(crate) leaderships: usize,
    /// Entries of the quorum's log that it does not have yet; none where the quorum's leader does not know.
    pub(crate) quorum_lag: Option<u64>,
}

/// Where a partition lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartitionStatus {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    pub(crate) adding: Vec<i32>,
    pub(crate) removing: Vec<i32>,
    /// Those that do not have all that the leader has, as it says.
    pub(crate) behind: Vec<FollowerStatus>,
}

/// A follower that is behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FollowerStatus {
    pub(crate) node: i32,
    pub(crate) in_sync: bool,
    pub(crate) records: i64,
    /// As stored.
    pub(crate) bytes: u64,
    /// Since when it has not had all.
    pub(crate) seconds: f64,
}

impl PartitionStatus {
    pub(crate) fn is_troubled(&self) -> bool {
        let moves = !self.adding.is_empty() || !self.removing.is_empty();
        moves || self.leader.is_none() || self.isr.len() < self.replicas.len() || !self.behind.is_empty()
    }
}

/// Asks the nodes of the cluster and puts together what they say.
pub(crate) async fn status(cluster: &Cluster) -> ClusterStatus {
    let reports = cluster.reports().await;
    let image = cluster.metadata().borrow().image.clone();
    put_together(cluster.node(), &image, &reports)
}

fn put_together(here: NodeId, image: &Image, reports: &BTreeMap<NodeId, Report>) -> ClusterStatus {
    let own = reports.get(&here).map(|report| report.quorum.clone()).unwrap_or_default();
    let leader = own.leader.and_then(node_id);
    // Its leader alone knows how far the others are.
    let quorum = leader.and_then(|leader| reports.get(&leader)).map_or(&own, |report| &report.quorum);
    let ids = |members: &BTreeMap<u64, String>| members.keys().copied().filter_map(node_id).map(|id| id.0).collect();
    let voters: Vec<i32> = ids(&quorum.voters);
    let mut behind: BTreeMap<(Uuid, u32), Vec<FollowerStatus>> = BTreeMap::new();
    for one in reports.values().flat_map(|report| &report.behind) {
        behind.entry((one.topic, one.partition)).or_default().push(FollowerStatus {
            node: one.node.0,
            in_sync: one.in_sync,
            records: one.records,
            bytes: one.bytes,
            seconds: one.milliseconds as f64 / 1000.0,
        });
    }
    let nodes = image.nodes().map(|(id, node)| {
        let lag = u64::try_from(id.0).ok().and_then(|raft_id| {
            let matched = quorum.followers.get(&raft_id).map(|follower| follower.matched.unwrap_or(0));
            let matched = if quorum.leader == Some(raft_id) { quorum.last_log } else { matched };
            Some(quorum.last_log?.saturating_sub(matched?))
        });
        describe_node((id, node), image, leader == Some(id), voters.contains(&id.0), lag)
    });
    let mut partitions = Vec::with_capacity(image.partition_count());
    for (_, id) in image.topic_names() {
        let Some(topic) = image.topic(id) else { continue };
        for (index, state) in topic.partitions() {
            let behind = behind.remove(&(id, index)).unwrap_or_default();
            partitions.push(describe_partition(topic, index, state, behind));
        }
    }
    let named = |select: fn(&PartitionState) -> bool| {
        let selected: BTreeSet<(&str, u32)> = image
            .partitions()
            .filter(|(_, _, state)| select(state))
            .map(|(topic, index, _)| (topic.name.as_str(), index))
            .collect();
        selected.into_iter().map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>()
    };
    ClusterStatus {
        cluster_id: image.cluster().map(kafka_id).unwrap_or_default(),
        node: here.0,
        controller: leader.map(|id| id.0),
        quorum: QuorumStatus {
            term: quorum.term,
            committed: quorum.committed,
            learners: ids(&quorum.learners),
            voters: voters.clone(),
        },
        nodes: nodes.collect(),
        partition_count: partitions.len(),
        under_replicated: named(PartitionState::is_under_replicated),
        offline: named(|state| state.leader.is_none()),
        reassigning: named(PartitionState::is_reassigning),
        partitions,
        rules: held_stamp(image),
    }
}

fn describe_node(
    (id, node): (NodeId, &Node),
    image: &Image,
    controller: bool,
    voter: bool,
    quorum_lag: Option<u64>,
) -> NodeStatus {
    let hosting = image.hosting(id);
    let state = match (&node.registration, node.liveness) {
        (None, _) => "awaited",
        (_, Liveness::Unfenced) => "up",
        (_, Liveness::Stopping) => "stopping",
        (_, Liveness::Fenced) => "fenced",
    };
    NodeStatus {
        id: id.0,
        state: state.to_owned(),
        draining: node.draining,
        controller,
        voter,
        rack: node.rack().map(str::to_owned),
        addresses: node.registration.as_ref().map(|known| known.addresses.clone()).unwrap_or_default(),
        replicas: hosting.replicas,
        leaderships: hosting.leaderships,
        quorum_lag,
    }
}

fn describe_partition(
    topic: &Topic,
    index: u32,
    state: &PartitionState,
    mut behind: Vec<FollowerStatus>,
) -> PartitionStatus {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|id| id.0).collect();
    behind.sort_unstable_by_key(|follower| follower.node);
    PartitionStatus {
        topic: topic.name.clone(),
        partition: index,
        leader: state.leader.map(|id| id.0),
        leader_epoch: state.leader_epoch.0,
        replicas: ids(&state.replicas),
        isr: ids(&state.isr),
        adding: ids(&state.adding),
        removing: ids(&state.removing),
        behind,
    }
}

fn node_id(raft_id: u64) -> Option<NodeId> {
    i32::try_from(raft_id).ok().map(NodeId)
}

#[cfg(test)]
mod tests {
    use forebay_cluster::Behind;
    use forebay_cluster::quorum::{Follower, Status};
    use forebay_log::Level;
    use forebay_log::cluster::Record;

    use super::*;

    #[test]
    fn what_nodes_say_is_put_together() {
        let (topic, nodes) = (Uuid::from_u128(9), [1, 2, 3].map(NodeId));
        let mut image = Image::default();
        let id = Uuid::from_u128(1);
        image.apply(&Record::ClusterCreated { id, level: Level(1), nodes: nodes.to_vec() });
        image.apply(&Record::TopicCreated { id: topic, name: "t".to_owned(), config: BTreeMap::new() });
        let state = |leader: Option<i32>, isr: &[i32]| PartitionState {
            replicas: nodes.to_vec(),
            isr: isr.iter().copied().map(NodeId).collect(),
            leader: leader.map(NodeId),
            ..PartitionState::default()
        };
        image.apply(&Record::Partition { topic, index: 0, state: state(Some(2), &[2, 1]) });
        image.apply(&Record::Partition { topic, index: 1, state: state(None, &[3]) });
        image.apply(&Record::Partition { topic, index: 2, state: state(Some(1), &[1, 2, 3]) });

        let followers = BTreeMap::from([(1, Follower { matched: Some(7), ..Follower::default() })]);
        let leader = Status { node: 2, leader: Some(2), term: 5, last_log: Some(9), followers, ..Status::default() };
        let (partition, node) = (0, NodeId(3));
        let late = Behind { topic, partition, node, in_sync: false, records: 4, bytes: 99, milliseconds: 1500 };
        let reports = BTreeMap::from([
            (
                NodeId(1),
                Report { quorum: Status { node: 1, leader: Some(2), ..Status::default() }, behind: Vec::new() },
            ),
            (NodeId(2), Report { quorum: leader, behind: vec![late] }),
        ]);
        let status = put_together(NodeId(1), &image, &reports);
        assert_eq!((status.node, status.controller, status.quorum.term), (1, Some(2), 5));
        assert_eq!(
            (&*status.under_replicated, &*status.offline),
            (&["t-0".to_owned(), "t-1".into()][..], &["t-1".to_owned()][..])
        );
        let lags: Vec<_> = status.nodes.iter().map(|node| (node.id, node.quorum_lag, node.state.as_str())).collect();
        assert_eq!(lags, [(1, Some(2), "awaited"), (2, Some(0), "awaited"), (3, None, "awaited")]);
        let behind = FollowerStatus { node: 3, in_sync: false, records: 4, bytes: 99, seconds: 1.5 };
        assert_eq!(status.partitions[0].behind, [behind]);
        let troubled: Vec<_> = status.partitions.iter().map(PartitionStatus::is_troubled).collect();
        assert_eq!(troubled, [true, true, false]);
    }
}
