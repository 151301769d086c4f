//! What CONNECT is answered: client identifiers, expiry, keep alive and the limits of both sides.

use crate::config::MqttConfig;
use crate::mqtt::limits::{MAX_CLIENT_ID_BYTES, MAX_OUTGOING_INFLIGHT};
use crate::mqtt::packet::{ConnAckProperties, Connect, Text, Version, Will};
use crate::mqtt::{reason, topic};

/// The limits a session is held to, from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) receive_maximum: u16,
    pub(crate) topic_alias_maximum: u16,
    /// seconds
    pub(crate) max_session_expiry: u32,
    /// seconds
    pub(crate) max_keep_alive: u16,
    /// bytes
    pub(crate) max_packet_size: usize,
}

impl Limits {
    #[must_use]
    pub(crate) fn of(config: &MqttConfig) -> Limits {
        Limits {
            receive_maximum: config.max_inflight_messages.max(1),
            topic_alias_maximum: config.max_topic_alias,
            max_session_expiry: config.max_session_expiry,
            max_keep_alive: config.max_keepalive,
            max_packet_size: config.max_packet_size,
        }
    }
}

/// A CONNECT that may have its session.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) client_id: Text,
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    /// seconds
    pub(crate) expiry: u32,
    /// seconds that the client is held to; 0: none
    pub(crate) keep_alive: u16,
    pub(crate) outgoing_window: u16,
    /// bytes
    pub(crate) max_outgoing_packet: Option<u32>,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) properties: ConnAckProperties,
}

/// A CONNECT that is refused, with the v5 code of its CONNACK.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: u8,
    pub(crate) why: &'static str,
}

/// Judges a CONNECT. `unique` is the identifier for a client that brings none.
///
/// # Errors
/// The code of the CONNACK that refuses it.
pub(crate) fn judge(connect: Connect, limits: &Limits, unique: impl FnOnce() -> String) -> Result<Accepted, Refusal> {
    let refuse = |reason, why| Err(Refusal { reason, why });
    if connect.authentication_method.is_some() {
        return refuse(reason::BAD_AUTHENTICATION_METHOD, "enhanced authentication is not supported");
    }
    if connect.client_id.as_str().len() > MAX_CLIENT_ID_BYTES {
        return refuse(reason::CLIENT_ID_INVALID, "the client identifier is longer than 256 bytes");
    }
    let v5 = connect.version == Version::V5;
    if let Some(will) = &connect.will
        && !topic::valid_topic(will.message.topic.as_str())
    {
        return refuse(reason::TOPIC_NAME_INVALID, "the will's topic is not valid");
    }
    let mut properties = ConnAckProperties::default();
    let client_id = if connect.client_id.as_str().is_empty() {
        // 3.1.1 lets only a clean session go without an identifier [MQTT-3.1.3-8].
        if !v5 && !connect.clean_start {
            return refuse(reason::CLIENT_ID_INVALID, "a session that is kept needs a client identifier");
        }
        let assigned = unique();
        properties.assigned_client_identifier = Some(assigned.clone());
        Text::from(assigned.as_str())
    } else {
        // A copy: the packet's buffer goes back.
        Text::from(connect.client_id.as_str())
    };
    let expiry = connect.session_expiry_interval.min(limits.max_session_expiry);
    let over = connect.keep_alive == 0 || connect.keep_alive > limits.max_keep_alive;
    // Only a v5 client can be told another keep alive; a 3.1.1 client keeps its own.
    let keep_alive = if v5 && over && limits.max_keep_alive < u16::MAX {
        properties.server_keep_alive = Some(limits.max_keep_alive);
        limits.max_keep_alive
    } else {
        connect.keep_alive
    };
    properties.session_expiry_interval = (expiry != connect.session_expiry_interval).then_some(expiry);
    properties.receive_maximum = Some(limits.receive_maximum);
    properties.maximum_packet_size = u32::try_from(limits.max_packet_size).ok();
    properties.topic_alias_maximum = Some(limits.topic_alias_maximum);
    properties.shared_subscription_available = Some(false);
    Ok(Accepted {
        client_id,
        version: connect.version,
        clean_start: connect.clean_start,
        expiry,
        keep_alive,
        outgoing_window: connect.receive_maximum.clamp(1, MAX_OUTGOING_INFLIGHT),
        max_outgoing_packet: connect.maximum_packet_size,
        will: connect.will.map(Box::new),
        properties,
    })
}
