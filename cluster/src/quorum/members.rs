//! Who belongs to the quorum, changed while it runs.

use std::collections::{BTreeMap, BTreeSet};

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};

use super::Quorum;
use super::errors::MemberError;
use super::transport::NodeId;

impl Quorum {
    /// Adds a node that gets every entry and does not vote, or gives one another address. Returns when that is committed,
    /// not when the node has everything: see [`Status::followers`](super::Status::followers).
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_learner(&self, node: NodeId, address: String) -> Result<(), MemberError> {
        let nodes = BTreeMap::from([(node, BasicNode::new(address))]);
        // Addresses are for people; the transport finds a node by its number, so replacing one cannot split the quorum.
        self.change(ChangeMembers::SetNodes(nodes), true).await
    }

    /// Makes exactly `voters` vote; each of them must be a member. A voter that is not among them stays as a learner.
    /// Safe at any time: while it is under way, majorities of the old and the new voters are needed.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MemberError> {
        if voters.is_empty() {
            return Err(MemberError::Refused("no voter would be left".to_owned()));
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters), true).await
    }

    /// Takes a node out, whether it votes or not.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove(&self, node: NodeId) -> Result<(), MemberError> {
        let votes = self.inner.running.load().metrics.borrow().membership_config.voter_ids().any(|id| id == node);
        let nodes = BTreeSet::from([node]);
        let change = if votes { ChangeMembers::RemoveVoters(nodes) } else { ChangeMembers::RemoveNodes(nodes) };
        self.change(change, false).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, BasicNode>, retain: bool) -> Result<(), MemberError> {
        if self.inner.has_stopped() {
            return Err(MemberError::Closed);
        }
        let raft = self.inner.raft();
        let changed = raft.change_membership(change, retain);
        match tokio::time::timeout(self.inner.options.timings.proposal, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(MemberError::NotLeader { leader: to.leader_id })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(why)))) => {
                Err(MemberError::Refused(why.to_string()))
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(MemberError::Unknown(fatal.to_string())),
            Err(_) => Err(MemberError::Unknown("a majority has not answered in time".to_owned())),
        }
    }
}
