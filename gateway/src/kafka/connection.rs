//! One Kafka connection: frames in, requests carried out in order, answers out in the same order.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::Shared;
use super::api::Api;
use super::authentication::{Authentication, Login, Next, NoReply, Refusal, Step};
use super::dispatch::{Pending, dispatch};
use super::limits::{
    DRAIN_TIMEOUT, FAILED_LOGIN_DELAY, FIRST_REQUEST, FRAME_TIMEOUT, IDLE, LOG_LINES, LOGIN_TIMEOUT, MAX_IN_FLIGHT,
    MAX_LOGIN_BYTES, MAX_REQUEST_BYTES, MAX_SMALL_REQUEST_BYTES, MEMORY_UNIT, MIN_WRITE_RATE, READ_AHEAD,
    SMALL_FRAME_BYTES, WRITE_TIMEOUT,
};
use super::request::{Unreadable, parse};
use super::session::Session;
use crate::log_limit::LogLimit;

static CLOSED: LogLimit = LogLimit::new(LOG_LINES);
static NOT_LET_IN: LogLimit = LogLimit::new(LOG_LINES);

/// Why a connection reads no further.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the client")]
    Gone,
    #[error("the node shuts down")]
    Drain,
    #[error("idle")]
    Idle,
    #[error("a request did not arrive in time")]
    Slow,
    #[error("a frame of {0} bytes is not a request")]
    Length(i32),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Unauthenticated(Refusal),
    #[error("no login within {} s", LOGIN_TIMEOUT.as_secs())]
    NoLogin,
}

impl From<NoReply> for End {
    fn from(why: NoReply) -> End {
        match why {
            NoReply::Unreadable(why) => End::Unreadable(why),
            NoReply::Refused(why) => End::Unauthenticated(why),
        }
    }
}

/// A request under way: its answer, and what its metrics need.
struct InFlight {
    answer: Pending,
    api: &'static Api,
    began: Instant,
}

/// Serves a connection until it ends.
pub(crate) async fn run<R, W>(shared: Arc<Shared>, reader: R, writer: W, peer: SocketAddr, login: Login)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (queue, answers) = mpsc::channel(MAX_IN_FLIGHT);
    let mut writing = std::pin::pin!(write_answers(&shared, writer, answers));
    let end = tokio::select! {
        end = read_requests(&shared, reader, peer, login, queue) => end,
        () = &mut writing => End::Gone,
    };
    match &end {
        End::Gone | End::Idle => return,
        End::Drain => {}
        End::Unauthenticated(_) | End::NoLogin => {
            shared.door.metrics.kafka.authentication_failures.inc();
            if let Some(suppressed) = NOT_LET_IN.admit() {
                tracing::warn!(%peer, reason = %end, suppressed, "Kafka client not let in");
            }
            // Guessing takes time: the last answer leaves after this.
            tokio::time::sleep(FAILED_LOGIN_DELAY).await;
        }
        End::Slow | End::Length(_) | End::Unreadable(_) => {
            shared.door.metrics.kafka.refused.inc();
            if let Some(suppressed) = CLOSED.admit() {
                tracing::warn!(%peer, reason = %end, suppressed, "Kafka connection closed");
            }
        }
    }
    // What was accepted before is still answered.
    let _ = timeout(DRAIN_TIMEOUT, writing).await;
}

async fn read_requests<R: AsyncRead + Unpin>(
    shared: &Arc<Shared>,
    mut reader: R,
    peer: SocketAddr,
    mut login: Login,
    queue: mpsc::Sender<InFlight>,
) -> End {
    let mut buffer = BytesMut::new();
    let session = loop {
        let authentication = match &mut login {
            Login::Done(session) => break Arc::clone(session),
            Login::Open(authentication) => authentication,
        };
        match log_in(shared, &mut reader, &mut buffer, authentication, &queue).await {
            Ok(Some(session)) => login = Login::Done(session),
            Ok(None) => {}
            Err(end) => return end,
        }
    };
    let mut patience = FIRST_REQUEST;
    loop {
        let muted = session.muted();
        if muted > Duration::ZERO && shared.shutdown.run_until_cancelled(tokio::time::sleep(muted)).await.is_none() {
            return End::Drain;
        }
        let frame = tokio::select! {
            frame = next_frame(shared, &mut reader, &mut buffer, patience, MAX_REQUEST_BYTES) => frame,
            () = shared.shutdown.cancelled() => return End::Drain,
        };
        patience = IDLE;
        let step = async {
            let (frame, memory) = frame?;
            let began = Instant::now();
            let request = parse(frame)?;
            let api = request.api;
            Ok(InFlight { answer: dispatch(shared, &session, peer, request, memory).await?, api, began })
        };
        match step.await {
            Ok(in_flight) => {
                if queue.send(in_flight).await.is_err() {
                    return End::Gone;
                }
            }
            Err(end) => return end,
        }
    }
}

