//! SUBSCRIBE, UNSUBSCRIBE and their acknowledgements (sections 3.8 to 3.11).

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{CodecError, Result};
use super::fields::{Fields, put_text, qos};
use super::frame::{PacketType, put_header};
use super::properties::{Block, Properties, Value, id};
use crate::mqtt::packet::{Incoming, Outgoing, SubscribeFilter, Text, Version};
use crate::mqtt::topic;

/// Most topic filters in one packet: they cost more memory than bytes on the wire.
const MAX_FILTERS: usize = 4096;

const ACK_PROPERTIES: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY];

/// Reads a SUBSCRIBE.
pub(super) fn read_subscribe(body: Bytes, version: Version) -> Result<Incoming> {
    let mut fields = Fields::new(body, PacketType::Subscribe.name());
    let packet_id = fields.packet_id()?;
    let mut subscription_identifier = None;
    if version == Version::V5 {
        let mut block = Properties::open(&mut fields, &[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY])?;
        while let Some((_, value)) = block.next()? {
            if let Value::Varint(value) = value {
                subscription_identifier = Some(value);
            }
        }
    }
    let mut filters = Vec::new();
    while !fields.is_empty() {
        check_count(filters.len(), &fields)?;
        let filter = fields.topic_filter()?;
        let options = fields.u8("subscription options")?;
        let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            return Err(fields.malformed("reserved subscription options are set"));
        }
        let retain_handling = options >> 4;
        if retain_handling == 3 {
            return Err(fields.protocol("retain handling 3"));
        }
        let no_local = options & 0b100 != 0;
        if no_local && topic::is_shared(filter.as_str()) {
            // [MQTT-3.8.3-4]
            return Err(fields.protocol("no local on a shared subscription"));
        }
        let qos = qos(options, fields.packet())?;
        let retain_as_published = options & 0b1000 != 0;
        filters.push(SubscribeFilter { filter, qos, no_local, retain_as_published, retain_handling });
    }
    if filters.is_empty() {
        return Err(fields.protocol("no topic filter"));
    }
    Ok(Incoming::Subscribe { packet_id, filters, subscription_identifier })
}

fn check_count(filters: usize, fields: &Fields) -> Result<()> {
    if filters < MAX_FILTERS {
        return Ok(());
    }
    Err(CodecError::new(0x97, format!("{}: more than {MAX_FILTERS} topic filters", fields.packet())))
}

/// Writes a SUBSCRIBE.
pub(super) fn write_subscribe(
    version: Version,
    packet_id: u16,
    filters: &[SubscribeFilter],
    subscription_identifier: Option<u32>,
    out: &mut BytesMut,
) {
    let mut body = BytesMut::new();
    body.put_u16(packet_id);
    if version == Version::V5 {
        let mut block = Block::default();
        block.varint(id::SUBSCRIPTION_IDENTIFIER, subscription_identifier);
        block.write(&mut body);
    }
    for filter in filters {
        put_text(&mut body, filter.filter.as_str());
        let mut options = filter.qos as u8;
        if version == Version::V5 {
            options |= u8::from(filter.no_local) << 2;
            options |= u8::from(filter.retain_as_published) << 3;
            options |= (filter.retain_handling & 0b11) << 4;
        }
        body.put_u8(options);
    }
    put_header(out, PacketType::Subscribe.first_byte(), body.len());
    out.extend_from_slice(&body);
}

/// Reads an UNSUBSCRIBE.
pub(super) fn read_unsubscribe(body: Bytes, version: Version) -> Result<Incoming> {
    let mut fields = Fields::new(body, PacketType::Unsubscribe.name());
    let packet_id = fields.packet_id()?;
    if version == Version::V5 {
        Properties::open(&mut fields, &[id::USER_PROPERTY])?.skip()?;
    }
    let mut filters = Vec::new();
    while !fields.is_empty() {
        check_count(filters.len(), &fields)?;
        filters.push(fields.topic_filter()?);
    }
    if filters.is_empty() {
        return Err(fields.protocol("no topic filter"));
    }
    Ok(Incoming::Unsubscribe { packet_id, filters })
}

/// Writes an UNSUBSCRIBE.
pub(super) fn write_unsubscribe(version: Version, packet_id: u16, filters: &[Text], out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u16(packet_id);
    if version == Version::V5 {
        Block::default().write(&mut body);
    }
    for filter in filters {
        put_text(&mut body, filter.as_str());
    }
    put_header(out, PacketType::Unsubscribe.first_byte(), body.len());
    out.extend_from_slice(&body);
}

/// Reads a SUBACK or UNSUBACK; an UNSUBACK of 3.1.1 has no reasons.
pub(super) fn read_suback(kind: PacketType, body: Bytes, version: Version) -> Result<Outgoing> {
    let mut fields = Fields::new(body, kind.name());
    let packet_id = fields.packet_id()?;
    if version == Version::V5 {
        Properties::open(&mut fields, ACK_PROPERTIES)?.skip()?;
    }
    if kind == PacketType::UnsubAck && version == Version::V4 {
        fields.end()?;
        return Ok(Outgoing::UnsubAck { packet_id, reasons: Vec::new() });
    }
    if fields.is_empty() {
        return Err(fields.protocol("no reason code"));
    }
    let reasons = fields.remainder().to_vec();
    Ok(match kind {
        PacketType::UnsubAck => Outgoing::UnsubAck { packet_id, reasons },
        _ => Outgoing::SubAck { packet_id, reasons },
    })
}

/// Writes a SUBACK or UNSUBACK. 3.1.1 knows one failure code, 0x80, and none in UNSUBACK.
pub(super) fn write_suback(kind: PacketType, version: Version, packet_id: u16, reasons: &[u8], out: &mut BytesMut) {
    let v5 = version == Version::V5;
    let reasons = if !v5 && kind == PacketType::UnsubAck { &[][..] } else { reasons };
    put_header(out, kind.first_byte(), 2 + usize::from(v5) + reasons.len());
    out.put_u16(packet_id);
    if v5 {
        Block::default().write(out);
        out.extend_from_slice(reasons);
    } else {
        out.extend(reasons.iter().map(|reason| if *reason > 2 { 0x80 } else { *reason }));
    }
}
