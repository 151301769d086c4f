//! Retained messages: the last one of each topic, kept in `_mqtt_retained`, bounded in number.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_log::{AppendError, Millis};

use super::delivery::Published;
use super::packet::{Message, MessageProperties, Qos, Text};
use super::session::stored::{self, EntryProblem};
use super::topic;
use crate::metrics::Metrics;
use crate::state::StateTopic;

/// The retained messages of a node.
pub(crate) struct Retained {
    state: Arc<StateTopic>,
    by_topic: RwLock<BTreeMap<Text, Arc<Published>>>,
    /// `max_retained_messages`
    maximum: usize,
    metrics: Arc<Metrics>,
}

impl Retained {
    /// Loads what is stored. A value that cannot be read is left alone and reported.
    pub(crate) fn load(state: Arc<StateTopic>, maximum: usize, metrics: Arc<Metrics>) -> Retained {
        let mut by_topic = BTreeMap::new();
        for (key, value) in state.scan(b"") {
            let Some(topic) = Text::new(key) else { continue };
            match decode(topic.clone(), value) {
                Ok(published) => {
                    by_topic.insert(topic, Arc::new(published));
                }
                Err(problem) => {
                    tracing::warn!(topic = topic.as_str(), %problem, "cannot read a retained message");
                }
            }
        }
        metrics.mqtt.retained.set(by_topic.len() as i64);
        Retained { state, by_topic: RwLock::new(by_topic), maximum, metrics }
    }

    /// Whether there is no room for a message of `topic`.
    pub(crate) fn is_full_for(&self, topic: &Text) -> bool {
        let by_topic = self.by_topic.read().unwrap_or_else(PoisonError::into_inner);
        by_topic.len() >= self.maximum && !by_topic.contains_key(topic)
    }

    /// Keeps each message, or forgets its topic's when the payload is empty [MQTT-3.3.1-6, 3.3.1-7]; returns when durable.
    ///
    /// # Errors
    /// Why nothing of this was stored.
    pub(crate) async fn keep(&self, messages: Vec<Arc<Published>>) -> Result<(), AppendError> {
        let changes = messages
            .iter()
            .map(|published| {
                let key = Bytes::copy_from_slice(published.message.topic.bytes());
                (key, (!published.message.payload.is_empty()).then(|| encode(published)))
            })
            .collect();
        self.state.put_all(changes).await?;
        let mut by_topic = self.by_topic.write().unwrap_or_else(PoisonError::into_inner);
        for published in messages {
            // The stored value, not ours: another client's message may have followed it.
            let topic = Text::from(published.message.topic.as_str());
            match self.state.get(topic.bytes()).map(|value| decode(topic.clone(), value)) {
                Some(Ok(stored)) => {
                    by_topic.insert(topic, Arc::new(stored));
                }
                _ => {
                    by_topic.remove(&topic);
                }
            }
        }
        self.metrics.mqtt.retained.set(by_topic.len() as i64);
        Ok(())
    }

    /// Up to `limit` messages whose topics match and come after `after`, and whether there may be more.
    pub(crate) fn page(&self, filter: &str, after: Option<&Text>, limit: usize) -> (Vec<Arc<Published>>, bool) {
        let prefix = &filter[..filter.find(['+', '#']).unwrap_or(filter.len())];
        // `a/#` matches `a` too.
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let from = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(Text::from(prefix)),
        };
        let by_topic = self.by_topic.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Arc<Published>> = by_topic
            .range((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.as_str().starts_with(prefix))
            .filter(|(topic, _)| topic::matches(filter, topic.as_str()))
            .map(|(_, published)| published.clone())
            .take(limit + 1)
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        (found, more)
    }
}

fn put_optional(value: Option<&[u8]>, out: &mut BytesMut) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        out.put_u32(value.len() as u32);
        out.put_slice(value);
    }
}