/// Takes one frame of who has not logged in yet; the session, when that was the last one needed.
async fn log_in<R: AsyncRead + Unpin>(
    shared: &Arc<Shared>,
    reader: &mut R,
    buffer: &mut BytesMut,
    authentication: &mut Authentication,
    queue: &mpsc::Sender<InFlight>,
) -> Result<Option<Arc<Session>>, End> {
    let patience = authentication.patience();
    let next = timeout(patience, next_frame(shared, reader, buffer, IDLE, MAX_LOGIN_BYTES));
    let frame = tokio::select! {
        frame = next => frame.unwrap_or(Err(End::NoLogin)),
        () = shared.shutdown.cancelled() => return Err(End::Drain),
    };
    let (frame, _memory) = frame?;
    let began = Instant::now();
    let Step { api, mut reply, next } = authentication.step(shared, frame)?;
    reply.close |= matches!(next, Next::Failed(_));
    let answer = Box::pin(std::future::ready(reply));
    queue.send(InFlight { answer, api, began }).await.map_err(|_| End::Gone)?;
    match next {
        Next::GoOn => Ok(None),
        Next::Done(session) => Ok(Some(session)),
        Next::Failed(refusal) => Err(End::Unauthenticated(refusal)),
    }
}

/// The next whole frame, without its length, and its share of the door's memory. `patience`: how long it may take to begin;
/// `most`: how many bytes it may have.
async fn next_frame<R: AsyncRead + Unpin>(
    shared: &Shared,
    reader: &mut R,
    buffer: &mut BytesMut,
    patience: Duration,
    most: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), End> {
    /// Length and API key: what decides how long the frame may be.
    const START: usize = 6;
    timeout(patience, fill(reader, buffer, START)).await.map_err(|_| End::Idle)??;
    let length = i32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let key = i16::from_be_bytes([buffer[4], buffer[5]]);
    let allowed = if key == ApiKey::Produce as i16 { MAX_REQUEST_BYTES } else { MAX_SMALL_REQUEST_BYTES };
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size > allowed.min(most) || size < START - 4 {
        return Err(End::Length(length));
    }
    let units = u32::try_from(size.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
    let share =
        async |memory: &Arc<Semaphore>| Arc::clone(memory).acquire_many_owned(units).await.map_err(|_| End::Drain);
    let whole = size + 4;
    timeout(FRAME_TIMEOUT, fill(reader, buffer, whole.min(SMALL_FRAME_BYTES))).await.map_err(|_| End::Slow)??;
    let memory = if whole <= SMALL_FRAME_BYTES {
        share(&shared.small_request_memory).await?
    } else {
        let memory = share(&shared.request_memory).await?;
        timeout(FRAME_TIMEOUT, fill(reader, buffer, whole)).await.map_err(|_| End::Slow)??;
        memory
    };
    shared.door.metrics.kafka.received_bytes.inc_by(size as u64 + 4);
    let mut frame = buffer.split_to(size + 4).freeze();
    frame.advance(4);
    Ok((frame, memory))
}

/// Reads until `buffer` holds `wanted` bytes; it grows with what comes, not with what is announced.
async fn fill<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut, wanted: usize) -> Result<(), End> {
    while buffer.len() < wanted {
        buffer.reserve((wanted - buffer.len()).clamp(4096, READ_AHEAD));
        if reader.read_buf(buffer).await.unwrap_or(0) == 0 {
            return Err(End::Gone);
        }
    }
    Ok(())
}

/// Awaits answers in the order of their requests; those that are ready together leave in one write.
async fn write_answers<W: AsyncWrite + Unpin>(shared: &Shared, mut writer: W, mut answers: mpsc::Receiver<InFlight>) {
    let metrics = &shared.door.metrics.kafka;
    let mut next = answers.recv().await;
    while let Some(InFlight { mut answer, api, began }) = next {
        let mut reply = (&mut answer).await;
        metrics.answered(api.name, began.elapsed());
        let mut pieces: VecDeque<Bytes> = std::mem::take(&mut reply.pieces).into();
        let mut held = vec![reply];
        next = None;
        while held.len() < MAX_IN_FLIGHT && !held.iter().any(|reply| reply.close) {
            let Ok(mut following) = answers.try_recv() else { break };
            let Some(mut reply) = (&mut following.answer).now_or_never() else {
                next = Some(following);
                break;
            };
            metrics.answered(following.api.name, following.began.elapsed());
            pieces.extend(std::mem::take(&mut reply.pieces));
            held.push(reply);
        }
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        // A client that reads a little now and then must not hold the door's memory for ever.
        let allowed = WRITE_TIMEOUT + Duration::from_secs((bytes / MIN_WRITE_RATE) as u64);
        if !matches!(timeout(allowed, write_all(&mut writer, pieces)).await, Ok(Ok(()))) {
            return;
        }
        metrics.sent_bytes.inc_by(bytes as u64);
        if held.iter().any(|reply| reply.close) {
            return;
        }
        drop(held);
        if next.is_none() {
            next = answers.recv().await;
        }
    }
    let _ = writer.shutdown().await;
}

/// Writes the pieces one after the other without joining them.
async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, mut pieces: VecDeque<Bytes>) -> io::Result<()> {
    const SLICES: usize = 64;
    pieces.retain(|piece| !piece.is_empty());
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let mut written = writer.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            pieces.pop_front();
        }
    }
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_written_in_order_through_a_narrow_pipe() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let pieces: VecDeque<Bytes> = (0..100u8).map(|i| Bytes::from(vec![i; usize::from(i % 5)])).collect();
        let expected: Vec<u8> = pieces.iter().flatten().copied().collect();
        let writing = tokio::spawn(async move { write_all(&mut near, pieces).await });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(got, expected);
    }
}
