//! The stored form of a session in `_mqtt_sessions`: its entry, its cursors and the marks of exactly-once publishes.
//!
//! Keys: `s/<client>` the entry, `c/<client>` the cursors, `q2/<client>/<packet id>` an exactly-once publish (with
//! `@<stream>` behind the packet id when it came on a data stream).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_log::{Millis, Offset};
use uuid::Uuid;

use super::stored::{EntryProblem, FORMAT, expect_format, put_format, put_text, take_text};
use super::{CONTROL, Subscription, Subscriptions};
use crate::mqtt::packet::{Qos, Version};

/// Of cursors; the first one did not name topics by their ids.
const CURSORS_FORMAT: u8 = 2;

/// What is stored of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) version: Version,
    /// seconds
    pub(crate) expiry: u32,
    /// `None` while connected.
    pub(crate) disconnected_at: Option<Millis>,
    pub(crate) subscriptions: Subscriptions,
}

/// The key of a session's entry.
#[must_use]
pub(crate) fn session_key(client: &str) -> Bytes {
    Bytes::from(format!("s/{client}"))
}

/// The key of a session's cursors.
#[must_use]
pub(crate) fn cursor_key(client: &str) -> Bytes {
    Bytes::from(format!("c/{client}"))
}

/// The key of the mark of an exactly-once publish.
#[must_use]
pub(crate) fn intent_key(client: &str, stream: u64, packet_id: u16) -> Bytes {
    if stream == CONTROL {
        Bytes::from(format!("q2/{client}/{packet_id}"))
    } else {
        Bytes::from(format!("q2/{client}/{packet_id}@{stream}"))
    }
}

/// Client, stream and packet id of an `intent_key`. Client identifiers may hold `/`: the last one counts.
#[must_use]
pub(crate) fn parse_intent_key(key: &[u8]) -> Option<(&str, u64, u16)> {
    let (client, id) = std::str::from_utf8(key).ok()?.strip_prefix("q2/")?.rsplit_once('/')?;
    let (packet_id, stream) = match id.split_once('@') {
        Some((packet_id, stream)) => (packet_id, stream.parse().ok()?),
        None => (id, CONTROL),
    };
    Some((client, stream, packet_id.parse().ok()?))
}

impl Entry {
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_format(FORMAT, &mut out);
        out.put_u8(if self.version == Version::V5 { 5 } else { 4 });
        out.put_u32(self.expiry);
        out.put_i64(self.disconnected_at.map_or(i64::MIN, |at| at.0));
        out.put_u32(self.subscriptions.len() as u32);
        for subscription in self.subscriptions.iter() {
            put_text(subscription.filter.as_str(), &mut out);
            let flags = subscription.qos as u8
                | u8::from(subscription.no_local) << 1
                | u8::from(subscription.retain_as_published) << 2
                | u8::from(subscription.identifier.is_some()) << 3;
            out.put_u8(flags);
            out.put_u32(subscription.identifier.unwrap_or(0));
        }
        out.freeze()
    }

    /// # Errors
    /// When the value was written by a later version or is damaged.
    pub(crate) fn decode(mut value: Bytes) -> Result<Entry, EntryProblem> {
        expect_format(FORMAT, &mut value)?;
        if value.len() < 17 {
            return Err(EntryProblem::Damaged);
        }
        let version = if value.get_u8() == 5 { Version::V5 } else { Version::V4 };
        let expiry = value.get_u32();
        let at = value.get_i64();
        let count = value.get_u32();
        let mut subscriptions = Subscriptions::default();
        for _ in 0..count {
            let filter = take_text(&mut value)?;
            if value.len() < 5 {
                return Err(EntryProblem::Damaged);
            }
            let flags = value.get_u8();
            let identifier = value.get_u32();
            subscriptions.insert(Subscription {
                filter,
                qos: if flags & 1 == 1 { Qos::AtLeastOnce } else { Qos::AtMostOnce },
                no_local: flags & 2 != 0,
                retain_as_published: flags & 4 != 0,
                identifier: (flags & 8 != 0).then_some(identifier),
            });
        }
        Ok(Entry { version, expiry, disconnected_at: (at != i64::MIN).then_some(Millis(at)), subscriptions })
    }
}

