//! What a node knows of its quorum, for `cluster status` and Kafka's DescribeQuorum (KIP-595).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::transport::NodeId;

/// Who leads, as this node knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Grows with each election; a term has one leader at most.
    pub term: u64,
    /// `None` while nobody leads; also after the longest election timeout on a node that has not heard from the leader, and
    /// on a leader that a majority has not answered.
    pub leader: Option<NodeId>,
}

/// The quorum as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub node: NodeId,
    pub term: u64,
    pub leader: Option<NodeId>,
    /// Index of the last entry in the log.
    pub last_log: Option<u64>,
    /// Up to here entries are known to be committed.
    pub committed: Option<u64>,
    /// Up to here entries are applied to the machine.
    pub applied: Option<u64>,
    /// The last entry that the snapshot covers.
    pub snapshot: Option<u64>,
    /// Voters with their addresses.
    pub voters: BTreeMap<NodeId, String>,
    /// Nodes that get every entry and do not vote, with their addresses.
    pub learners: BTreeMap<NodeId, String>,
    /// On the leader: how far each other node is.
    pub followers: BTreeMap<NodeId, Follower>,
}

/// How far a follower is, as the leader knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Follower {
    /// The last entry that is known to be durable there.
    pub matched: Option<u64>,
    /// How long ago its last answer to the leader was.
    pub answered: Option<Duration>,
    /// How long ago it is known to have had all of the leader's log.
    pub caught_up: Option<Duration>,
}
