//! What a connection has to write: one buffer, so that all acks of a commit leave in one write, and an eye on a peer that
//! takes nothing.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::mqtt::codec::Codec;
use crate::mqtt::limits::{CLOSE_TIMEOUT, OUTPUT_HIGH_BYTES, WRITE_TIMEOUT};
use crate::mqtt::packet::Outgoing;

/// The writing side of a connection.
pub(super) struct Output {
    pub(super) buffer: BytesMut,
    /// Written but perhaps not flushed.
    pub(super) unflushed: bool,
    waiting_since: Option<Instant>,
    /// bytes; what the client takes at most
    max_packet: usize,
}

impl Output {
    pub(super) fn new(max_packet: Option<u32>) -> Output {
        let max_packet = max_packet.map_or(usize::MAX, |bytes| bytes as usize);
        Output { buffer: BytesMut::new(), unflushed: false, waiting_since: None, max_packet }
    }

    /// Encodes a packet; `false` when it is larger than the client takes, and so must not be sent [MQTT-3.1.2-24].
    pub(super) fn put(&mut self, codec: &Codec, packet: &Outgoing) -> bool {
        let before = self.buffer.len();
        codec.encode(packet, &mut self.buffer);
        if self.buffer.len() - before > self.max_packet {
            self.buffer.truncate(before);
            return false;
        }
        if self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
        }
        true
    }

    /// Whether packets that make more output may be taken.
    pub(super) fn is_low(&self) -> bool {
        self.buffer.len() < OUTPUT_HIGH_BYTES
    }

    /// Writes what it can, or flushes what was written; the number of bytes taken. Cancel-safe.
    pub(super) async fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<usize> {
        if self.buffer.is_empty() {
            writer.flush().await?;
            self.unflushed = false;
            self.waiting_since = None;
            return Ok(0);
        }
        let taken = writer.write_buf(&mut self.buffer).await?;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        self.waiting_since = Some(Instant::now());
        if self.buffer.is_empty() && self.buffer.capacity() > OUTPUT_HIGH_BYTES / 4 {
            self.buffer = BytesMut::new();
        }
        Ok(taken)
    }

    /// The peer takes nothing any more.
    pub(super) fn give_up(&mut self) {
        self.buffer.clear();
        self.unflushed = false;
        self.waiting_since = None;
    }

    /// When a peer that takes nothing is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + WRITE_TIMEOUT)
    }

    /// Writes what is left and closes, within `CLOSE_TIMEOUT`. A peer that is gone makes no difference any more.
    pub(super) async fn finish<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) {
        let _ = timeout(CLOSE_TIMEOUT, async {
            writer.write_all_buf(&mut self.buffer).await?;
            writer.flush().await?;
            writer.shutdown().await
        })
        .await;
    }
}
