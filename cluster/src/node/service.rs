//! What this node does with the messages of others.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use forebay_log::cluster::Request as ControllerRequest;
use forebay_log::{Incarnation, NodeId};

use super::{Inner, report, voters};
use crate::codec::Malformed;
use crate::controller::ask_here;
use crate::forward::{Claimed, Fence, Read, Receiver};
use crate::kinds;
use crate::link::{Begun, Body, Lane, LinkError, Links, Peer, Request, Rest, Service, ServiceError};
use crate::quorum::{self, Transport, TransportError};

/// The message cannot be read.
pub(super) const MALFORMED: u16 = 1;
/// The node has only just started.
const NOT_READY: u16 = 2;

/// Answers for a node that is still being put together, and then for it.
#[derive(Default)]
pub(super) struct NodeService {
    pub(super) inner: OnceLock<Weak<Inner>>,
}

impl Service for NodeService {
    fn begin(&self, peer: &Arc<Peer>, request: Request) -> Begun {
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else {
            return Begun::beside(async { Err(ServiceError::new(NOT_READY, "the node is starting")) });
        };
        let (from, incarnation) = (NodeId(peer.identity.node), Incarnation(peer.identity.incarnation));
        let body = request.body;
        match request.kind {
            kinds::QUORUM => Begun::beside(async move { Ok(inner.quorum.serve(body).await.into()) }),
            kinds::CONTROLLER => Begun::beside(async move { ask(&inner, &body).await }),
            kinds::PULL => match inner.feeder.begin_pull(from, incarnation, body) {
                Ok(answer) => Begun::beside(async move { Ok(answer.await) }),
                Err(problem) => refuse(problem),
            },
            kinds::ENDS => Begun::in_order(async move {
                let taken = inner.feeder.ends(from, incarnation, body).await;
                Rest::new(async move { taken.map(|()| Body::default()).map_err(malformed) })
            }),
            kinds::APPEND => match Receiver::read(body, request.version) {
                Ok(appends) => {
                    let receiver = Arc::clone(&inner.receiver);
                    Begun::in_order(receiver.begin((from, incarnation), appends))
                }
                Err(problem) => refuse(problem),
            },
            kinds::CLAIMED => match Claimed::decode(body) {
                Ok(claimed) => {
                    let receiver = Arc::clone(&inner.receiver);
                    Begun::beside(async move { Ok(claimed.answer(&receiver).await) })
                }
                Err(problem) => refuse(problem),
            },
            kinds::FENCE => match Fence::decode(body) {
                Ok(fence) => {
                    let receiver = Arc::clone(&inner.receiver);
                    Begun::beside(async move { Ok(fence.answer(&receiver).await) })
                }
                Err(problem) => refuse(problem),
            },
            kinds::REPORT => Begun::beside(async move { answer(&report::of(&inner).await) }),
            kinds::VOTER => Begun::beside(async move { answer(&voters::serve(&inner, &body).await?) }),
            kinds::READ => match Read::decode(body) {
                Ok(read) => Begun::beside(async move {
                    let holds_lease = || inner.standing.borrow().holds_lease();
                    Ok(read.answer(&inner.replicas, holds_lease).await)
                }),
                Err(problem) => refuse(problem),
            },
            kind => {
                Begun::beside(async move { Err(ServiceError::new(MALFORMED, format!("no message of kind {kind}"))) })
            }
        }
    }
}

async fn ask(inner: &Inner, body: &Bytes) -> Result<Body, ServiceError> {
    let request: ControllerRequest = serde_json::from_slice(body)
        .map_err(|error| ServiceError::new(MALFORMED, format!("a request to the controller: {error}")))?;
    answer(&ask_here(&inner.client.requests, request).await)
}

fn answer(what: &impl serde::Serialize) -> Result<Body, ServiceError> {
    let answer = serde_json::to_vec(what).map_err(|error| ServiceError::new(MALFORMED, error.to_string()))?;
    Ok(Bytes::from(answer).into())
}

fn malformed(problem: Malformed) -> ServiceError {
    ServiceError::new(MALFORMED, problem.to_string())
}

fn refuse(problem: Malformed) -> Begun {
    Begun::beside(async move { Err(malformed(problem)) })
}

/// Carries the quorum's messages over the links.
pub(super) struct QuorumLinks(pub(super) Arc<Links>);

impl Transport for QuorumLinks {
    fn call(&self, to: quorum::NodeId, request: Bytes, timeout: Duration) -> quorum::Answer<'_> {
        let links = Arc::clone(&self.0);
        Box::pin(async move {
            let unknown = |what: String| TransportError { unreachable: true, what };
            let to = i32::try_from(to).map_err(|_| unknown(format!("no node has the id {to}")))?;
            let encode = move |_| Body::from(request.clone());
            let called = links.call(to, Lane::Control, kinds::QUORUM, encode, timeout).await;
            called.map(|(_, answer)| answer).map_err(|error| TransportError {
                unreachable: !matches!(error, LinkError::TooLarge { .. }),
                what: error.to_string(),
            })
        })
    }
}