fn take_optional(value: &mut Bytes) -> Result<Option<Bytes>, EntryProblem> {
    if value.try_get_u8().map_err(|_| EntryProblem::Damaged)? == 0 {
        return Ok(None);
    }
    let length = value.try_get_u32().map_err(|_| EntryProblem::Damaged)? as usize;
    if value.len() < length {
        return Err(EntryProblem::Damaged);
    }
    Ok(Some(Bytes::copy_from_slice(&value.split_to(length))))
}

fn text(value: Option<Bytes>) -> Result<Option<Text>, EntryProblem> {
    value.map(|bytes| Text::new(bytes).ok_or(EntryProblem::Damaged)).transpose()
}

/// The stored form; the topic is the key.
fn encode(published: &Published) -> Bytes {
    let message = &published.message;
    let properties = &message.properties;
    let mut out = BytesMut::with_capacity(message.payload.len() + 64);
    stored::put_format(&mut out);
    out.put_u8(message.qos as u8);
    out.put_i64(published.expires_at.map_or(i64::MAX, |at| at.0));
    stored::put_text(published.client_id.as_str(), &mut out);
    put_optional(properties.payload_format_indicator.map(|format| [format]).as_ref().map(|f| &f[..]), &mut out);
    put_optional(properties.content_type.as_ref().map(|text| &text.bytes()[..]), &mut out);
    put_optional(properties.response_topic.as_ref().map(|text| &text.bytes()[..]), &mut out);
    put_optional(properties.correlation_data.as_deref(), &mut out);
    out.put_u32(properties.user_properties.len() as u32);
    for (name, value) in &properties.user_properties {
        stored::put_text(name.as_str(), &mut out);
        stored::put_text(value.as_str(), &mut out);
    }
    out.put_slice(&message.payload);
    out.freeze()
}

fn decode(topic: Text, mut value: Bytes) -> Result<Published, EntryProblem> {
    stored::expect_format(&mut value)?;
    let qos = match value.try_get_u8().map_err(|_| EntryProblem::Damaged)? {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    let expires_at = value.try_get_i64().map_err(|_| EntryProblem::Damaged)?;
    let client_id = stored::take_text(&mut value)?;
    let mut properties = MessageProperties {
        payload_format_indicator: take_optional(&mut value)?.and_then(|format| format.first().copied()),
        content_type: text(take_optional(&mut value)?)?,
        response_topic: text(take_optional(&mut value)?)?,
        correlation_data: take_optional(&mut value)?,
        ..MessageProperties::default()
    };
    for _ in 0..value.try_get_u32().map_err(|_| EntryProblem::Damaged)? {
        properties.user_properties.push((stored::take_text(&mut value)?, stored::take_text(&mut value)?));
    }
    Ok(Published {
        message: Message { topic, payload: value, qos, retain: true, properties },
        client_id,
        expires_at: (expires_at != i64::MAX).then_some(Millis(expires_at)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_retained_message_is_read_back_as_it_was_kept(
            payload in prop::collection::vec(any::<u8>(), 0..40),
            qos in 0usize..3,
            expires in prop::option::of(0i64..1 << 50),
            content in prop::option::of("[a-z/]{0,9}"),
            correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
            user in prop::collection::vec(("\\PC{0,5}", "\\PC{0,5}"), 0..3),
        ) {
            let topic = Text::from("a/b");
            let published = Published {
                message: Message {
                    topic: topic.clone(),
                    payload: Bytes::from(payload),
                    qos: [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][qos],
                    retain: true,
                    properties: MessageProperties {
                        payload_format_indicator: expires.map(|at| (at % 2) as u8),
                        content_type: content.as_deref().map(Text::from),
                        correlation_data: correlation.map(Bytes::from),
                        user_properties: user.iter().map(|(n, v)| (Text::from(n.as_str()), Text::from(v.as_str()))).collect(),
                        ..MessageProperties::default()
                    },
                },
                client_id: Text::from("c"),
                expires_at: expires.map(Millis),
            };
            prop_assert_eq!(decode(topic, encode(&published)), Ok(published));
        }

        #[test]
        fn damaged_values_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(Text::from("t"), Bytes::from(bytes));
        }
    }
}
