//! What is wrong with bytes from a peer: a reason code of MQTT 5.0 (section 2.4) and a text that names the fault.

use std::borrow::Cow;

/// A packet that must not be accepted; the connection ends with `reason_code` (3.1.1 peers are just closed).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (reason code 0x{reason:02x})")]
pub struct CodecError {
    reason: u8,
    text: Cow<'static, str>,
}

impl CodecError {
    /// The v5 reason code for CONNACK or DISCONNECT.
    pub fn reason_code(&self) -> u8 {
        self.reason
    }
    /// What is wrong, without the code: for the v5 reason string.
    pub fn text(&self) -> &str {
        &self.text
    }
    pub(super) fn new(reason: u8, text: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError { reason, text: text.into() }
    }
    /// 0x81: the bytes cannot be parsed.
    pub(super) fn malformed(text: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError::new(0x81, text)
    }
    /// 0x82: the bytes can be parsed but are not allowed.
    pub(super) fn protocol(text: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError::new(0x82, text)
    }
}

pub(super) type Result<T> = std::result::Result<T, CodecError>;
