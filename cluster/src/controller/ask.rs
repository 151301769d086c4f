//! Asks the controller, wherever it is, until it answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::NodeId;
use forebay_log::cluster::{Refusal, Reply, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::active::Asked;
use super::limits::{ASK_AGAIN, TRY};
use crate::kinds;
use crate::link::{Body, Lane, LinkError, Links};
use crate::quorum::{Leadership, Quorum};

/// What a node says to a request for the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Decided(Result<Reply, Refusal>),
    /// It is not the active controller, and believes that this node is.
    NotController {
        leader: Option<NodeId>,
    },
    /// It was, and is not any more: the request may be decided or not.
    Unknown,
}

/// Why the controller has not done what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request may have been decided.
    #[error("the controller has not answered in time: {0}")]
    Unavailable(String),
}

/// The way to the controller.
pub(crate) struct Client {
    pub(crate) node: NodeId,
    /// Without one yet, the configured peers are asked.
    pub(crate) quorum: Quorum,
    pub(crate) requests: mpsc::Sender<Asked>,
    pub(crate) links: Arc<Links>,
}

impl Client {
    /// Asks until there is an answer or `timeout` has passed. A request whose outcome is unknown is asked again: each of them may
    /// come twice.
    ///
    /// # Errors
    /// A refusal, or no controller in time.
    pub(crate) async fn ask(&self, request: Request, timeout: Duration) -> Result<Reply, AskError> {
        let deadline = Instant::now() + timeout;
        let mut hint: Option<NodeId> = None;
        let mut turn = 0;
        let mut why = "there is none".to_owned();
        let mut leadership = self.quorum.leadership();
        while Instant::now() < deadline {
            let known = leadership.borrow_and_update().leader.and_then(|id| i32::try_from(id).ok()).map(NodeId);
            let Some(to) = hint.take().or(known).or_else(|| self.any_peer(&mut turn)) else {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now()).min(TRY);
            let answer = tokio::select! {
                answer = self.ask_one(to, request.clone(), left) => answer,
                // It may be dead, and there is another now: this one is not waited for.
                () = deposed(&mut leadership, to) => {
                    why = format!("node {to} is not the controller any more");
                    continue;
                }
            };
            match answer {
                Ok(Answer::Decided(decided)) => match decided {
                    // Of another time: there is a newer one.
                    Err(Refusal::NotController | Refusal::NoCluster) => {}
                    decided => return Ok(decided?),
                },
                Ok(Answer::NotController { leader }) => {
                    why = format!("node {to} is not the controller");
                    hint = leader.filter(|leader| *leader != to);
                    if hint.is_some() {
                        continue;
                    }
                }
                Ok(Answer::Unknown) => why = format!("node {to} has ceased to be the controller"),
                Err(error) => why = format!("node {to}: {error}"),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Err(AskError::Unavailable(why))
    }

    fn any_peer(&self, turn: &mut usize) -> Option<NodeId> {
        let peers = self.links.addresses();
        *turn += 1;
        peers.get(*turn % peers.len().max(1)).map(|(id, _)| NodeId(*id))
    }

    async fn ask_one(&self, to: NodeId, request: Request, timeout: Duration) -> Result<Answer, LinkError> {
        if to == self.node {
            let answer = tokio::time::timeout(timeout, ask_here(&self.requests, request)).await;
            return answer.map_err(|_| LinkError::Unknown("it has not answered in time".to_owned()));
        }
        let body = Bytes::from(serde_json::to_vec(&request).unwrap_or_default());
        let encode = move |_| Body::from(body.clone());
        let (_, answer) = self.links.call(to.0, Lane::Control, kinds::CONTROLLER, encode, timeout).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| LinkError::Unknown(format!("its answer cannot be read: {error}")))
    }
}

/// Completes when another node than `asked` leads the quorum.
async fn deposed(leadership: &mut watch::Receiver<Leadership>, asked: NodeId) {
    let asked = u64::try_from(asked.0).ok();
    let other = |now: &Leadership| now.leader.is_some_and(|leader| Some(leader) != asked);
    if leadership.wait_for(other).await.is_ok() {
        return;
    }
    std::future::pending().await
}

/// Asks the controller of this node.
pub(crate) async fn ask_here(requests: &mpsc::Sender<Asked>, request: Request) -> Answer {
    let (answer, answered) = oneshot::channel();
    if requests.send(Asked { request, answer }).await.is_err() {
        return Answer::NotController { leader: None };
    }
    answered.await.unwrap_or(Answer::Unknown)
}
