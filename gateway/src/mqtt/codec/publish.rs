//! PUBLISH and its acknowledgements PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.3 to 3.7): topic and payload stay slices of the
//! received frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::Result;
use super::fields::{Fields, put_text, qos};
use super::frame::{Frame, PacketType, put_header};
use super::properties::{Block, Properties, Value, id, message_property};
use crate::mqtt::packet::{Ack, Message, MessageProperties, Publish, Qos, Version};

const FROM_CLIENT: &[u8] = &[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::CONTENT_TYPE,
];

/// Only a server says which subscription matched [MQTT-3.3.4-6].
const FROM_SERVER: &[u8] = &[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::CONTENT_TYPE,
    id::SUBSCRIPTION_IDENTIFIER,
];

const ACK_PROPERTIES: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY];

/// Reason codes of PUBACK and PUBREC (tables 3-4 and 3-5), of PUBREL and PUBCOMP (3-6 and 3-7).
const PUBLISH_REASONS: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const RELEASE_REASONS: &[u8] = &[0x00, 0x92];

/// Reads a PUBLISH that a client (`from_client`) or a server sent.
pub(super) fn read_publish(frame: Frame, version: Version, from_client: bool) -> Result<Publish> {
    let qos = qos(frame.flags >> 1, PacketType::Publish.name())?;
    let mut fields = Fields::new(frame.body, PacketType::Publish.name());
    let topic = fields.text("topic")?;
    if !topic.bytes().is_empty() && !crate::mqtt::topic::valid_topic(topic.as_str()) {
        return Err(fields.invalid(0x90, "topic", topic.as_str()));
    }
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { fields.packet_id()? };
    let mut topic_alias = None;
    let mut properties = MessageProperties::default();
    if version == Version::V5 {
        let mut block = Properties::open(&mut fields, if from_client { FROM_CLIENT } else { FROM_SERVER })?;
        while let Some((id, value)) = block.next()? {
            if let Some(Value::U16(alias)) = message_property(&mut properties, id, value) {
                topic_alias = Some(alias);
            }
        }
    }
    if topic.bytes().is_empty() && topic_alias.is_none() {
        return Err(fields.protocol("an empty topic without a topic alias"));
    }
    let payload = fields.remainder();
    let retain = frame.flags & 1 != 0;
    let message = Message { topic, payload, qos, retain, properties };
    Ok(Publish { dup: frame.flags & 8 != 0, packet_id, topic_alias, message })
}

/// Writes a PUBLISH.
pub(super) fn write_publish(version: Version, publish: &Publish, out: &mut BytesMut) {
    let message = &publish.message;
    let first = PacketType::Publish.first_byte()
        | u8::from(publish.dup && message.qos != Qos::AtMostOnce) << 3
        | (message.qos as u8) << 1
        | u8::from(message.retain);
    let id_bytes = if message.qos == Qos::AtMostOnce { 0 } else { 2 };
    let mut block = Block::default();
    if version == Version::V5 {
        block.u16(id::TOPIC_ALIAS, publish.topic_alias);
        block.message(&message.properties);
    }
    let block_bytes = if version == Version::V5 { block.size() } else { 0 };
    put_header(out, first, 2 + message.topic.bytes().len() + id_bytes + block_bytes + message.payload.len());
    put_text(out, message.topic.as_str());
    if id_bytes > 0 {
        out.put_u16(publish.packet_id);
    }
    if version == Version::V5 {
        block.write(out);
    }
    out.extend_from_slice(&message.payload);
}

/// Reads one of the four acknowledgements.
pub(super) fn read_ack(kind: PacketType, body: Bytes, version: Version) -> Result<Ack> {
    let mut fields = Fields::new(body, kind.name());
    let packet_id = fields.packet_id()?;
    let mut reason = 0;
    if version == Version::V5 && !fields.is_empty() {
        reason = fields.u8("reason code")?;
        let allowed = match kind {
            PacketType::PubAck | PacketType::PubRec => PUBLISH_REASONS,
            _ => RELEASE_REASONS,
        };
        if !allowed.contains(&reason) {
            return Err(fields.protocol(&format!("reason code 0x{reason:02x} does not belong there")));
        }
        if !fields.is_empty() {
            Properties::open(&mut fields, ACK_PROPERTIES)?.skip()?;
        }
    }
    fields.end()?;
    Ok(Ack { packet_id, reason })
}

/// Writes one of the four acknowledgements; 3.1.1 has no reason codes.
pub(super) fn write_ack(kind: PacketType, version: Version, ack: &Ack, out: &mut BytesMut) {
    let with_reason = version == Version::V5 && ack.reason != 0;
    put_header(out, kind.first_byte(), if with_reason { 3 } else { 2 });
    out.put_u16(ack.packet_id);
    if with_reason {
        out.put_u8(ack.reason);
    }
}
