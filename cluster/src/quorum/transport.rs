//! How the nodes of a quorum reach each other: opaque bytes there, opaque bytes back.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// The number of a node.
pub type NodeId = u64;

/// The answer that is on its way.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + 'a>>;

/// Carries requests to other nodes, where [`Quorum::serve`](super::Quorum::serve) answers them.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`, of up to [`MAX_MESSAGE`](super::limits::MAX_MESSAGE) bytes, and waits for the answer for as long
    /// as `timeout`. Dropping the future gives up waiting.
    ///
    /// # Errors
    /// When no answer came. The request may have arrived all the same.
    fn call(&self, to: NodeId, request: Bytes, timeout: Duration) -> Answer<'_>;
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct TransportError {
    /// The node cannot be reached now: the quorum pauses before it tries again.
    pub unreachable: bool,
    /// What happened, for a person.
    pub what: String,
}
