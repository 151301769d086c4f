//! Retained messages: the last one of each topic, kept in `_mqtt_retained`, bounded in number and bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_log::AppendError;
use tokio::time::timeout;

use super::delivery::{Expiry, Published};
use super::keeping::{Keeping, Keepings};
use super::limits::CATCH_UP_PATIENCE;
use super::packet::{Message, MessageProperties, Qos, Text};
use super::session::stored::{self, EntryProblem};
use super::topic;
use crate::clock::{Clock, Moment};
use crate::config::MqttConfig;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::state::StateTopic;

/// The retained messages of a node.
pub(crate) struct Retained {
    state: Arc<StateTopic>,
    messages: Arc<RwLock<Messages>>,
    /// `max_retained_messages`
    maximum: usize,
    /// `max_retained_bytes`
    maximum_bytes: usize,
    pub(super) keepings: Arc<Keepings>,
    catching_up: Arc<Mutex<CatchingUp>>,
    metrics: Arc<Metrics>,
}

/// Whether it is being found out what other nodes have acknowledged: once at a time, for all who want to know.
#[derive(Default)]
struct CatchingUp {
    under_way: bool,
    /// Those who came since, for whom that is not enough.
    next: Option<Keeping>,
}

#[derive(Default)]
struct Messages {
    by_topic: BTreeMap<Text, Arc<Published>>,
    bytes: usize,
}

impl Messages {
    fn insert(&mut self, topic: Text, published: Published) {
        self.bytes += published.bytes();
        let before = self.by_topic.insert(topic, Arc::new(published));
        self.bytes -= before.map_or(0, |before| before.bytes());
    }

    /// Takes a stored change.
    fn take(&mut self, key: Bytes, value: Option<Bytes>, now: Moment) {
        let Some(topic) = Text::new(key) else { return };
        match value.map(|value| decode(topic.clone(), value, now)) {
            Some(Ok(published)) => self.insert(topic, published),
            Some(Err(problem)) => tracing::warn!(topic = topic.as_str(), %problem, "cannot read a retained message"),
            None => self.remove(&topic),
        }
    }

    fn remove(&mut self, topic: &Text) {
        self.bytes -= self.by_topic.remove(topic).map_or(0, |before| before.bytes());
    }
}

impl Retained {
    /// Loads what is stored and follows what any node stores. A value that cannot be read is left alone and reported.
    pub(crate) fn load(
        state: Arc<StateTopic>,
        config: &MqttConfig,
        metrics: Arc<Metrics>,
        clock: &Arc<Clock>,
    ) -> Retained {
        let messages: Arc<RwLock<Messages>> = Arc::default();
        let (following, clock) = (messages.clone(), clock.clone());
        // What is told while the stored ones are taken waits, and so comes after them.
        let mut loading = messages.write().unwrap_or_else(PoisonError::into_inner);
        let (gauge, counting) = (metrics.clone(), metrics.clone());
        let moment = clock.moment(clock.now());
        state.observe(move |changes| {
            let now = clock.moment(clock.now());
            let mut messages = following.write().unwrap_or_else(PoisonError::into_inner);
            changes.iter().for_each(|(key, value)| messages.take(key.clone(), value.clone(), now));
            metrics.mqtt.retained.set(messages.by_topic.len() as i64);
        });
        state.scan(b"").into_iter().for_each(|(key, value)| loading.take(key, Some(value), moment));
        gauge.mqtt.retained.set(loading.by_topic.len() as i64);
        drop(loading);
        Retained {
            state,
            messages,
            maximum: config.max_retained_messages,
            maximum_bytes: config.max_retained_bytes,
            keepings: Arc::default(),
            catching_up: Arc::default(),
            metrics: counting,
        }
    }

    /// Has subscriptions that come from now on wait for their retained messages until all that was acknowledged on other nodes is
    /// known here, but no longer than twice [`CATCH_UP_PATIENCE`]: a client's other messages wait behind.
    pub(crate) fn catch_up(&self) {
        let mut keeping = {
            let mut catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
            if catching_up.under_way {
                catching_up.next.get_or_insert_with(|| self.keepings.begin());
                return;
            }
            catching_up.under_way = true;
            self.keepings.begin()
        };
        let (state, metrics, catching_up) = (self.state.clone(), self.metrics.clone(), self.catching_up.clone());
        tokio::spawn(async move {
            loop {
                catch_up_once(&state, &metrics).await;
                drop(keeping);
                let mut catching_up = catching_up.lock().unwrap_or_else(PoisonError::into_inner);
                match catching_up.next.take() {
                    Some(next) => keeping = next,
                    None => return catching_up.under_way = false,
                }
            }
        });
    }

