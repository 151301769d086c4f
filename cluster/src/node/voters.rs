//! Who votes in the controller quorum, changed from any node: the quorum's leader is asked.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::NodeId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::limits::VOTER_AGAIN;
use super::service::MALFORMED;
use super::{Cluster, Inner, raft_id};
use crate::kinds;
use crate::link::{Body, Lane, ServiceError};
use crate::quorum::MemberError;

/// Why a node does not vote from now on, or still does.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VoterError {
    #[error("{0}")]
    Refused(String),
    /// It may be done all the same.
    #[error("the controller quorum has not changed in time: {0}")]
    Unavailable(String),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Change {
    node: NodeId,
    votes: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Changed {
    Done,
    Refused(String),
    /// Another node leads the quorum, or what becomes of it is not known.
    Elsewhere(String),
}

impl Cluster {
    /// Has a node vote in the controller quorum, or not any more. Done again, it changes nothing.
    ///
    /// # Errors
    /// The node does not follow the quorum yet, or would be the last voter to go; no leader in time.
    pub async fn set_voter(&self, node: NodeId, votes: bool, patience: Duration) -> Result<(), VoterError> {
        let deadline = Instant::now() + patience;
        let mut why = "nobody leads it".to_owned();
        while Instant::now() < deadline {
            let leader = self.quorum().leader.and_then(|id| i32::try_from(id).ok()).map(NodeId);
            if let Some(leader) = leader {
                match self.ask_leader(leader, Change { node, votes }, deadline).await {
                    Changed::Done => return Ok(()),
                    Changed::Refused(why) => return Err(VoterError::Refused(why)),
                    Changed::Elsewhere(reason) => why = reason,
                }
            }
            tokio::time::sleep(VOTER_AGAIN).await;
        }
        Err(VoterError::Unavailable(why))
    }

    async fn ask_leader(&self, leader: NodeId, change: Change, deadline: Instant) -> Changed {
        if leader == self.inner.node {
            return apply(&self.inner, change).await;
        }
        let body = Bytes::from(serde_json::to_vec(&change).unwrap_or_default());
        let left = deadline.saturating_duration_since(Instant::now());
        let encode = move |_| Body::from(body.clone());
        match self.inner.links.call(leader.0, Lane::Control, kinds::VOTER, encode, left).await {
            Ok((_, answer)) => serde_json::from_slice(&answer)
                .unwrap_or_else(|error| Changed::Elsewhere(format!("the answer of node {leader}: {error}"))),
            Err(error) => Changed::Elsewhere(format!("node {leader}: {error}")),
        }
    }
}

pub(super) async fn serve(inner: &Inner, body: &Bytes) -> Result<Changed, ServiceError> {
    let change = serde_json::from_slice(body)
        .map_err(|error| ServiceError::new(MALFORMED, format!("a change of who votes: {error}")))?;
    Ok(apply(inner, change).await)
}

async fn apply(inner: &Inner, Change { node, votes }: Change) -> Changed {
    let status = inner.quorum.status();
    if status.leader != Some(status.node) {
        return Changed::Elsewhere(format!("node {} does not lead the quorum", inner.node));
    }
    let id = raft_id(node);
    let mut voters: BTreeSet<u64> = status.voters.keys().copied().collect();
    let changes = if votes { voters.insert(id) } else { voters.remove(&id) };
    if !changes {
        return Changed::Done;
    }
    let follows = status.followers.get(&id).is_some_and(|follower| follower.matched.is_some());
    if votes && !follows {
        let why =
            format!("node {node} does not follow the controller quorum yet: start it, and try again when it does");
        return Changed::Refused(why);
    }
    match inner.quorum.change_voters(voters).await {
        Ok(()) => Changed::Done,
        Err(MemberError::Refused(why)) => Changed::Refused(why),
        Err(error) => Changed::Elsewhere(error.to_string()),
    }
}
