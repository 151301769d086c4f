//! Frames, as they are on the wire after the handshake.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{LinkError, cut};
use super::limits::{FRAME_HEADER_BYTES, MAX_GOODBYE_BYTES, MAX_TEXT};
use crate::codec::{Malformed, Reader, Writer};

/// Bytes of a header that its frame's length counts.
const COUNTED: usize = FRAME_HEADER_BYTES - 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameType {
    Request = 1,
    /// A request that nobody answers.
    OneWay = 2,
    Response = 3,
    Error = 4,
    Ping = 5,
    Pong = 6,
    /// The sender begins nothing more; its body says why, as an error's.
    Goodbye = 7,
}

impl FrameType {
    fn from_wire(value: u8) -> Option<FrameType> {
        use FrameType::{Error, Goodbye, OneWay, Ping, Pong, Request, Response};
        [Request, OneWay, Response, Error, Ping, Pong, Goodbye].into_iter().find(|t| *t as u8 == value)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) frame: FrameType,
    pub(super) kind: u16,
    pub(super) version: u16,
    pub(super) correlation: u64,
}

impl Header {
    /// A header without kind and version.
    pub(super) fn bare(frame: FrameType, correlation: u64) -> Header {
        Header { frame, kind: 0, version: 0, correlation }
    }

    pub(super) fn write(&self, body: usize, to: &mut BytesMut) {
        to.put_u32(u32::try_from(COUNTED + body).unwrap_or(u32::MAX));
        to.put_u8(self.frame as u8);
        to.put_u16(self.kind);
        to.put_u16(self.version);
        to.put_u64(self.correlation);
    }

    /// The header, and how many bytes of body follow it.
    pub(super) fn read(header: &[u8; FRAME_HEADER_BYTES], max_frame: usize) -> Result<(Header, usize), Malformed> {
        let mut reader = Reader::new(Bytes::copy_from_slice(header));
        let length = reader.u32()? as usize;
        if length > max_frame {
            return Err(Malformed::TooLong { length, max: max_frame });
        }
        let body = length.checked_sub(COUNTED).ok_or(Malformed::TooShort)?;
        let value = reader.u8()?;
        let frame =
            FrameType::from_wire(value).ok_or(Malformed::BadValue { what: "frame type", value: value.into() })?;
        let most = match frame {
            FrameType::Ping | FrameType::Pong => 0,
            FrameType::Goodbye => MAX_GOODBYE_BYTES,
            FrameType::Request | FrameType::OneWay | FrameType::Response | FrameType::Error => body,
        };
        if body > most {
            return Err(Malformed::TooLong { length: body, max: most });
        }
        Ok((Header { frame, kind: reader.u16()?, version: reader.u16()?, correlation: reader.u64()? }, body))
    }
}

/// The largest body that a frame of `max_frame` bytes holds.
pub(super) fn max_body(max_frame: usize) -> usize {
    max_frame.saturating_sub(COUNTED)
}

/// What kind of error a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The service's own.
    Service = 1,
    /// The kind is not spoken in this version.
    Unsupported = 2,
    /// The node does not begin anything more.
    NotBegun = 3,
    /// The service broke off.
    Failed = 4,
}

/// The body of an error or goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) class: ErrorClass,
    pub(super) code: u16,
    pub(super) text: String,
}

impl ErrorBody {
    pub(super) fn new(class: ErrorClass, code: u16, text: impl Into<String>) -> ErrorBody {
        ErrorBody { class, code, text: text.into() }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(self.class as u8).u16(self.code).string(cut(&self.text));
        writer.finish()
    }

    pub(super) fn decode(body: Bytes) -> Result<ErrorBody, Malformed> {
        let mut reader = Reader::new(body);
        let class = match reader.u8()? {
            1 => ErrorClass::Service,
            2 => ErrorClass::Unsupported,
            3 => ErrorClass::NotBegun,
            4 => ErrorClass::Failed,
            value => return Err(Malformed::BadValue { what: "error class", value: value.into() }),
        };
        Ok(ErrorBody { class, code: reader.u16()?, text: reader.string(MAX_TEXT)? })
    }

    pub(super) fn into_error(self, kind: u16) -> LinkError {
        let ErrorBody { class, code, text } = self;
        match class {
            ErrorClass::Service => LinkError::Refused { code, text },
            ErrorClass::Unsupported => LinkError::Unsupported { kind, text },
            ErrorClass::NotBegun => LinkError::NotSent(text),
            ErrorClass::Failed => LinkError::Unknown(text),
        }
    }
}
