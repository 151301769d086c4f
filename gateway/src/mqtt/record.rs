//! How an MQTT message is written as a record, and read back for subscribers.

use std::sync::Arc;

use bytes::Bytes;
use forebay_log::AppendError;
use forebay_log::record::Record;

use super::delivery::{Expiry, Published};
use super::packet::{Message, MessageProperties, Qos, Text};
use super::session::CONTROL;
use super::topic::valid_topic;
use crate::clock::{Clock, Moment};
use crate::ingest::{Gather, Publish};

const TOPIC: &str = "mqtt.topic";
const CLIENT: &str = "mqtt.client";
const QOS: &str = "mqtt.qos";
const PACKET_ID: &str = "mqtt.packet_id";
const CONTENT_TYPE: &str = "mqtt.content_type";
const RETAIN: &str = "mqtt.retain";
const STREAM: &str = "mqtt.stream";
const EXPIRES_AT: &str = "mqtt.expires_at";
const RESPONSE_TOPIC: &str = "mqtt.response_topic";
const CORRELATION_DATA: &str = "mqtt.correlation_data";
const PAYLOAD_FORMAT: &str = "mqtt.payload_format";

/// Every header name that is ours; the first header of such a name is not a user property.
const OWN: [&str; 11] = [
    TOPIC,
    CLIENT,
    QOS,
    PACKET_ID,
    CONTENT_TYPE,
    RETAIN,
    STREAM,
    EXPIRES_AT,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    PAYLOAD_FORMAT,
];

/// Adds `message` of `client_id` to a gather; returns its log topic and partition.
///
/// # Errors
/// When the message cannot be appended at all.
pub(crate) fn push(
    gather: &mut Gather,
    now: Moment,
    client_id: &str,
    message: &Message,
    intent: Option<(u64, u16)>,
) -> Result<(Arc<str>, u32), AppendError> {
    let properties = &message.properties;
    let expiry = properties.message_expiry_interval.map(|seconds| decimal(Expiry::after(seconds, now).stored(now)));
    let stream = intent.filter(|(stream, _)| *stream != CONTROL).map(|(stream, _)| decimal(stream));
    let format = properties.payload_format_indicator.map(|format| [b'0' + format.min(1)]);
    let mut headers: [(&'static str, &[u8]); 6] = [("", b""); 6];
    let mut count = 0;
    let mut add = |name, value| {
        headers[count] = (name, value);
        count += 1;
    };
    if message.retain {
        add(RETAIN, b"1");
    }
    if let Some(stream) = &stream {
        add(STREAM, stream.as_bytes());
    }
    if let Some(expiry) = &expiry {
        add(EXPIRES_AT, expiry.as_bytes());
    }
    if let Some(topic) = &properties.response_topic {
        add(RESPONSE_TOPIC, topic.bytes());
    }
    if let Some(data) = &properties.correlation_data {
        add(CORRELATION_DATA, data);
    }
    if let Some(format) = &format {
        add(PAYLOAD_FORMAT, format);
    }
    let user: Vec<(Bytes, Bytes)> =
        properties.user_properties.iter().map(|(name, value)| (name.bytes().clone(), value.bytes().clone())).collect();
    gather.push(
        now.wall,
        &Publish {
            topic: message.topic.as_str(),
            payload: &message.payload,
            client_id,
            qos: message.qos as u8,
            user_properties: &user,
            content_type: properties.content_type.as_ref().map(Text::as_str),
            packet_id: intent.map(|(_, packet_id)| packet_id),
            headers: &headers[..count],
        },
    )
}

fn decimal(number: impl std::fmt::Display) -> String {
    number.to_string()
}

/// The MQTT topic of a record that came from MQTT.
#[must_use]
pub(crate) fn topic(record: &Record) -> Option<&str> {
    record.header(TOPIC).and_then(|topic| std::str::from_utf8(topic).ok())
}

/// Client, stream and packet id of a record of an exactly-once publish of a persistent session.
#[must_use]
pub(crate) fn exactly_once_id(record: &Record) -> Option<(&str, u64, u16)> {
    let client = std::str::from_utf8(record.header(CLIENT)?).ok()?;
    let packet_id = number(record.header(PACKET_ID)?)?;
    let stream = match record.header(STREAM) {
        Some(stream) => number(stream)?,
        None => CONTROL,
    };
    Some((client, stream, u16::try_from(packet_id).ok()?))
}

fn number(text: &Bytes) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a message back; `None` when its topic is none, as a Kafka producer may have written it. Its bytes are copied out of the batch, so that a waiting message does not hold a whole batch.
#[must_use]
pub(crate) fn published(record: &Record, clock: &Clock) -> Option<Published> {
    let topic_name = topic(record).filter(|topic| valid_topic(topic))?;
    let text = |name: &str| record.header(name).and_then(|value| Text::new(Bytes::copy_from_slice(value)));
    let mut properties = MessageProperties {
        payload_format_indicator: record.header(PAYLOAD_FORMAT).map(|format| u8::from(format.as_ref() == b"1")),
        message_expiry_interval: None,
        content_type: text(CONTENT_TYPE),
        response_topic: text(RESPONSE_TOPIC),
        correlation_data: record.header(CORRELATION_DATA).map(|data| Bytes::copy_from_slice(data)),
        user_properties: Vec::new(),
        subscription_identifiers: Vec::new(),
    };
    let mut seen = [false; OWN.len()];
    for header in &record.headers {
        match OWN.iter().position(|own| header.name == own.as_bytes()) {
            Some(at) if !seen[at] => seen[at] = true,
            _ => {
                let value = header.value.as_deref().unwrap_or_default();
                if let (Some(name), Some(value)) =
                    (Text::new(Bytes::copy_from_slice(&header.name)), Text::new(Bytes::copy_from_slice(value)))
                {
                    properties.user_properties.push((name, value));
                }
            }
        }
    }
    let qos = match record.header(QOS).map(|qos| qos.as_ref()) {
        Some(b"0") => Qos::AtMostOnce,
        Some(b"2") => Qos::ExactlyOnce,
        _ => Qos::AtLeastOnce,
    };
    Some(Published {
        message: Message {
            topic: Text::from(topic_name),
            payload: record.value.as_deref().map(Bytes::copy_from_slice).unwrap_or_default(),
            qos,
            retain: record.header(RETAIN).is_some(),
            properties,
        },
        client_id: text(CLIENT).unwrap_or_else(|| Text::from("")),
        expiry: record
            .header(EXPIRES_AT)
            .and_then(number)
            .and_then(|stored| i64::try_from(stored).ok())
            .map(|stored| Expiry::read(stored, clock.moment(clock.now()))),
    })
}