/// A partition of one topic, and not of another that had its name before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CursorKey {
    pub(crate) topic: Arc<str>,
    /// Of the topic.
    pub(crate) id: Uuid,
    pub(crate) partition: u32,
}

/// Where delivery of a session goes on: the next offset by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursors(pub(crate) BTreeMap<CursorKey, Offset>);

impl Cursors {
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_format(CURSORS_FORMAT, &mut out);
        out.put_u32(self.0.len() as u32);
        for (CursorKey { topic, id, partition }, offset) in &self.0 {
            put_text(topic, &mut out);
            out.put_u128(id.as_u128());
            out.put_u32(*partition);
            out.put_i64(offset.0);
        }
        out.freeze()
    }

    /// # Errors
    /// When the value was written by a later version or is damaged.
    pub(crate) fn decode(mut value: Bytes) -> Result<Cursors, EntryProblem> {
        expect_format(CURSORS_FORMAT, &mut value)?;
        let count = value.try_get_u32().map_err(|_| EntryProblem::Damaged)?;
        let mut cursors = BTreeMap::new();
        for _ in 0..count {
            let topic = Arc::from(take_text(&mut value)?.as_str());
            if value.len() < 28 {
                return Err(EntryProblem::Damaged);
            }
            let key = CursorKey { topic, id: Uuid::from_u128(value.get_u128()), partition: value.get_u32() };
            cursors.insert(key, Offset(value.get_i64()));
        }
        Ok(Cursors(cursors))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::packet::Text;

    #[test]
    fn an_intent_key_is_read_back_whatever_the_client_is_called() {
        for client in ["m1", "a/b", "q2/x/7", "", "ü@4"] {
            for stream in [CONTROL, 8] {
                let key = intent_key(client, stream, 65_535);
                assert_eq!(parse_intent_key(&key), Some((client, stream, 65_535)));
            }
        }
        assert_eq!(parse_intent_key(b"q2/x/notanumber"), None);
    }

    proptest! {
        #[test]
        fn an_entry_is_read_back_as_it_was_written(
            v5 in any::<bool>(),
            expiry in any::<u32>(),
            at in prop::option::of(0i64..i64::MAX),
            filters in prop::collection::vec(("\\PC{0,12}", any::<bool>(), any::<bool>(), prop::option::of(any::<u32>())), 0..5),
        ) {
            let mut subscriptions = Subscriptions::default();
            for (filter, qos1, no_local, identifier) in filters {
                subscriptions.insert(Subscription {
                    filter: Text::from(filter.as_str()),
                    qos: if qos1 { Qos::AtLeastOnce } else { Qos::AtMostOnce },
                    no_local,
                    retain_as_published: !no_local,
                    identifier,
                });
            }
            let version = if v5 { Version::V5 } else { Version::V4 };
            let entry = Entry { version, expiry, disconnected_at: at.map(Millis), subscriptions };
            prop_assert_eq!(Entry::decode(entry.encode()), Ok(entry));
        }

        #[test]
        fn cursors_are_read_back_as_they_were_written(
            all in prop::collection::vec(("[a-z]{0,9}", any::<u128>(), any::<u32>(), any::<i64>()), 0..5),
        ) {
            let key = |topic: String, id, partition| CursorKey { topic: topic.into(), id: Uuid::from_u128(id), partition };
            let all = all.into_iter().map(|(topic, id, partition, next)| (key(topic, id, partition), Offset(next)));
            let cursors = Cursors(all.collect());
            prop_assert_eq!(Cursors::decode(cursors.encode()), Ok(cursors));
        }

        #[test]
        fn damaged_values_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Entry::decode(Bytes::from(bytes.clone()));
            let _ = Cursors::decode(Bytes::from(bytes));
        }
    }
}
