//! CONNECT and CONNACK (sections 3.1 and 3.2), both directions, both versions.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{CodecError, Result};
use super::fields::{Fields, put_binary, put_text, qos};
use super::frame::{PacketType, put_header};
use super::properties::{Block, Properties, Value, id, message_property};
use crate::mqtt::packet::{ConnAckProperties, Connect, Message, MessageProperties, Outgoing, Text, Version, Will};

const CONNECT_PROPERTIES: &[u8] = &[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];

const WILL_PROPERTIES: &[u8] = &[
    id::WILL_DELAY_INTERVAL,
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
];

const CONNACK_PROPERTIES: &[u8] = &[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::MAXIMUM_PACKET_SIZE,
    id::ASSIGNED_CLIENT_IDENTIFIER,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REASON_STRING,
    id::USER_PROPERTY,
    id::WILDCARD_SUBSCRIPTION_AVAILABLE,
    id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
    id::SHARED_SUBSCRIPTION_AVAILABLE,
    id::SERVER_KEEP_ALIVE,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];

/// v5 reason codes that stand for the return codes 0 to 5 of 3.1.1 (table 3.1 there).
const V4_RETURN_CODES: [u8; 6] = [0x00, 0x84, 0x85, 0x88, 0x86, 0x87];

/// Reads a CONNECT. `version` is set as soon as it is known, so that a refusal can be answered in the client's version.
pub(super) fn read_connect(body: Bytes, version: &mut Option<Version>) -> Result<Connect> {
    let mut fields = Fields::new(body, PacketType::Connect.name());
    let name = fields.binary("protocol name")?;
    let level = fields.u8("protocol level")?;
    let spoken = match (&name[..], level) {
        (b"MQTT", 4) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", _) => {
            *version = Some(if level > 5 { Version::V5 } else { Version::V4 });
            let text = format!("CONNECT: protocol level {level}; 4 (MQTT 3.1.1) and 5 (MQTT 5.0) are spoken here");
            return Err(CodecError::new(0x84, text));
        }
        _ => return Err(fields.invalid(0x84, "protocol name", &String::from_utf8_lossy(&name))),
    };
    *version = Some(spoken);
    let flags = fields.u8("connect flags")?;
    if flags & 1 != 0 {
        return Err(fields.malformed("the reserved connect flag is set"));
    }
    let clean_start = flags & 0b10 != 0;
    let has_will = flags & 0b100 != 0;
    let (has_username, has_password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    let will_qos = qos(flags >> 3, "CONNECT: will")?;
    if !has_will && flags & 0b11_1000 != 0 {
        return Err(fields.malformed("will QoS or will retain without a will"));
    }
    if spoken == Version::V4 && has_password && !has_username {
        return Err(fields.malformed("a password without a user name"));
    }
    let mut connect = Connect {
        version: spoken,
        client_id: Text::from(""),
        clean_start,
        keep_alive: fields.u16("keep alive")?,
        username: None,
        password: None,
        will: None,
        session_expiry_interval: if spoken == Version::V4 && !clean_start { u32::MAX } else { 0 },
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_problem_information: true,
        authentication_method: None,
    };
    if spoken == Version::V5 {
        read_connect_properties(&mut fields, &mut connect)?;
    }
    connect.client_id = fields.text("client identifier")?;
    if spoken == Version::V4 && connect.client_id.bytes().is_empty() && !clean_start {
        // [MQTT-3.1.3-8] of 3.1.1
        return Err(CodecError::new(0x85, "CONNECT: an empty client identifier needs a clean session"));
    }
    if has_will {
        let mut will = Will {
            message: Message {
                topic: Text::from(""),
                payload: Bytes::new(),
                qos: will_qos,
                retain: flags & 0x20 != 0,
                properties: MessageProperties::default(),
            },
            delay_interval: 0,
        };
        if spoken == Version::V5 {
            let mut properties = Properties::open(&mut fields, WILL_PROPERTIES)?;
            while let Some((id, value)) = properties.next()? {
                if let Some(Value::U32(delay)) = message_property(&mut will.message.properties, id, value) {
                    will.delay_interval = delay;
                }
            }
        }
        will.message.topic = fields.topic_name("will topic")?;
        will.message.payload = fields.binary("will payload")?;
        connect.will = Some(will);
    }
    if has_username {
        connect.username = Some(fields.text("user name")?);
    }
    if has_password {
        connect.password = Some(fields.binary("password")?);
    }
    fields.end()?;
    Ok(connect)
}

