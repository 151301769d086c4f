//! Writes queued frames to a connection: several at once, bodies in place, and never waiting for ever.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::body::Body;
use super::budget::Held;
use super::counters::{PeerCounters, add};
use super::frame::{FrameType, Header};
use super::limits::{FRAME_HEADER_BYTES, INLINE_BODY_BYTES, WRITE_BATCH_BYTES, WRITE_BATCH_FRAMES};
use super::reading::{Loss, Pulse};

/// Pieces that one system call takes.
const PIECES: usize = 64;

/// A frame that waits to be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) header: Header,
    pub(super) body: Body,
    /// Of a request: who takes it first, the writer or the one who gave it up.
    pub(super) ticket: Option<Arc<Ticket>>,
    /// Of an answer: what its request holds until it is written.
    pub(super) held: Option<Held>,
}

impl Outgoing {
    pub(super) fn new(header: Header, body: impl Into<Body>) -> Outgoing {
        Outgoing { header, body: body.into(), ticket: None, held: None }
    }

    pub(super) fn pong() -> Outgoing {
        Outgoing::new(Header::bare(FrameType::Pong, 0), Bytes::new())
    }
}

/// Decides between the writer of a request and whoever gives it up: after that it is certain whether it was sent.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    const WAITING: u8 = 0;
    const BEGUN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    /// Writing begins, unless the request was given up.
    fn begin(&self) -> bool {
        self.0.compare_exchange(Self::WAITING, Self::BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The request is given up; whether it is certain that no byte of it was written.
    pub(super) fn give_up(&self) -> bool {
        let was = self.0.compare_exchange(Self::WAITING, Self::GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        was.unwrap_or_else(|now| now) != Self::BEGUN
    }
}

pub(super) struct FrameWriter<W> {
    pub(super) io: W,
    pub(super) write_timeout: Duration,
    pub(super) pulse: Arc<Pulse>,
    pub(super) counters: Arc<PeerCounters>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes what is queued until the queue is closed and empty, and pings if it should.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Outgoing>,
        ping_interval: Option<Duration>,
    ) -> Result<(), Loss> {
        let period = ping_interval.unwrap_or(self.write_timeout).max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Batch::default();
        loop {
            tokio::select! {
                next = queue.recv() => match next {
                    Some(outgoing) => batch.add(outgoing),
                    None => break,
                },
                _ = ticks.tick(), if ping_interval.is_some() => {
                    batch.add(Outgoing::new(Header::bare(FrameType::Ping, 0), Bytes::new()));
                }
            }
            while batch.has_room() {
                let Ok(outgoing) = queue.try_recv() else { break };
                batch.add(outgoing);
            }
            self.write(&mut batch).await?;
        }
        let _ = timeout(self.write_timeout, self.io.shutdown()).await;
        Ok(())
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<(), Loss> {
        batch.close();
        while !batch.pieces.is_empty() {
            let written = timeout(self.write_timeout, some(&mut self.io, &batch.pieces, &self.pulse)).await;
            let written = written.map_err(|_| Loss::Stalled(self.write_timeout))??;
            add(&self.counters.bytes_out, written);
            batch.advance(written);
        }
        timeout(self.write_timeout, self.io.flush()).await.map_err(|_| Loss::Stalled(self.write_timeout))??;
        batch.clear();
        Ok(())
    }
}

async fn some(io: &mut (impl AsyncWrite + Unpin), pieces: &VecDeque<Bytes>, pulse: &Pulse) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); PIECES];
    let count = pieces.len().min(PIECES);
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    let mut waited = false;
    let written = poll_fn(|context| {
        let polled = Pin::new(&mut *io).poll_write_vectored(context, &slices[..count]);
        waited |= polled.is_pending();
        polled
    })
    .await?;
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    if waited {
        pulse.beat();
    }
    Ok(written)
}

/// Frames that are written together.
#[derive(Default)]
struct Batch {
    pieces: VecDeque<Bytes>,
    /// Headers and small bodies that are not yet a piece.
    small: BytesMut,
    held: Vec<Held>,
    frames: usize,
    bytes: usize,
}

impl Batch {
    fn has_room(&self) -> bool {
        self.frames < WRITE_BATCH_FRAMES && self.bytes < WRITE_BATCH_BYTES
    }

    fn add(&mut self, outgoing: Outgoing) {
        if outgoing.ticket.is_some_and(|ticket| !ticket.begin()) {
            return;
        }
        let length = outgoing.body.len();
        outgoing.header.write(length, &mut self.small);
        for piece in outgoing.body.pieces().filter(|piece| !piece.is_empty()) {
            if length <= INLINE_BODY_BYTES {
                self.small.extend_from_slice(piece);
            } else {
                self.close();
                self.pieces.push_back(piece.clone());
            }
        }
        self.held.extend(outgoing.held);
        self.frames += 1;
        self.bytes += FRAME_HEADER_BYTES + length;
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let Some(first) = self.pieces.front_mut() else { return };
            if first.len() > written {
                return first.advance(written);
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.held.clear();
        (self.frames, self.bytes) = (0, 0);
    }
}
