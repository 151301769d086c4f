//! The data types of section 1.5 inside one packet: a reader that cannot leave the packet, and the matching writers.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::{CodecError, Result};
use super::frame;
use crate::mqtt::packet::{Qos, Text};
use crate::mqtt::topic;

/// Reads fields from the rest of a packet; every text and byte string is a slice of the packet.
#[derive(Debug)]
pub(super) struct Fields {
    rest: Bytes,
    /// Name of the packet, for error texts.
    packet: &'static str,
}

impl Fields {
    pub(super) fn new(rest: Bytes, packet: &'static str) -> Fields {
        Fields { rest, packet }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    pub(super) fn packet(&self) -> &'static str {
        self.packet
    }
    /// Everything left: the payload of a PUBLISH.
    pub(super) fn remainder(self) -> Bytes {
        self.rest
    }
    /// Refuses bytes after the last field.
    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes after its end")) }
    }
    pub(super) fn malformed(&self, what: &str) -> CodecError {
        CodecError::malformed(format!("{}: {what}", self.packet))
    }
    pub(super) fn protocol(&self, what: &str) -> CodecError {
        CodecError::protocol(format!("{}: {what}", self.packet))
    }
    fn need(&self, bytes: usize, what: &str) -> Result<()> {
        if self.rest.len() < bytes { Err(self.malformed(&format!("ends inside its {what}"))) } else { Ok(()) }
    }
    pub(super) fn u8(&mut self, what: &str) -> Result<u8> {
        self.need(1, what)?;
        Ok(self.rest.get_u8())
    }
    pub(super) fn u16(&mut self, what: &str) -> Result<u16> {
        self.need(2, what)?;
        Ok(self.rest.get_u16())
    }
    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.need(4, what)?;
        Ok(self.rest.get_u32())
    }
    pub(super) fn varint(&mut self, what: &str) -> Result<u32> {
        let (value, length) =
            frame::varint(&self.rest)?.ok_or_else(|| self.malformed(&format!("ends inside its {what}")))?;
        self.rest.advance(length);
        Ok(value)
    }
    /// Two bytes of length, then as many bytes.
    pub(super) fn binary(&mut self, what: &str) -> Result<Bytes> {
        let length = usize::from(self.u16(what)?);
        self.need(length, what)?;
        Ok(self.rest.split_to(length))
    }
    /// UTF-8 without U+0000 [MQTT-1.5.4-1, 1.5.4-2].
    pub(super) fn text(&mut self, what: &str) -> Result<Text> {
        let bytes = self.binary(what)?;
        Text::new(bytes).ok_or_else(|| self.malformed(&format!("its {what} is not UTF-8 or holds U+0000")))
    }
    /// A part of this packet with fields of its own: properties.
    pub(super) fn part(&mut self, length: usize, what: &str) -> Result<Fields> {
        self.need(length, what)?;
        Ok(Fields { rest: self.rest.split_to(length), packet: self.packet })
    }
    /// A packet identifier, which is never 0 [MQTT-2.2.1-3].
    pub(super) fn packet_id(&mut self) -> Result<u16> {
        match self.u16("packet identifier")? {
            0 => Err(self.protocol("packet identifier 0")),
            id => Ok(id),
        }
    }
    /// A topic name that may be published to (0x90 otherwise).
    pub(super) fn topic_name(&mut self, what: &str) -> Result<Text> {
        let name = self.text(what)?;
        if topic::valid_topic(name.as_str()) {
            return Ok(name);
        }
        Err(self.invalid(0x90, what, name.as_str()))
    }
    /// A topic filter (0x8F if it is invalid).
    pub(super) fn topic_filter(&mut self) -> Result<Text> {
        let filter = self.text("topic filter")?;
        if topic::valid_filter(filter.as_str()) {
            return Ok(filter);
        }
        Err(self.invalid(0x8F, "topic filter", filter.as_str()))
    }
    pub(super) fn invalid(&self, reason: u8, what: &str, value: &str) -> CodecError {
        let shown: String = value.chars().take(60).collect();
        CodecError::new(reason, format!("{}: invalid {what} {shown:?}", self.packet))
    }
}

/// Two bits of QoS; 3 is malformed.
pub(super) fn qos(bits: u8, packet: &str) -> Result<Qos> {
    match bits & 0b11 {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(CodecError::malformed(format!("{packet} with QoS 3"))),
    }
}

/// Writes a byte string. Longer ones than the format can say (65,535 bytes) are cut; those that came from a packet never are.
pub(super) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.extend_from_slice(bytes);
}

/// Writes a text, cut between characters if it is longer than 65,535 bytes.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    put_binary(out, &text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))]);
}
