//! The building blocks of stored values: a version byte in front, integers big-endian, texts with a u16 length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::mqtt::packet::Text;

/// The format of what has had only one.
pub(crate) const FORMAT: u8 = 1;

/// A stored value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryProblem {
    #[error("format {0} is not known to this version")]
    Format(u8),
    #[error("it is cut off or damaged")]
    Damaged,
}

pub(crate) fn put_format(format: u8, out: &mut BytesMut) {
    out.put_u8(format);
}

/// Takes the version byte.
pub(crate) fn expect_format(format: u8, value: &mut Bytes) -> Result<(), EntryProblem> {
    match value.try_get_u8() {
        Ok(found) if found == format => Ok(()),
        Ok(other) => Err(EntryProblem::Format(other)),
        Err(_) => Err(EntryProblem::Damaged),
    }
}

/// Writes a text of at most 65,535 bytes, which is what MQTT texts have.
pub(crate) fn put_text(text: &str, out: &mut BytesMut) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

pub(crate) fn take_text(value: &mut Bytes) -> Result<Text, EntryProblem> {
    let length = usize::from(value.try_get_u16().map_err(|_| EntryProblem::Damaged)?);
    if value.len() < length {
        return Err(EntryProblem::Damaged);
    }
    Text::new(Bytes::copy_from_slice(&value.split_to(length))).ok_or(EntryProblem::Damaged)
}