fn read_connect_properties(fields: &mut Fields, connect: &mut Connect) -> Result<()> {
    let mut has_data = false;
    let mut properties = Properties::open(fields, CONNECT_PROPERTIES)?;
    while let Some(property) = properties.next()? {
        match property {
            (id::SESSION_EXPIRY_INTERVAL, Value::U32(value)) => connect.session_expiry_interval = value,
            (id::RECEIVE_MAXIMUM, Value::U16(value)) => connect.receive_maximum = value,
            (id::MAXIMUM_PACKET_SIZE, Value::U32(value)) => connect.maximum_packet_size = Some(value),
            (id::TOPIC_ALIAS_MAXIMUM, Value::U16(value)) => connect.topic_alias_maximum = value,
            (id::REQUEST_PROBLEM_INFORMATION, Value::Byte(value)) => connect.request_problem_information = value == 1,
            (id::AUTHENTICATION_METHOD, Value::Text(value)) => connect.authentication_method = Some(value),
            (id::AUTHENTICATION_DATA, _) => has_data = true,
            _ => {}
        }
    }
    if has_data && connect.authentication_method.is_none() {
        return Err(fields.protocol("authentication data without a method"));
    }
    Ok(())
}

/// Writes a CONNECT in `connect.version`.
pub(super) fn write_connect(connect: &Connect, out: &mut BytesMut) {
    let v5 = connect.version == Version::V5;
    let mut body = BytesMut::new();
    put_binary(&mut body, b"MQTT");
    body.put_u8(if v5 { 5 } else { 4 });
    let mut flags = u8::from(connect.clean_start) << 1;
    if let Some(will) = &connect.will {
        flags |= 0b100 | (will.message.qos as u8) << 3 | u8::from(will.message.retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6 | u8::from(connect.username.is_some()) << 7;
    body.put_u8(flags);
    body.put_u16(connect.keep_alive);
    if v5 {
        let mut block = Block::default();
        block.u32(id::SESSION_EXPIRY_INTERVAL, Some(connect.session_expiry_interval).filter(|v| *v != 0));
        block.u16(id::RECEIVE_MAXIMUM, Some(connect.receive_maximum).filter(|v| *v != u16::MAX));
        block.u32(id::MAXIMUM_PACKET_SIZE, connect.maximum_packet_size);
        block.u16(id::TOPIC_ALIAS_MAXIMUM, Some(connect.topic_alias_maximum).filter(|v| *v != 0));
        block.flag(id::REQUEST_PROBLEM_INFORMATION, Some(connect.request_problem_information).filter(|v| !v));
        block.text(id::AUTHENTICATION_METHOD, connect.authentication_method.as_ref().map(Text::as_str));
        block.write(&mut body);
    }
    put_text(&mut body, connect.client_id.as_str());
    if let Some(will) = &connect.will {
        if v5 {
            let mut block = Block::default();
            block.u32(id::WILL_DELAY_INTERVAL, Some(will.delay_interval).filter(|v| *v != 0));
            block.message(&will.message.properties);
            block.write(&mut body);
        }
        put_text(&mut body, will.message.topic.as_str());
        put_binary(&mut body, &will.message.payload);
    }
    if let Some(username) = &connect.username {
        put_text(&mut body, username.as_str());
    }
    if let Some(password) = &connect.password {
        put_binary(&mut body, password);
    }
    put_header(out, PacketType::Connect.first_byte(), body.len());
    out.extend_from_slice(&body);
}

/// Reads a CONNACK; 3.1.1 return codes become v5 reason codes.
pub(super) fn read_connack(body: Bytes, version: Version) -> Result<Outgoing> {
    let mut fields = Fields::new(body, PacketType::ConnAck.name());
    let flags = fields.u8("flags")?;
    if flags > 1 {
        return Err(fields.malformed("reserved flags are set"));
    }
    let code = fields.u8("reason code")?;
    let mut properties = ConnAckProperties::default();
    let reason = match version {
        Version::V5 => {
            let mut block = Properties::open(&mut fields, CONNACK_PROPERTIES)?;
            while let Some((id, value)) = block.next()? {
                connack_property(&mut properties, id, value);
            }
            code
        }
        Version::V4 => match V4_RETURN_CODES.get(usize::from(code)) {
            Some(reason) => *reason,
            None => return Err(fields.malformed("unknown return code")),
        },
    };
    if reason != 0 && flags != 0 {
        return Err(fields.protocol("a refusal with session present"));
    }
    fields.end()?;
    Ok(Outgoing::ConnAck { session_present: flags == 1, reason, properties })
}

fn connack_property(into: &mut ConnAckProperties, id: u8, value: Value) {
    match (id, value) {
        (id::SESSION_EXPIRY_INTERVAL, Value::U32(value)) => into.session_expiry_interval = Some(value),
        (id::RECEIVE_MAXIMUM, Value::U16(value)) => into.receive_maximum = Some(value),
        (id::MAXIMUM_QOS, Value::Byte(value)) => into.maximum_qos = Some(value),
        (id::RETAIN_AVAILABLE, Value::Byte(value)) => into.retain_available = Some(value == 1),
        (id::MAXIMUM_PACKET_SIZE, Value::U32(value)) => into.maximum_packet_size = Some(value),
        (id::ASSIGNED_CLIENT_IDENTIFIER, Value::Text(value)) => {
            into.assigned_client_identifier = Some(value.as_str().to_owned());
        }
        (id::TOPIC_ALIAS_MAXIMUM, Value::U16(value)) => into.topic_alias_maximum = Some(value),
        (id::REASON_STRING, Value::Text(value)) => into.reason_string = Some(value.as_str().to_owned()),
        (id::WILDCARD_SUBSCRIPTION_AVAILABLE, Value::Byte(value)) => {
            into.wildcard_subscription_available = Some(value == 1);
        }
        (id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE, Value::Byte(value)) => {
            into.subscription_identifiers_available = Some(value == 1);
        }
        (id::SHARED_SUBSCRIPTION_AVAILABLE, Value::Byte(value)) => {
            into.shared_subscription_available = Some(value == 1)
        }
        (id::SERVER_KEEP_ALIVE, Value::U16(value)) => into.server_keep_alive = Some(value),
        _ => {}
    }
}

/// Writes a CONNACK; for 3.1.1 the reason code becomes the nearest return code.
pub(super) fn write_connack(
    version: Version,
    session_present: bool,
    reason: u8,
    properties: &ConnAckProperties,
    out: &mut BytesMut,
) {
    let first = PacketType::ConnAck.first_byte();
    if version == Version::V4 {
        let code = match reason {
            0 => 0,
            0x84 => 1,
            0x85 => 2,
            0x86 => 4,
            0x87 | 0x8A | 0x8C => 5,
            _ => 3,
        };
        put_header(out, first, 2);
        out.put_u8(u8::from(session_present));
        out.put_u8(code);
        return;
    }
    let mut block = Block::default();
    block.u32(id::SESSION_EXPIRY_INTERVAL, properties.session_expiry_interval);
    block.u16(id::RECEIVE_MAXIMUM, properties.receive_maximum);
    block.byte(id::MAXIMUM_QOS, properties.maximum_qos);
    block.flag(id::RETAIN_AVAILABLE, properties.retain_available);
    block.u32(id::MAXIMUM_PACKET_SIZE, properties.maximum_packet_size);
    block.text(id::ASSIGNED_CLIENT_IDENTIFIER, properties.assigned_client_identifier.as_deref());
    block.u16(id::TOPIC_ALIAS_MAXIMUM, properties.topic_alias_maximum);
    block.text(id::REASON_STRING, properties.reason_string.as_deref());
    block.flag(id::WILDCARD_SUBSCRIPTION_AVAILABLE, properties.wildcard_subscription_available);
    block.flag(id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE, properties.subscription_identifiers_available);
    block.flag(id::SHARED_SUBSCRIPTION_AVAILABLE, properties.shared_subscription_available);
    block.u16(id::SERVER_KEEP_ALIVE, properties.server_keep_alive);
    put_header(out, first, 2 + block.size());
    out.put_u8(u8::from(session_present));
    out.put_u8(reason);
    block.write(out);
}
