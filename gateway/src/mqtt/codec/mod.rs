//! The MQTT codec: strict, both versions, both directions. Bytes in, checked packets out; no IO, no time.
//!
//! All bytes are judged before anything is built from them: the fixed header before the body has arrived, lengths before they are
//! followed, counts before they are allocated. Every fault is a [`CodecError`] with the v5 reason code. How the bytes were split
//! between reads makes no difference. A PUBLISH is not copied: its topic, payload and properties are slices of the read buffer, so
//! whoever keeps one for long (retained messages) copies it; all other packets are small and own their bytes.

mod client;
mod connect;
mod control;
mod error;
mod fields;
mod frame;
mod properties;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

use bytes::BytesMut;

pub use client::ClientCodec;
pub use error::CodecError;

use crate::mqtt::packet::{Incoming, Outgoing, Version};
use error::Result;
use frame::PacketType;

/// The server's side of one connection, or of one QUIC data stream.
#[derive(Debug)]
pub struct Codec {
    max_packet_size: usize,
    phase: Phase,
    version: Option<Version>,
}

/// Which packets may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing but CONNECT.
    AwaitConnect,
    /// Everything but CONNECT.
    Connected,
    /// Publishes, subscriptions and their acknowledgements: types 3 to 11 (EMQX's convention for MQTT over QUIC).
    DataStream,
}

impl Codec {
    /// For a new connection. `max_packet_size`: bytes of a whole packet, fixed header included (v5 section 3.1.2.11.4).
    pub fn new(max_packet_size: usize) -> Codec {
        Codec { max_packet_size, phase: Phase::AwaitConnect, version: None }
    }

    /// For a data stream of a connection whose control stream has had its CONNECT.
    pub fn for_data_stream(version: Version, max_packet_size: usize) -> Codec {
        Codec { max_packet_size, phase: Phase::DataStream, version: Some(version) }
    }

    /// The client's version, once its CONNECT has told; also after a CONNECT that is refused (for a version that we do not speak:
    /// the nearest one), so that the refusal can be encoded.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Takes the next packet off `stream`. `None`: more bytes are needed. After an error the connection is to be closed.
    pub fn decode(&mut self, stream: &mut BytesMut) -> Result<Option<Incoming>> {
        let phase = self.phase;
        let Some(frame) = frame::take(stream, self.max_packet_size, |kind| admit(phase, self.version, kind))? else {
            return Ok(None);
        };
        if frame.kind == PacketType::Connect {
            let connect = connect::read_connect(frame.body, &mut self.version)?;
            self.phase = Phase::Connected;
            return Ok(Some(Incoming::Connect(Box::new(connect))));
        }
        let version = self.version.unwrap_or(Version::V4);
        if frame.kind == PacketType::Publish {
            return Ok(Some(Incoming::Publish(publish::read_publish(frame, version, true)?)));
        }
        let (kind, body) = (frame.kind, frame.body);
        Ok(Some(match kind {
            PacketType::PubAck => Incoming::PubAck(publish::read_ack(kind, body, version)?),
            PacketType::PubRec => Incoming::PubRec(publish::read_ack(kind, body, version)?),
            PacketType::PubRel => Incoming::PubRel(publish::read_ack(kind, body, version)?),
            PacketType::PubComp => Incoming::PubComp(publish::read_ack(kind, body, version)?),
            PacketType::Subscribe => subscribe::read_subscribe(body, version)?,
            PacketType::Unsubscribe => subscribe::read_unsubscribe(body, version)?,
            PacketType::PingReq => {
                control::read_empty(kind, body)?;
                Incoming::PingReq
            }
            PacketType::Disconnect => control::read_client_disconnect(body, version)?,
            PacketType::Auth => control::read_auth(body)?,
            PacketType::Connect
            | PacketType::Publish
            | PacketType::ConnAck
            | PacketType::SubAck
            | PacketType::UnsubAck
            | PacketType::PingResp => return Err(wrong_direction(kind)),
        }))
    }

    /// Appends `packet` to `out` in the client's version (3.1.1 before it is known; a DISCONNECT is then left out).
    pub fn encode(&self, packet: &Outgoing, out: &mut BytesMut) {
        let version = self.version.unwrap_or(Version::V4);
        match packet {
            Outgoing::ConnAck { session_present, reason, properties } => {
                connect::write_connack(version, *session_present, *reason, properties, out);
            }
            Outgoing::Publish(publish) => publish::write_publish(version, publish, out),
            Outgoing::PubAck(ack) => publish::write_ack(PacketType::PubAck, version, ack, out),
            Outgoing::PubRec(ack) => publish::write_ack(PacketType::PubRec, version, ack, out),
            Outgoing::PubRel(ack) => publish::write_ack(PacketType::PubRel, version, ack, out),
            Outgoing::PubComp(ack) => publish::write_ack(PacketType::PubComp, version, ack, out),
            Outgoing::SubAck { packet_id, reasons } => {
                subscribe::write_suback(PacketType::SubAck, version, *packet_id, reasons, out);
            }
            Outgoing::UnsubAck { packet_id, reasons } => {
                subscribe::write_suback(PacketType::UnsubAck, version, *packet_id, reasons, out);
            }
            Outgoing::PingResp => control::write_empty(PacketType::PingResp, out),
            Outgoing::Disconnect { reason, reason_string } => {
                control::write_server_disconnect(version, *reason, reason_string.as_deref(), out);
            }
        }
    }
}

/// Refuses packet types that a client may not send now, by the first byte alone.
fn admit(phase: Phase, version: Option<Version>, kind: PacketType) -> Result<()> {
    use PacketType::*;
    match (phase, kind) {
        (_, ConnAck | SubAck | UnsubAck | PingResp) => Err(wrong_direction(kind)),
        (Phase::AwaitConnect, Connect) => Ok(()),
        (Phase::AwaitConnect, _) => Err(CodecError::protocol(format!("{} before CONNECT", kind.name()))),
        (Phase::Connected, Connect) => Err(CodecError::protocol("a second CONNECT")),
        (Phase::DataStream, Connect | PingReq | Disconnect | Auth) => {
            Err(CodecError::protocol(format!("{} on a data stream", kind.name())))
        }
        (Phase::Connected, Auth) if version == Some(Version::V4) => Err(CodecError::malformed("AUTH in MQTT 3.1.1")),
        _ => Ok(()),
    }
}

fn wrong_direction(kind: PacketType) -> CodecError {
    CodecError::protocol(format!("{} goes the other way", kind.name()))
}
