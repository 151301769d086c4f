//! What a node does with the requests of others.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::body::Body;
use super::error::ServiceError;
use super::identity::Peer;

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What becomes of a request.
pub type Answer = BoxFuture<Result<Body, ServiceError>>;

/// A request of another node, of a kind and version that this node has said that it speaks.
#[derive(Debug)]
pub struct Request {
    pub kind: u16,
    pub version: u16,
    pub body: Bytes,
    /// Nobody waits for an answer; what it ends with is dropped.
    pub one_way: bool,
}

/// A request that was begun.
pub enum Begun {
    /// All of it is done by the answer's future, which runs in a task of its own beside others.
    Beside(Answer),
    /// What must happen in the order of arrival, such as the submitting of an append: the connection begins no other
    /// request until this is done. What remains, such as the wait for the sync, runs beside others.
    InOrder(BoxFuture<Rest>),
}

/// What remains to be done when the part of a request is done that its order matters for.
pub struct Rest(pub(super) Answer);

impl Begun {
    pub fn beside(answer: impl Future<Output = Result<Body, ServiceError>> + Send + 'static) -> Begun {
        Begun::Beside(Box::pin(answer))
    }

    pub fn in_order(begin: impl Future<Output = Rest> + Send + 'static) -> Begun {
        Begun::InOrder(Box::pin(begin))
    }
}

impl Rest {
    pub fn new(answer: impl Future<Output = Result<Body, ServiceError>> + Send + 'static) -> Rest {
        Rest(Box::pin(answer))
    }
}

/// Handles requests. Those of one connection are begun one by one in the order of their arrival.
pub trait Service: Send + Sync + 'static {
    /// Must not block. An answer goes on when the connection that asked for it is lost: it is only not sent. Requests
    /// are bounded by number and bytes, answers by number: a service that makes large ones bounds their bytes itself.
    fn begin(&self, peer: &Arc<Peer>, request: Request) -> Begun;
}
