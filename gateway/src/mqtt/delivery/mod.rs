//! Delivery to MQTT subscribers: the log is read once per partition and fanned out by a subscription trie; a subscriber that
//! cannot keep up, or was away, reads the log from its own cursor.

mod catchup;
mod hub;
mod subscriber;
mod tailer;
mod trie;

use std::sync::Arc;

use bytes::Bytes;
use forebay_log::{Millis, Offset};

pub(crate) use catchup::Page;
pub(crate) use hub::Hub;
pub(crate) use subscriber::Receiving;
use subscriber::Subscriber;

use super::packet::{Message, MessageProperties, Publish, Qos, Text};

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
    /// When the Message Expiry Interval has run out.
    pub(crate) expires_at: Option<Millis>,
}

impl Published {
    /// A message to be kept; copied, so that it does not hold the buffer it was read into.
    #[must_use]
    pub(crate) fn kept(message: &Message, client_id: &Text, now: Millis) -> Published {
        let copy = |text: &Text| Text::from(text.as_str());
        let properties = &message.properties;
        let expiry = properties.message_expiry_interval;
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
            expires_at: expiry.map(|seconds| Millis(now.0 + i64::from(seconds) * 1000)),
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
        self.published.message.payload.len() + self.published.message.topic.bytes().len() + size_of::<Published>()
    }

    /// The PUBLISH, without a packet id; `None` when the message has expired [MQTT-3.3.2-5, 3.3.2-6].
    #[must_use]
    pub(crate) fn publish(&self, now: Millis) -> Option<Publish> {
        let mut message = self.published.message.clone();
        if let Some(at) = self.published.expires_at {
            let left = at.0 - now.0;
            if left <= 0 {
                return None;
            }
            message.properties.message_expiry_interval = Some(u32::try_from((left + 999) / 1000).unwrap_or(u32::MAX));
        }
        message.qos = self.qos;
        message.retain = self.retain;
        message.properties.subscription_identifiers.clone_from(&self.identifiers);
        Some(Publish { dup: false, packet_id: 0, topic_alias: None, message })
    }
}
