//! One QUIC connection by EMQX's convention: the first bidirectional stream is control, further ones are data streams that wait
//! for CONNECT to be accepted; when control ends the connection is closed.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::sessions::Sessions;
use crate::log_limit::LogLimit;
use crate::mqtt::connection::{Ended, Peer};

/// Error codes of the connection's close (EMQX's convention).
const CONTROL_LOST: VarInt = VarInt::from_u32(1);
const OVERLOADED: VarInt = VarInt::from_u32(2);

/// How long the handshake may take, and then the first stream. CONNECT's own time limit is the session's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Data streams that may wait for CONNECT to be accepted.
const MAX_PARKED: usize = 8;

/// How long the last packets on the control stream may take to reach the client before the connection is closed under them.
const LAST_WORDS: Duration = Duration::from_secs(1);

static HANDSHAKE_FAILED: LogLimit = LogLimit::new(5);
static STREAM_REFUSED: LogLimit = LogLimit::new(5);

/// Runs a connection from its first packet to its end. `permit` bounds the handshakes under way.
pub(super) async fn serve<S: Sessions>(
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
    sessions: S,
    shutdown: CancellationToken,
) {
    let address = incoming.remote_address();
    let connection = match handshake(incoming).await {
        Ok(connection) => connection,
        Err(error) => {
            if let Some(suppressed) = HANDSHAKE_FAILED.admit() {
                tracing::info!(%address, suppressed, "QUIC handshake failed: {error}");
            }
            return;
        }
    };
    drop(permit);
    let first = tokio::select! {
        first = timeout(HANDSHAKE_TIMEOUT, connection.accept_bi()) => first,
        () = shutdown.cancelled() => return connection.close(CONTROL_LOST, b"shutting down"),
    };
    let Ok(Ok((writer, reader))) = first else {
        return connection.close(CONTROL_LOST, b"no control stream");
    };
    let delivered = writer.stopped();
    let (accept, accepted) = oneshot::channel();
    let peer = Peer { transport: "quic", address: address.to_string() };
    let control = sessions.control(peer, reader, writer, shutdown, accept);
    let (ended, last_acks) = with_data_streams::<S>(&connection, control, accepted).await;
    // Closing drops what is still on its way: the last acks, a DISCONNECT with the reason.
    let _ = timeout(LAST_WORDS, async { tokio::join!(delivered, last_acks) }).await;
    match ended {
        Ended::Normal => connection.close(CONTROL_LOST, b"control stream ended"),
        Ended::Overloaded => connection.close(OVERLOADED, b"overloaded"),
    }
}

async fn handshake(incoming: Incoming) -> Result<Connection, ConnectionError> {
    timeout(HANDSHAKE_TIMEOUT, incoming.accept()?).await.unwrap_or(Err(ConnectionError::TimedOut))
}

/// Drives `control` to its end and the data streams beside it, in one task: they are few and share one session. The future given
/// back lets the data streams write their last acks and completes when the client has got them.
async fn with_data_streams<S: Sessions>(
    connection: &Connection,
    control: impl Future<Output = Ended>,
    mut accepted: oneshot::Receiver<S::Handle>,
) -> (Ended, impl Future<Output = ()>) {
    let mut control = pin!(control);
    let mut handle: Option<S::Handle> = None;
    let mut parked: Vec<(SendStream, RecvStream)> = Vec::new();
    let mut streams = FuturesUnordered::new();
    let mut deliveries = FuturesUnordered::new();
    let mut accepting = true;
    let ended = loop {
        tokio::select! {
            ended = &mut control => break ended,
            Some(()) = streams.next() => {}
            Some(_) = deliveries.next() => {}
            Ok(session) = &mut accepted, if handle.is_none() => {
                for (writer, reader) in parked.drain(..) {
                    deliveries.push(writer.stopped());
                    streams.push(S::data(session.clone(), reader.id().index(), reader, writer));
                }
                handle = Some(session);
            }
            opened = connection.accept_bi(), if accepting => match (opened, &handle) {
                (Ok((writer, reader)), Some(session)) => {
                    deliveries.push(writer.stopped());
                    streams.push(S::data(session.clone(), reader.id().index(), reader, writer));
                }
                (Ok(stream), None) if parked.len() < MAX_PARKED => parked.push(stream),
                (Ok((mut writer, mut reader)), None) => {
                    if let Some(suppressed) = STREAM_REFUSED.admit() {
                        let address = connection.remote_address();
                        tracing::info!(%address, suppressed, "more than {MAX_PARKED} QUIC streams before CONNECT was accepted");
                    }
                    // Fails only if the stream is closed already.
                    let _ = (writer.reset(OVERLOADED), reader.stop(OVERLOADED));
                }
                // The connection is lost; control finds out by itself and ends as its session wants.
                (Err(_), _) => accepting = false,
            },
        }
    };
    let rest = async move {
        while streams.next().await.is_some() {}
        while deliveries.next().await.is_some() {}
    };
    (ended, rest)
}
