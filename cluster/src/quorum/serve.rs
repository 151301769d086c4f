//! Answers what other nodes of the quorum ask.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest};

use super::Quorum;
use super::election::PreVote;
use super::frame;
use super::limits;
use super::network::{AppendHead, SnapshotHead};
use super::transport::NodeId;
use super::wire::{self, Kind};

impl Quorum {
    /// Answers a request that another node's [`Transport`](super::Transport) was given for this one. Whatever is wrong
    /// with it is told in the answer.
    pub async fn serve(&self, request: Bytes) -> Bytes {
        self.answer(&request).await.unwrap_or_else(|why| wire::refusal(&why))
    }

    async fn answer(&self, request: &[u8]) -> Result<Bytes, String> {
        let (kind, head, body) = wire::open_request(request)?;
        match kind {
            Kind::Append => {
                let AppendHead { vote, prev, commit, deaf } = parse(head)?;
                if deaf && !self.inner.election.listens_to_deaf() {
                    return Err("the leader is deaf, and another one is to be elected".to_owned());
                }
                let entries = frame::take_entries(body)?;
                let request = AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit };
                let answer = self.inner.raft().append_entries(request).await;
                if answer.as_ref().is_ok_and(|answer| !matches!(answer, AppendEntriesResponse::HigherVote(_))) {
                    self.inner.election.heard_from_leader(deaf);
                }
                Ok(wire::answer(&answer))
            }
            Kind::Vote => {
                let request: VoteRequest<NodeId> = parse(head)?;
                Ok(wire::answer(&self.inner.raft().vote(request).await))
            }
            Kind::Snapshot => {
                let SnapshotHead { vote, meta, offset, done } = parse(head)?;
                if offset.saturating_add(body.len() as u64) > limits::MAX_SNAPSHOT {
                    return Err(format!("a snapshot of more than {} bytes", limits::MAX_SNAPSHOT));
                }
                let request = InstallSnapshotRequest { vote, meta, offset, data: body.to_vec(), done };
                let answer = self.inner.raft().install_snapshot(request).await;
                if answer.as_ref().is_ok_and(|answer| answer.vote <= vote) {
                    self.inner.election.heard_from_leader(false);
                }
                Ok(wire::answer(&answer))
            }
            Kind::PreVote => {
                let PreVote { last } = parse(head)?;
                Ok(wire::answer(&self.inner.would_vote(last)))
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(head: &[u8]) -> Result<T, String> {
    serde_json::from_slice(head).map_err(|error| error.to_string())
}
