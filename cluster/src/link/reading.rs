//! Reads frames from a connection, and notices when it is silent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};

use super::counters::{PeerCounters, add};
use super::frame::Header;
use super::identity::Lane;
use super::limits::{BODY_BYTES_PER_SECOND, BODY_PATIENCE, FRAME_HEADER_BYTES, Options, READ_BUFFER_BYTES};
use crate::codec::Malformed;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Loss {
    #[error("the other side closed the connection")]
    Closed,
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("nothing heard for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("a frame was not there after {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("nothing could be written for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error("not what a link carries: {0}")]
    Garbage(String),
    #[error("the other side said goodbye: {0}")]
    Goodbye(String),
    #[error("the link was closed here")]
    Stopped,
}

impl From<Malformed> for Loss {
    fn from(error: Malformed) -> Self {
        Loss::Garbage(error.to_string())
    }
}

/// When the writer last got bytes into a socket that had been full: a sign of life, as the other side has taken what
/// was before them. While a large frame is written no ping gets out, so none is answered.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    millis: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Arc<Pulse> {
        Arc::new(Pulse { start: Instant::now(), millis: AtomicU64::new(0) })
    }

    pub(super) fn beat(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis.max(1), Ordering::Relaxed);
    }

    fn beat_within(&self, time: Duration) -> bool {
        let last = self.millis.load(Ordering::Relaxed);
        last > 0 && self.start.elapsed().saturating_sub(Duration::from_millis(last)) < time
    }
}

pub(super) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    max_frame: usize,
    dead_after: Duration,
    pulse: Arc<Pulse>,
    counters: Arc<PeerCounters>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(io: R, lane: Lane, options: &Options, pulse: Arc<Pulse>, counters: Arc<PeerCounters>) -> Self {
        let (max_frame, dead_after) = (options.max_frame(lane), options.dead_after);
        FrameReader { io, buffer: BytesMut::new(), max_frame, dead_after, pulse, counters }
    }

    /// The next header, and how many bytes of body [`FrameReader::body`] must be asked for. May be cancelled.
    pub(super) async fn header(&mut self) -> Result<(Header, usize), Loss> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() {
                let read = Header::read(header, self.max_frame)?;
                self.buffer.advance(FRAME_HEADER_BYTES);
                return Ok(read);
            }
            self.buffer.reserve(READ_BUFFER_BYTES);
            let space = READ_BUFFER_BYTES - self.buffer.len().min(READ_BUFFER_BYTES - 1);
            let mut into = (&mut self.buffer).limit(space);
            let read = some(&mut self.io, &mut into, self.dead_after, &self.pulse).await?;
            add(&self.counters.bytes_in, read);
        }
    }

    /// The body after a header, in memory of its own. One that comes in drops would hold what is kept for it for as long.
    pub(super) async fn body(&mut self, length: usize) -> Result<Bytes, Loss> {
        let here = length.min(self.buffer.len());
        if here == length {
            let body = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(body);
        }
        let mut body = BytesMut::with_capacity(length);
        body.put_slice(&self.buffer);
        self.buffer.clear();
        let patience = BODY_PATIENCE + Duration::from_secs(length as u64 / BODY_BYTES_PER_SECOND);
        let rest = async {
            while body.len() < length {
                let missing = length - body.len();
                let mut into = (&mut body).limit(missing);
                let read = some(&mut self.io, &mut into, self.dead_after, &self.pulse).await?;
                add(&self.counters.bytes_in, read);
            }
            Ok(())
        };
        timeout(patience, rest).await.unwrap_or(Err(Loss::Slow(patience)))?;
        Ok(body.freeze())
    }
}

async fn some(
    io: &mut (impl AsyncRead + Unpin),
    into: &mut impl BufMut,
    dead_after: Duration,
    pulse: &Pulse,
) -> Result<usize, Loss> {
    loop {
        match timeout(dead_after, io.read_buf(into)).await {
            Ok(Ok(0)) => return Err(Loss::Closed),
            Ok(Ok(read)) => return Ok(read),
            // What TLS calls an end without a close_notify is how a process ends that was killed.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Loss::Closed),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) if pulse.beat_within(dead_after) => {}
            Err(_) => return Err(Loss::Silent(dead_after)),
        }
    }
}
