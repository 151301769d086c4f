//! The connection loop that TCP, TLS and QUIC share: bytes in, session machine, appends, acks and deliveries out.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Broker;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// "tcp", "tls", "ws", "wss" or "quic"
    pub transport: &'static str,
    pub address: String,
}

/// How a connection ended, for a transport that has codes of its own (QUIC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Normal,
    /// Refused because the node has as many connections as it may have.
    Overloaded,
}

/// An accepted session to which further streams of the same connection may attach. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    _private: (),
}

impl SessionHandle {
    /// Completes when the session's connection has ended.
    pub async fn closed(&self) {
        todo!()
    }
}

/// Runs one connection from CONNECT to its end. `accepted` learns the session once CONNECT is accepted (dropped if it is not).
pub async fn run<R, W>(
    broker: Arc<Broker>,
    peer: Peer,
    reader: R,
    writer: W,
    shutdown: CancellationToken,
    accepted: Option<oneshot::Sender<SessionHandle>>,
) -> Ended
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let _ = (broker, peer, reader, writer, shutdown, accepted);
    todo!()
}

/// Runs a data stream of an accepted session: packet types 3 to 11, acks on the same stream. Returns at the stream's end.
pub async fn run_data_stream<R, W>(handle: SessionHandle, stream_id: u64, reader: R, writer: W)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let _ = (handle, stream_id, reader, writer);
    todo!()
}
