//! The client's side of the codec, for the client of this program, the load generator and tests.

use bytes::BytesMut;

use super::error::Result;
use super::frame::{self, PacketType};
use super::{CodecError, connect, control, publish, subscribe, wrong_direction};
use crate::mqtt::packet::{Incoming, Outgoing, Version};

/// Encodes what a client sends and decodes what a server answers.
#[derive(Debug, Clone)]
pub struct ClientCodec {
    version: Version,
    max_packet_size: usize,
}

impl ClientCodec {
    /// `max_packet_size`: bytes of a whole packet from the server.
    pub fn new(version: Version, max_packet_size: usize) -> ClientCodec {
        ClientCodec { version, max_packet_size }
    }

    /// Appends `packet` to `out`. A CONNECT is written in the version that it names.
    pub fn encode(&self, packet: &Incoming, out: &mut BytesMut) {
        let version = self.version;
        match packet {
            Incoming::Connect(connect) => connect::write_connect(connect, out),
            Incoming::Publish(publish) => publish::write_publish(version, publish, out),
            Incoming::PubAck(ack) => publish::write_ack(PacketType::PubAck, version, ack, out),
            Incoming::PubRec(ack) => publish::write_ack(PacketType::PubRec, version, ack, out),
            Incoming::PubRel(ack) => publish::write_ack(PacketType::PubRel, version, ack, out),
            Incoming::PubComp(ack) => publish::write_ack(PacketType::PubComp, version, ack, out),
            Incoming::Subscribe { packet_id, filters, subscription_identifier } => {
                subscribe::write_subscribe(version, *packet_id, filters, *subscription_identifier, out);
            }
            Incoming::Unsubscribe { packet_id, filters } => {
                subscribe::write_unsubscribe(version, *packet_id, filters, out);
            }
            Incoming::PingReq => control::write_empty(PacketType::PingReq, out),
            Incoming::Disconnect { reason, session_expiry_interval } => {
                control::write_client_disconnect(version, *reason, *session_expiry_interval, out);
            }
            Incoming::Auth { reason } => control::write_auth(*reason, out),
        }
    }

    /// Takes the server's next packet off `stream`. `None`: more bytes are needed.
    pub fn decode(&self, stream: &mut BytesMut) -> Result<Option<Outgoing>> {
        let Some(frame) = frame::take(stream, self.max_packet_size, |kind| self.admit(kind))? else { return Ok(None) };
        let version = self.version;
        if frame.kind == PacketType::Publish {
            return Ok(Some(Outgoing::Publish(publish::read_publish(frame, version, false)?)));
        }
        let (kind, body) = (frame.kind, frame.body);
        Ok(Some(match kind {
            PacketType::ConnAck => connect::read_connack(body, version)?,
            PacketType::PubAck => Outgoing::PubAck(publish::read_ack(kind, body, version)?),
            PacketType::PubRec => Outgoing::PubRec(publish::read_ack(kind, body, version)?),
            PacketType::PubRel => Outgoing::PubRel(publish::read_ack(kind, body, version)?),
            PacketType::PubComp => Outgoing::PubComp(publish::read_ack(kind, body, version)?),
            PacketType::SubAck | PacketType::UnsubAck => subscribe::read_suback(kind, body, version)?,
            PacketType::PingResp => {
                control::read_empty(kind, body)?;
                Outgoing::PingResp
            }
            PacketType::Disconnect => control::read_server_disconnect(body)?,
            PacketType::Auth => return Err(CodecError::protocol("AUTH without enhanced authentication")),
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq => {
                return Err(wrong_direction(kind));
            }
        }))
    }

    fn admit(&self, kind: PacketType) -> Result<()> {
        match kind {
            PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PingReq => {
                Err(wrong_direction(kind))
            }
            PacketType::Disconnect if self.version == Version::V4 => {
                Err(CodecError::protocol("DISCONNECT from a 3.1.1 server"))
            }
            _ => Ok(()),
        }
    }
}
