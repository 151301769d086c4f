//! What a connection has read: a buffer that grows and shrinks with its use, and packets decoded ahead of a stalled log.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::mqtt::codec::{Codec, CodecError};
use crate::mqtt::limits::{
    EXPECTED_PUBLISHES, PING_BYTES, READ_AHEAD_BYTES, READ_AHEAD_PACKETS, READ_BUFFER_MAX, READ_BUFFER_MIN,
};
use crate::mqtt::packet::Incoming;
use crate::mqtt::session::CONTROL;

/// What a stream has brought.
#[expect(clippy::large_enum_variant, reason = "nearly all are packets: a box each would cost more")]
pub(super) enum Arrived {
    Packet(Incoming),
    /// Nothing more comes on this stream.
    End,
}

/// What waits for the session.
struct Pending {
    stream: u64,
    arrived: Arrived,
    bytes: usize,
}

/// The reading side of a connection.
pub(super) struct Input {
    pub(super) buffer: BytesMut,
    size: usize,
    packets: VecDeque<Pending>,
    bytes: usize,
    /// Packets that the last read brought; the next is likely to bring as many.
    expected: usize,
}

impl Input {
    /// Goes on with what came behind CONNECT.
    pub(super) fn new(buffer: BytesMut) -> Input {
        Input { buffer, size: READ_BUFFER_MIN, packets: VecDeque::new(), bytes: 0, expected: 0 }
    }

    /// Whether more may be read. The packet at the front may be as large as the codec lets it.
    pub(super) fn has_room(&self) -> bool {
        self.packets.is_empty()
            || (self.bytes + self.buffer.len() < READ_AHEAD_BYTES && self.packets.len() < READ_AHEAD_PACKETS)
    }

    /// Bytes that may be read to look for PINGREQs, behind which nothing may wait.
    pub(super) fn room_for_pings(&self) -> usize {
        if self.is_drained() { PING_BYTES.saturating_sub(self.buffer.len()) } else { 0 }
    }

    /// Makes room for the next read.
    pub(super) fn prepare(&mut self) {
        if self.buffer.is_empty() && self.size == READ_BUFFER_MIN && self.buffer.capacity() > READ_BUFFER_MAX / 8 {
            // Gone quiet: the large buffer goes back.
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < self.size / 2 {
            self.buffer.reserve(self.size);
        }
    }

    /// Learns from the size of a read how large the next may be.
    pub(super) fn adapt(&mut self, read: usize) {
        if read >= self.size / 2 {
            self.size = (self.size * 2).min(READ_BUFFER_MAX);
        } else if read < self.size / 8 {
            self.size = (self.size / 2).max(READ_BUFFER_MIN);
        }
    }

    /// Decodes all whole packets. PINGREQs do not wait behind the others: their number is returned.
    pub(super) fn decode(&mut self, codec: &mut Codec) -> Result<usize, CodecError> {
        let (mut pings, mut others) = (0, 0);
        loop {
            let before = self.buffer.len();
            match codec.decode(&mut self.buffer)? {
                None => break,
                Some(Incoming::PingReq) => pings += 1,
                Some(packet) => {
                    if self.packets.capacity() == 0 {
                        self.packets.reserve(self.expected);
                    }
                    self.push(CONTROL, Arrived::Packet(packet), before - self.buffer.len());
                    others += 1;
                }
            }
        }
        self.expected = others.min(EXPECTED_PUBLISHES);
        Ok(pings)
    }

    pub(super) fn push(&mut self, stream: u64, arrived: Arrived, bytes: usize) {
        self.bytes += bytes;
        self.packets.push_back(Pending { stream, arrived, bytes });
    }

    pub(super) fn front(&self) -> Option<&Arrived> {
        self.packets.front().map(|pending| &pending.arrived)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Arrived)> {
        let pending = self.packets.pop_front()?;
        self.bytes -= pending.bytes;
        if self.packets.is_empty() && self.packets.capacity() > 16 {
            self.packets = VecDeque::new();
        }
        Some((pending.stream, pending.arrived))
    }

    /// Gives back what only a busy connection needs.
    pub(super) fn rest(&mut self) {
        if self.packets.is_empty() {
            self.packets = VecDeque::new();
        }
    }

    /// Bytes of the packets that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything read has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.packets.is_empty()
    }
}
