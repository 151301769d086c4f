//! Properties of MQTT 5.0 (section 2.2.2): which belong to which packet, each at most once, lengths exact.

use bytes::{BufMut, Bytes, BytesMut};
use forebay_log::limits::MAX_HEADERS;

use super::error::{CodecError, Result};
use super::fields::{Fields, put_binary, put_text};
use super::frame::put_varint;
use crate::mqtt::packet::{MessageProperties, Text};
use crate::mqtt::topic;

/// Most user properties in one packet: they cost more memory than bytes on the wire, and each becomes a record header.
pub(super) const MAX_USER_PROPERTIES: usize = 1000;
/// Headers that the program itself adds to a record made from MQTT, at most.
const OWN_HEADERS: usize = 16;

const _: () = assert!(MAX_USER_PROPERTIES + OWN_HEADERS <= MAX_HEADERS);

/// Property identifiers (table 2-4).
pub(super) mod id {
    pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 1;
    pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION_DATA: u8 = 9;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 11;
    pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 17;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 18;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 21;
    pub(crate) const AUTHENTICATION_DATA: u8 = 22;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub(crate) const WILL_DELAY_INTERVAL: u8 = 24;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub(crate) const RESPONSE_INFORMATION: u8 = 26;
    pub(crate) const SERVER_REFERENCE: u8 = 28;
    pub(crate) const REASON_STRING: u8 = 31;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const TOPIC_ALIAS: u8 = 35;
    pub(crate) const MAXIMUM_QOS: u8 = 36;
    pub(crate) const RETAIN_AVAILABLE: u8 = 37;
    pub(crate) const USER_PROPERTY: u8 = 38;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 40;
    pub(crate) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 41;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 42;
}

/// A property's value, by the data type that its identifier fixes.
#[derive(Debug)]
pub(super) enum Value {
    Byte(u8),
    U16(u16),
    U32(u32),
    Varint(u32),
    Text(Text),
    Binary(Bytes),
    Pair(Text, Text),
}

/// The property block of one packet.
pub(super) struct Properties {
    fields: Fields,
    allowed: &'static [u8],
    seen: u64,
    user_properties: usize,
}

impl Properties {
    /// Reads the block's length and takes the block. `allowed`: the identifiers that the packet may carry.
    pub(super) fn open(fields: &mut Fields, allowed: &'static [u8]) -> Result<Properties> {
        let length = fields.varint("property length")?;
        let fields = fields.part(length as usize, "properties")?;
        Ok(Properties { fields, allowed, seen: 0, user_properties: 0 })
    }

    /// The next property; `None` after the last one.
    pub(super) fn next(&mut self) -> Result<Option<(u8, Value)>> {
        use id::*;
        if self.fields.is_empty() {
            return Ok(None);
        }
        // Identifiers are variable byte integers, but all that exist fit one byte.
        let id = self.fields.u8("property identifier")?;
        if !self.allowed.contains(&id) {
            return Err(self.fields.protocol(&format!("property {id} does not belong there")));
        }
        let seen = 1u64 << id;
        // Of a server's PUBLISH, each subscription that matched [MQTT-3.3.4-4].
        let repeats = id == USER_PROPERTY || (id == SUBSCRIPTION_IDENTIFIER && self.allowed.contains(&TOPIC_ALIAS));
        if self.seen & seen != 0 && !repeats {
            return Err(self.fields.protocol(&format!("property {id} more than once")));
        }
        self.seen |= seen;
        let what = "properties";
        let fields = &mut self.fields;
        let value = match id {
            PAYLOAD_FORMAT_INDICATOR
            | REQUEST_PROBLEM_INFORMATION
            | REQUEST_RESPONSE_INFORMATION
            | MAXIMUM_QOS
            | RETAIN_AVAILABLE
            | WILDCARD_SUBSCRIPTION_AVAILABLE
            | SUBSCRIPTION_IDENTIFIERS_AVAILABLE
            | SHARED_SUBSCRIPTION_AVAILABLE => match fields.u8(what)? {
                value @ 0..=1 => Value::Byte(value),
                value => return Err(fields.protocol(&format!("property {id} is {value}, not 0 or 1"))),
            },
            SERVER_KEEP_ALIVE | TOPIC_ALIAS_MAXIMUM => Value::U16(fields.u16(what)?),
            RECEIVE_MAXIMUM => Value::U16(nonzero(fields.u16(what)?, id, fields)?),
            TOPIC_ALIAS => match fields.u16(what)? {
                0 => return Err(CodecError::new(0x94, "PUBLISH: topic alias 0")),
                alias => Value::U16(alias),
            },
            MESSAGE_EXPIRY_INTERVAL | SESSION_EXPIRY_INTERVAL | WILL_DELAY_INTERVAL => Value::U32(fields.u32(what)?),
            MAXIMUM_PACKET_SIZE => Value::U32(nonzero(fields.u32(what)?, id, fields)?),
            SUBSCRIPTION_IDENTIFIER => Value::Varint(nonzero(fields.varint(what)?, id, fields)?),
            CORRELATION_DATA | AUTHENTICATION_DATA => Value::Binary(fields.binary(what)?),
            RESPONSE_TOPIC => {
                let name = fields.text(what)?;
                if !topic::valid_topic(name.as_str()) {
                    return Err(fields.invalid(0x82, "response topic", name.as_str()));
                }
                Value::Text(name)
            }
            USER_PROPERTY => {
                self.user_properties += 1;
                if self.user_properties > MAX_USER_PROPERTIES {
                    let text = format!("{}: more than {MAX_USER_PROPERTIES} user properties", fields.packet());
                    return Err(CodecError::new(0x97, text));
                }
                let name = fields.text(what)?;
                Value::Pair(name, fields.text(what)?)
            }
            // The remaining identifiers of table 2-4 are texts; unknown ones are in no packet's list.
            _ => Value::Text(fields.text(what)?),
        };
        Ok(Some((id, value)))
    }

