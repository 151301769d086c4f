//! What a client asks for in its CONNECT, and what can go wrong.

use bytes::Bytes;

use crate::mqtt::codec::CodecError;
use crate::mqtt::packet::{Connect, Text, Version, Will};

/// Options of one connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    pub client_id: String,
    pub version: Version,
    pub clean_start: bool,
    /// seconds; 0: none
    pub keep_alive: u16,
    /// seconds, v5 only
    pub session_expiry_interval: u32,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Will>,
    /// QoS 1 and 2 publishes that may be unacknowledged; the server's Receive Maximum may lower it.
    pub window: u16,
    /// bytes of a packet from the server
    pub max_packet_size: usize,
}

impl ConnectOptions {
    /// MQTT 5.0, a clean session, keep-alive 60 s, a window of 64.
    pub fn new(client_id: impl Into<String>) -> ConnectOptions {
        ConnectOptions {
            client_id: client_id.into(),
            version: Version::V5,
            clean_start: true,
            keep_alive: 60,
            session_expiry_interval: 0,
            username: None,
            password: None,
            will: None,
            window: 64,
            max_packet_size: 1 << 20,
        }
    }

    /// Speaks MQTT 3.1.1.
    pub fn v4(mut self) -> ConnectOptions {
        self.version = Version::V4;
        self
    }

    /// Keeps the session for `seconds` after the connection (3.1.1: for ever).
    pub fn persistent(mut self, seconds: u32) -> ConnectOptions {
        self.clean_start = false;
        self.session_expiry_interval = seconds;
        self
    }

    pub(super) fn connect(&self) -> Connect {
        let session_expiry_interval = match self.version {
            Version::V5 => self.session_expiry_interval,
            Version::V4 if self.clean_start => 0,
            Version::V4 => u32::MAX,
        };
        Connect {
            version: self.version,
            client_id: Text::from(self.client_id.as_str()),
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            username: self.username.as_deref().map(Text::from),
            password: self.password.as_ref().map(|password| Bytes::copy_from_slice(password)),
            will: self.will.clone(),
            session_expiry_interval,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::try_from(self.max_packet_size).ok(),
            topic_alias_maximum: 0,
            request_problem_information: true,
            authentication_method: None,
        }
    }
}

/// Why a client's call failed. After any of these but `WindowFull` the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the server closed the connection")]
    Closed,
    #[error("the server refused the connection with reason code 0x{reason:02x}{}", text.as_ref().map(|t| format!(": {t}")).unwrap_or_default())]
    Refused { reason: u8, text: Option<String> },
    #[error("the server sent what it must not: {0}")]
    Codec(#[from] CodecError),
    #[error("the server answered no ping for {0} s")]
    Silent(u64),
    #[error("as many publishes are unacknowledged as may be")]
    WindowFull,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Transport(String),
}

impl ClientError {
    pub(super) fn transport(error: impl std::fmt::Display) -> ClientError {
        ClientError::Transport(error.to_string())
    }
}
