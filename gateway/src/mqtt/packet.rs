//! MQTT packets as the sessions see them: both versions in one model, fields checked, bytes shared with the buffer.
//!
//! Sources: MQTT 3.1.1 (OASIS, 2014) and MQTT 5.0 (OASIS, 2019).

use bytes::Bytes;

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

/// Quality of service of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

/// UTF-8 text that was checked when it was parsed; shares the read buffer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// Checks UTF-8 and the absence of U+0000 [MQTT-1.5.4-2].
    pub fn new(bytes: Bytes) -> Option<Text> {
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => Some(Text(bytes)),
            _ => None,
        }
    }
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

/// A message: an incoming or outgoing PUBLISH, or a will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: Text,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    pub properties: MessageProperties,
}

/// v5 properties of a message that travel from publisher to subscriber.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageProperties {
    pub payload_format_indicator: Option<u8>,
    /// seconds
    pub message_expiry_interval: Option<u32>,
    pub content_type: Option<Text>,
    pub response_topic: Option<Text>,
    pub correlation_data: Option<Bytes>,
    pub user_properties: Vec<(Text, Text)>,
    /// Outgoing only.
    pub subscription_identifiers: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    pub client_id: Text,
    /// v5 Clean Start; 3.1.1 Clean Session
    pub clean_start: bool,
    /// seconds
    pub keep_alive: u16,
    pub username: Option<Text>,
    pub password: Option<Bytes>,
    pub will: Option<Will>,
    /// seconds; 3.1.1: 0 with clean session, `u32::MAX` without
    pub session_expiry_interval: u32,
    pub receive_maximum: u16,
    /// bytes; `None`: no limit
    pub maximum_packet_size: Option<u32>,
    pub topic_alias_maximum: u16,
    pub request_problem_information: bool,
    /// v5 enhanced authentication asked for (we refuse it with 0x8C)
    pub authentication_method: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub message: Message,
    /// seconds
    pub delay_interval: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    /// 0 with QoS 0
    pub packet_id: u16,
    /// v5 incoming: as sent, before it is resolved; the topic may then be empty
    pub topic_alias: Option<u16>,
    pub message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilter {
    pub filter: Text,
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0 send, 1 send if new, 2 do not send
    pub retain_handling: u8,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub packet_id: u16,
    /// 0 in 3.1.1
    pub reason: u8,
}

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are publishes, the largest: a box each would cost more")]
pub enum Incoming {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe { packet_id: u16, filters: Vec<SubscribeFilter>, subscription_identifier: Option<u32> },
    Unsubscribe { packet_id: u16, filters: Vec<Text> },
    PingReq,
    Disconnect { reason: u8, session_expiry_interval: Option<u32> },
    Auth { reason: u8 },
}

/// Properties of a v5 CONNACK; ignored for 3.1.1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAckProperties {
    pub session_expiry_interval: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_qos: Option<u8>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_identifier: Option<String>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<String>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_identifiers_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
}

/// A packet to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// `reason` is the v5 code; the codec maps it to 3.1.1's return code.
    ConnAck {
        session_present: bool,
        reason: u8,
        properties: ConnAckProperties,
    },
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck {
        packet_id: u16,
        reasons: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        reasons: Vec<u8>,
    },
    PingResp,
    /// v5 only; a 3.1.1 connection is just closed.
    Disconnect {
        reason: u8,
        reason_string: Option<String>,
    },
}