    /// Checks all properties of a block whose values nobody needs.
    pub(super) fn skip(mut self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

fn nonzero<T: PartialEq + From<u8>>(value: T, id: u8, fields: &Fields) -> Result<T> {
    if value == T::from(0) { Err(fields.protocol(&format!("property {id} is 0"))) } else { Ok(value) }
}

/// Puts a message's property into `into`; gives back what is not one.
pub(super) fn message_property(into: &mut MessageProperties, id: u8, value: Value) -> Option<Value> {
    use id::*;
    match (id, value) {
        (PAYLOAD_FORMAT_INDICATOR, Value::Byte(value)) => into.payload_format_indicator = Some(value),
        (MESSAGE_EXPIRY_INTERVAL, Value::U32(value)) => into.message_expiry_interval = Some(value),
        (CONTENT_TYPE, Value::Text(value)) => into.content_type = Some(value),
        (RESPONSE_TOPIC, Value::Text(value)) => into.response_topic = Some(value),
        (CORRELATION_DATA, Value::Binary(value)) => into.correlation_data = Some(value),
        (USER_PROPERTY, Value::Pair(name, value)) => into.user_properties.push((name, value)),
        (SUBSCRIPTION_IDENTIFIER, Value::Varint(value)) => into.subscription_identifiers.push(value),
        (_, value) => return Some(value),
    }
    None
}

/// Collects a property block to be written.
#[derive(Debug, Default)]
pub(super) struct Block(BytesMut);

impl Block {
    pub(super) fn byte(&mut self, id: u8, value: Option<u8>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            self.0.put_u8(value);
        }
    }
    pub(super) fn flag(&mut self, id: u8, value: Option<bool>) {
        self.byte(id, value.map(u8::from));
    }
    pub(super) fn u16(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            self.0.put_u16(value);
        }
    }
    pub(super) fn u32(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            self.0.put_u32(value);
        }
    }
    pub(super) fn varint(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            put_varint(&mut self.0, value as usize);
        }
    }
    pub(super) fn text(&mut self, id: u8, value: Option<&str>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            put_text(&mut self.0, value);
        }
    }
    pub(super) fn message(&mut self, properties: &MessageProperties) {
        self.byte(id::PAYLOAD_FORMAT_INDICATOR, properties.payload_format_indicator);
        self.u32(id::MESSAGE_EXPIRY_INTERVAL, properties.message_expiry_interval);
        self.text(id::CONTENT_TYPE, properties.content_type.as_ref().map(Text::as_str));
        self.text(id::RESPONSE_TOPIC, properties.response_topic.as_ref().map(Text::as_str));
        if let Some(data) = &properties.correlation_data {
            self.0.put_u8(id::CORRELATION_DATA);
            put_binary(&mut self.0, data);
        }
        for identifier in &properties.subscription_identifiers {
            self.varint(id::SUBSCRIPTION_IDENTIFIER, Some(*identifier));
        }
        for (name, value) in &properties.user_properties {
            self.0.put_u8(id::USER_PROPERTY);
            put_text(&mut self.0, name.as_str());
            put_text(&mut self.0, value.as_str());
        }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Bytes that [`Block::write`] will add.
    pub(super) fn size(&self) -> usize {
        let length = self.0.len();
        let digits = if length < 1 << 7 {
            1
        } else if length < 1 << 14 {
            2
        } else if length < 1 << 21 {
            3
        } else {
            4
        };
        digits + length
    }
    /// Length, then the properties.
    pub(super) fn write(&self, out: &mut BytesMut) {
        put_varint(out, self.0.len());
        out.extend_from_slice(&self.0);
    }
}
