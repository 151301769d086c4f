//! PINGREQ, PINGRESP, DISCONNECT and AUTH (sections 3.12 to 3.15).

use bytes::{BufMut, Bytes, BytesMut};

use super::error::Result;
use super::fields::Fields;
use super::frame::{PacketType, put_header};
use super::properties::{Block, Properties, Value, id};
use crate::mqtt::packet::{Incoming, Outgoing, Version};

const FROM_CLIENT: &[u8] = &[id::SESSION_EXPIRY_INTERVAL, id::REASON_STRING, id::USER_PROPERTY];
const FROM_SERVER: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY, id::SERVER_REFERENCE];
const AUTH_PROPERTIES: &[u8] =
    &[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER_PROPERTY];

/// Reason codes that a client may give in DISCONNECT (table 3-10).
const CLIENT_REASONS: &[u8] = &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

/// Checks that a packet which has nothing but its type has nothing more.
pub(super) fn read_empty(kind: PacketType, body: Bytes) -> Result<()> {
    Fields::new(body, kind.name()).end()
}

/// Writes a packet that has nothing but its type.
pub(super) fn write_empty(kind: PacketType, out: &mut BytesMut) {
    put_header(out, kind.first_byte(), 0);
}

/// Reads a client's DISCONNECT.
pub(super) fn read_client_disconnect(body: Bytes, version: Version) -> Result<Incoming> {
    let mut fields = Fields::new(body, PacketType::Disconnect.name());
    let (mut reason, mut session_expiry_interval) = (0, None);
    if version == Version::V5 && !fields.is_empty() {
        reason = fields.u8("reason code")?;
        if !CLIENT_REASONS.contains(&reason) {
            return Err(fields.protocol(&format!("reason code 0x{reason:02x} does not belong there")));
        }
        if !fields.is_empty() {
            let mut block = Properties::open(&mut fields, FROM_CLIENT)?;
            while let Some((_, value)) = block.next()? {
                if let Value::U32(value) = value {
                    session_expiry_interval = Some(value);
                }
            }
        }
    }
    fields.end()?;
    Ok(Incoming::Disconnect { reason, session_expiry_interval })
}

/// Writes a client's DISCONNECT.
pub(super) fn write_client_disconnect(
    version: Version,
    reason: u8,
    session_expiry_interval: Option<u32>,
    out: &mut BytesMut,
) {
    let mut block = Block::default();
    block.u32(id::SESSION_EXPIRY_INTERVAL, session_expiry_interval);
    write_disconnect(version, reason, &block, out);
}

fn write_disconnect(version: Version, reason: u8, block: &Block, out: &mut BytesMut) {
    let first = PacketType::Disconnect.first_byte();
    if version == Version::V4 || (reason == 0 && block.is_empty()) {
        put_header(out, first, 0);
        return;
    }
    put_header(out, first, 1 + block.size());
    out.put_u8(reason);
    block.write(out);
}

/// Reads a server's DISCONNECT; a 3.1.1 server sends none.
pub(super) fn read_server_disconnect(body: Bytes) -> Result<Outgoing> {
    let mut fields = Fields::new(body, PacketType::Disconnect.name());
    let (mut reason, mut reason_string) = (0, None);
    if !fields.is_empty() {
        reason = fields.u8("reason code")?;
        if !fields.is_empty() {
            let mut block = Properties::open(&mut fields, FROM_SERVER)?;
            while let Some(property) = block.next()? {
                if let (id::REASON_STRING, Value::Text(text)) = property {
                    reason_string = Some(text.as_str().to_owned());
                }
            }
        }
    }
    fields.end()?;
    Ok(Outgoing::Disconnect { reason, reason_string })
}

/// Writes a server's DISCONNECT: nothing for 3.1.1, whose servers just close.
pub(super) fn write_server_disconnect(version: Version, reason: u8, reason_string: Option<&str>, out: &mut BytesMut) {
    if version == Version::V5 {
        let mut block = Block::default();
        block.text(id::REASON_STRING, reason_string);
        write_disconnect(version, reason, &block, out);
    }
}

/// Reads an AUTH: its reason code; the exchange itself is refused by the sessions.
pub(super) fn read_auth(body: Bytes) -> Result<Incoming> {
    let mut fields = Fields::new(body, PacketType::Auth.name());
    let mut reason = 0;
    if !fields.is_empty() {
        reason = fields.u8("reason code")?;
        if !matches!(reason, 0x00 | 0x18 | 0x19) {
            return Err(fields.protocol(&format!("reason code 0x{reason:02x} does not belong there")));
        }
        if !fields.is_empty() {
            Properties::open(&mut fields, AUTH_PROPERTIES)?.skip()?;
        }
    }
    fields.end()?;
    Ok(Incoming::Auth { reason })
}

/// Writes an AUTH without properties.
pub(super) fn write_auth(reason: u8, out: &mut BytesMut) {
    let length = usize::from(reason != 0);
    put_header(out, PacketType::Auth.first_byte(), length);
    if length > 0 {
        out.put_u8(reason);
    }
}