    /// Whether a message may take the place of its topic's present one. One without payload takes none.
    pub(crate) fn has_room_for(&self, published: &Published) -> bool {
        if published.message.payload.is_empty() {
            return true;
        }
        let messages = self.messages.read().unwrap_or_else(PoisonError::into_inner);
        let present = messages.by_topic.get(&published.message.topic);
        let (known, bytes) = (present.is_some(), present.map_or(0, |present| present.bytes()));
        (known || messages.by_topic.len() < self.maximum)
            && messages.bytes - bytes + published.bytes() <= self.maximum_bytes
    }

    /// Keeps each message, or forgets its topic's when the payload is empty [MQTT-3.3.1-6, 3.3.1-7]; returns when durable.
    ///
    /// # Errors
    /// Why nothing of this was stored.
    pub(crate) async fn keep(&self, kept: Vec<Arc<Published>>, clock: &Clock) -> Result<(), AppendError> {
        let now = clock.moment(clock.now());
        let changes = kept
            .iter()
            .map(|published| {
                let key = Bytes::copy_from_slice(published.message.topic.bytes());
                (key, (!published.message.payload.is_empty()).then(|| encode(published, now)))
            })
            .collect();
        self.state.put_all(changes).await
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
        let messages = self.messages.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Arc<Published>> = messages
            .by_topic
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

async fn catch_up_once(state: &StateTopic, metrics: &Metrics) {
    static LIMIT: LogLimit = LogLimit::new(1);
    let why = match timeout(CATCH_UP_PATIENCE, state.sync()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("{} cannot be written", super::RETAINED_TOPIC),
    };
    metrics.mqtt.retained_unsure.inc();
    if let Some(suppressed) = LIMIT.admit() {
        tracing::warn!(
            why,
            suppressed,
            "new subscriptions get retained messages that may be older than on other nodes"
        );
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
fn encode(published: &Published, now: Moment) -> Bytes {
    let message = &published.message;
    let properties = &message.properties;
    let mut out = BytesMut::with_capacity(message.payload.len() + 64);
    stored::put_format(stored::FORMAT, &mut out);
    out.put_u8(message.qos as u8);
    out.put_i64(published.expiry.map_or(i64::MAX, |expiry| expiry.stored(now)));
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

fn decode(topic: Text, mut value: Bytes, now: Moment) -> Result<Published, EntryProblem> {
    stored::expect_format(stored::FORMAT, &mut value)?;
    let qos = match value.try_get_u8().map_err(|_| EntryProblem::Damaged)? {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    let expiry = value.try_get_i64().map_err(|_| EntryProblem::Damaged)?;
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
        expiry: (expiry != i64::MAX).then(|| Expiry::read(expiry, now)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use forebay_log::Millis;
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::delivery::Delivery;

    fn moment(clock: &Clock) -> Moment {
        clock.moment(clock.now())
    }

    #[test]
    fn a_message_kept_before_the_clock_was_set_right_does_not_expire_at_the_next_start() {
        let old = Clock::start_at(SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        old.follow(SystemTime::now());
        let mut message = Message {
            topic: Text::from("a"),
            payload: Bytes::from_static(b"1"),
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: MessageProperties::default(),
        };
        message.properties.message_expiry_interval = Some(600);
        let stored = encode(&Published::kept(&message, &Text::from("c"), moment(&old)), moment(&old));
        let new = Clock::start();
        let published = Arc::new(decode(Text::from("a"), stored, moment(&new)).unwrap());
        let delivery =
            Delivery { published, qos: Qos::AtLeastOnce, retain: true, identifiers: Vec::new(), place: None };
        assert!(delivery.publish(moment(&new)).is_some());
    }

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
            let now = Moment { steady: Millis(1000), wall: Millis(2000) };
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
                expiry: expires.map(|stored| Expiry::read(stored, now)),
            };
            prop_assert_eq!(decode(topic, encode(&published, now), now), Ok(published));
        }

        #[test]
        fn damaged_values_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(Text::from("t"), Bytes::from(bytes), Moment { steady: Millis(0), wall: Millis(0) });
        }
    }
}
