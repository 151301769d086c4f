//! Delivery to MQTT subscribers: the log is read once per partition and fanned out by a subscription trie; a subscriber that
//! cannot keep up, or was away, reads the log from its own cursor.

mod catchup;
mod expiry;
mod hub;
mod subscriber;
mod tailer;
mod trie;
mod trouble;

use std::sync::Arc;

use bytes::Bytes;
use forebay_log::Offset;

pub(crate) use catchup::Page;
pub(crate) use expiry::Expiry;
pub(crate) use hub::Hub;
use subscriber::Subscriber;
pub(crate) use subscriber::{Lag, Receiving};

use super::packet::{Message, MessageProperties, Publish, Qos, Text};
use crate::clock::Moment;

/// A partition of the topics that delivery reads, numbered as delivery met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartId(pub(crate) u32);

/// Where a message stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: PartId,
    pub(crate) offset: Offset,
}

/// A message as it was published, shared by all that get it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) message: Message,
    pub(crate) client_id: Text,
    pub(crate) expiry: Option<Expiry>,
}

impl Published {
    /// Roughly what it holds in memory.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        let Message { topic, payload, properties, .. } = &self.message;
        let MessageProperties { content_type, response_topic, correlation_data, user_properties, .. } = properties;
        let text = |text: &Text| text.bytes().len();
        let user: usize = user_properties.iter().map(|(n, v)| text(n) + text(v) + size_of::<(Text, Text)>()).sum();
        size_of::<Published>()
            + text(topic)
            + payload.len()
            + text(&self.client_id)
            + content_type.as_ref().map_or(0, text)
            + response_topic.as_ref().map_or(0, text)
            + correlation_data.as_ref().map_or(0, Bytes::len)
            + user
    }

    /// A message to be kept; copied, so that it does not hold the buffer it was read into.
    #[must_use]
    pub(crate) fn kept(message: &Message, client_id: &Text, now: Moment) -> Published {
        let copy = |text: &Text| Text::from(text.as_str());
        let properties = &message.properties;
        Published {
            message: Message {
                topic: copy(&message.topic),
                payload: Bytes::copy_from_slice(&message.payload),
                qos: message.qos,
                retain: message.retain,
                properties: MessageProperties {
                    payload_format_indicator: properties.payload_format_indicator,
                    message_expiry_interval: None,
                    content_type: properties.content_type.as_ref().map(copy),
                    response_topic: properties.response_topic.as_ref().map(copy),
                    correlation_data: properties.correlation_data.as_deref().map(Bytes::copy_from_slice),
                    user_properties: properties.user_properties.iter().map(|(n, v)| (copy(n), copy(v))).collect(),
                    subscription_identifiers: Vec::new(),
                },
            },
            client_id: client_id.clone(),
            expiry: properties.message_expiry_interval.map(|seconds| Expiry::after(seconds, now)),
        }
    }
}

/// One message for one subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) published: Arc<Published>,
    /// Granted and published QoS, whichever is lower: 0 or 1.
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Subscription identifiers of all filters that matched [MQTT-3.3.4-3].
    pub(crate) identifiers: Vec<u32>,
    /// `None` for retained messages.
    pub(crate) place: Option<Place>,
}

impl Delivery {
    /// Roughly what it holds in memory.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.published.bytes()
    }

    /// The PUBLISH, without a packet id; `None` when the message has expired [MQTT-3.3.2-5, 3.3.2-6].
    #[must_use]
    pub(crate) fn publish(&self, now: Moment) -> Option<Publish> {
        let mut message = self.published.message.clone();
        if let Some(expiry) = self.published.expiry {
            let left = expiry.left(now);
            if left <= 0 {
                return None;
            }
            let seconds = u32::try_from((left - 1) / 1000 + 1).unwrap_or(u32::MAX);
            message.properties.message_expiry_interval = Some(seconds);
        }
        message.qos = self.qos;
        message.retain = self.retain;
        message.properties.subscription_identifiers.clone_from(&self.identifiers);
        Some(Publish { dup: false, packet_id: 0, topic_alias: None, message })
    }
}
