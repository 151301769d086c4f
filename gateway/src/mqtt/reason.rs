//! Reason codes of MQTT 5.0 (section 2.4) and which of them a refused append gets.

use forebay_log::AppendError;

pub(crate) const SUCCESS: u8 = 0x00;
pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
pub(crate) const UNSPECIFIED: u8 = 0x80;
pub(crate) const MALFORMED: u8 = 0x81;
pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
pub(crate) const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
pub(crate) const CLIENT_ID_INVALID: u8 = 0x85;
pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8B;
pub(crate) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8E;
pub(crate) const TOPIC_FILTER_INVALID: u8 = 0x8F;
pub(crate) const TOPIC_NAME_INVALID: u8 = 0x90;
pub(crate) const PACKET_ID_NOT_FOUND: u8 = 0x92;
pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
pub(crate) const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0x9E;

/// The code of a negative PUBACK or PUBREC (section 3.4.2.1): a limit that the publisher met is 0x97, data that it should not
/// send again as it is 0x99, anything that may pass is 0x83.
#[must_use]
pub(crate) fn of_append_error(error: &AppendError) -> u8 {
    match error {
        AppendError::DiskFull | AppendError::TooLarge { .. } => QUOTA_EXCEEDED,
        AppendError::Corrupt(_) | AppendError::Invalid(_) => PAYLOAD_FORMAT_INVALID,
        AppendError::Storage(_)
        | AppendError::Offline(_)
        | AppendError::Unknown(_)
        | AppendError::NotLeader
        | AppendError::FencedLeaderEpoch
        | AppendError::NotEnoughReplicas
        | AppendError::NotEnoughReplicasAfterAppend
        | AppendError::OutOfOrderSequence
        | AppendError::AwaitsEarlier
        | AppendError::ProducerFenced
        | AppendError::Closed => IMPLEMENTATION_SPECIFIC,
    }
}

/// What a code means, for log lines.
#[must_use]
pub(crate) fn text(reason: u8) -> &'static str {
    match reason {
        SUCCESS => "normal",
        MALFORMED => "malformed packet",
        PROTOCOL_ERROR => "protocol error",
        IMPLEMENTATION_SPECIFIC => "could not be stored",
        CLIENT_ID_INVALID => "client identifier not valid",
        SERVER_SHUTTING_DOWN => "server shutting down",
        BAD_AUTHENTICATION_METHOD => "bad authentication method",
        KEEP_ALIVE_TIMEOUT => "keep alive timeout",
        SESSION_TAKEN_OVER => "session taken over",
        TOPIC_FILTER_INVALID => "topic filter invalid",
        TOPIC_NAME_INVALID => "topic name invalid",
        RECEIVE_MAXIMUM_EXCEEDED => "receive maximum exceeded",
        TOPIC_ALIAS_INVALID => "topic alias invalid",
        0x95 => "packet too large",
        QUOTA_EXCEEDED => "quota exceeded",
        PAYLOAD_FORMAT_INVALID => "payload format invalid",
        _ => "refused",
    }
}
