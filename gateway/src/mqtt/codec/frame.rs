//! Framing: the fixed header (section 2.1), checked as soon as its bytes are there, and whole packets cut from the stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::{CodecError, Result};

/// The largest remaining length that four bytes can say (section 1.5.5).
pub(super) const MAX_REMAINING: usize = 268_435_455;

/// Control packet types (section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PacketType {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    fn of(first: u8) -> Option<PacketType> {
        use PacketType::*;
        Some(match first >> 4 {
            1 => Connect,
            2 => ConnAck,
            3 => Publish,
            4 => PubAck,
            5 => PubRec,
            6 => PubRel,
            7 => PubComp,
            8 => Subscribe,
            9 => SubAck,
            10 => Unsubscribe,
            11 => UnsubAck,
            12 => PingReq,
            13 => PingResp,
            14 => Disconnect,
            15 => Auth,
            _ => return None,
        })
    }

    /// The name in the specification.
    pub(super) fn name(self) -> &'static str {
        use PacketType::*;
        match self {
            Connect => "CONNECT",
            ConnAck => "CONNACK",
            Publish => "PUBLISH",
            PubAck => "PUBACK",
            PubRec => "PUBREC",
            PubRel => "PUBREL",
            PubComp => "PUBCOMP",
            Subscribe => "SUBSCRIBE",
            SubAck => "SUBACK",
            Unsubscribe => "UNSUBSCRIBE",
            UnsubAck => "UNSUBACK",
            PingReq => "PINGREQ",
            PingResp => "PINGRESP",
            Disconnect => "DISCONNECT",
            Auth => "AUTH",
        }
    }

    /// The first byte of a packet of this type, flags as section 2.1.3 fixes them (PUBLISH: all clear).
    pub(super) fn first_byte(self) -> u8 {
        let flags = match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// One whole packet: its type, the flags of the first byte, and what follows the fixed header.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: PacketType,
    pub(super) flags: u8,
    pub(super) body: Bytes,
}

/// Cuts the next packet off `stream`. `None`: more bytes are needed. `admit` refuses types that may not come now; it is asked, and
/// the flags and the length are judged, before the body has arrived, so a refused packet costs no memory.
pub(super) fn take(
    stream: &mut BytesMut,
    max_packet_size: usize,
    admit: impl Fn(PacketType) -> Result<()>,
) -> Result<Option<Frame>> {
    let Some(first) = stream.first().copied() else { return Ok(None) };
    let kind = PacketType::of(first).ok_or_else(|| CodecError::malformed("packet type 0 is reserved"))?;
    admit(kind)?;
    let flags = first & 0x0F;
    if kind == PacketType::Publish {
        if flags & 0b0110 == 0b0110 {
            return Err(CodecError::malformed("PUBLISH with QoS 3"));
        }
        if flags & 0b1110 == 0b1000 {
            return Err(CodecError::malformed("PUBLISH with QoS 0 and the DUP flag"));
        }
    } else if first != kind.first_byte() {
        return Err(CodecError::malformed(format!("reserved flags 0b{flags:04b} in {}", kind.name())));
    }
    let Some((remaining, length_bytes)) = varint(&stream[1..])? else { return Ok(None) };
    let header = 1 + length_bytes;
    let total = header + remaining as usize;
    if total > max_packet_size {
        let text = format!("{} of {total} bytes, the limit is {max_packet_size}", kind.name());
        return Err(CodecError::new(0x95, text));
    }
    if stream.len() < total {
        return Ok(None);
    }
    let mut frame = stream.split_to(total);
    frame.advance(header);
    // Only a message's bytes are worth sharing with the read buffer; what a session keeps for long must not pin it.
    let body = if kind == PacketType::Publish { frame.freeze() } else { Bytes::copy_from_slice(&frame) };
    Ok(Some(Frame { kind, flags, body }))
}

/// Reads a variable byte integer (section 1.5.5): value and number of bytes. `None`: it goes on beyond `bytes`.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0u32;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            if at > 0 && *byte == 0 {
                return Err(CodecError::malformed("variable byte integer longer than needed"));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 {
        Err(CodecError::malformed("variable byte integer of more than four bytes"))
    } else {
        Ok(None)
    }
}

/// Writes a variable byte integer; `value` is at most [`MAX_REMAINING`].
pub(super) fn put_varint(out: &mut BytesMut, mut value: usize) {
    debug_assert!(value <= MAX_REMAINING);
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// Writes a fixed header.
pub(super) fn put_header(out: &mut BytesMut, first: u8, remaining: usize) {
    out.reserve(5 + remaining);
    out.put_u8(first);
    put_varint(out, remaining);
}
