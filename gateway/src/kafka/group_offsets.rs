//! Committed offsets of consumer groups: records of `__consumer_offsets`, in Kafka's own key and value formats.
//!
//! Key (version 1): group, topic, partition. Value (version 3): offset, leader epoch, metadata, commit time.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_disk::{Log, LogError};
use forebay_log::{AppendError, Millis};
use kafka_protocol::ResponseError;
use tokio::sync::OnceCell;

use super::errors::Refusal;
use crate::state::StateTopic;

/// The topic that Kafka, too, keeps them in.
const TOPIC: &str = "__consumer_offsets";
const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;

/// Where a group has got to in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// Of the last record read, -1 when the client did not say.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// The committed offsets of all groups; the topic is made with the first use.
pub(crate) struct GroupOffsets {
    state: OnceCell<Arc<StateTopic>>,
}

impl GroupOffsets {
    pub(crate) fn new() -> GroupOffsets {
        GroupOffsets { state: OnceCell::new() }
    }

    async fn state(&self, log: &Log) -> Result<&Arc<StateTopic>, Refusal> {
        let open = async || {
            let state = StateTopic::open(log, TOPIC).await?;
            // From an older offset a group reads records again, as after any crash of its own.
            state.go_on_damaged();
            Ok(state)
        };
        let opened = self.state.get_or_try_init(open).await;
        opened.map_err(|error: LogError| Refusal::new(ResponseError::CoordinatorNotAvailable, error.to_string()))
    }

    /// Stores offsets of one group, all of them or none; returns when they are durable.
    pub(crate) async fn commit(
        &self,
        log: &Log,
        group: &str,
        offsets: impl IntoIterator<Item = ((String, i32), Committed)>,
        now: Millis,
    ) -> Result<(), Refusal> {
        let changes = offsets
            .into_iter()
            .map(|((topic, partition), committed)| (key(group, &topic, partition), Some(value(&committed, now))))
            .collect();
        let stored = self.state(log).await?.put_all(changes).await;
        stored.map_err(|error| match error {
            // The client tries again with these, and finds another coordinator if there is one.
            AppendError::Closed | AppendError::NotLeader => ResponseError::NotCoordinator.into(),
            other => Refusal::new(ResponseError::CoordinatorNotAvailable, other.to_string()),
        })
    }

    /// One offset of a group.
    pub(crate) async fn get(
        &self,
        log: &Log,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<Committed>, Refusal> {
        let stored = self.state(log).await?.get(&key(group, topic, partition));
        Ok(stored.and_then(read_value))
    }

    /// Every offset of a group, by topic and partition.
    pub(crate) async fn all(&self, log: &Log, group: &str) -> Result<Vec<((String, i32), Committed)>, Refusal> {
        let stored = self.state(log).await?.scan(&key_prefix(group));
        Ok(stored.into_iter().filter_map(|(key, value)| Some((read_key(key)?, read_value(value)?))).collect())
    }
}

fn put_string(buffer: &mut BytesMut, text: &str) {
    let length = text.len().min(i16::MAX as usize);
    buffer.put_i16(length as i16);
    buffer.put_slice(&text.as_bytes()[..length]);
}

fn key_prefix(group: &str) -> BytesMut {
    let mut key = BytesMut::new();
    key.put_i16(KEY_VERSION);
    put_string(&mut key, group);
    key
}

fn key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut key = key_prefix(group);
    put_string(&mut key, topic);
    key.put_i32(partition);
    key.freeze()
}

fn value(committed: &Committed, now: Millis) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(VALUE_VERSION);
    value.put_i64(committed.offset);
    value.put_i32(committed.leader_epoch);
    put_string(&mut value, &committed.metadata);
    value.put_i64(now.0);
    value.freeze()
}

fn read_string(buffer: &mut Bytes) -> Option<String> {
    let length = usize::try_from(buffer.try_get_i16().ok()?).ok()?;
    if buffer.len() < length {
        return None;
    }
    String::from_utf8(buffer.split_to(length).into()).ok()
}

/// `None` for a key of another kind (group metadata) or of an unknown version.
fn read_key(mut key: Bytes) -> Option<(String, i32)> {
    (key.try_get_i16().ok()? == KEY_VERSION).then_some(())?;
    read_string(&mut key)?;
    Some((read_string(&mut key)?, key.try_get_i32().ok()?))
}

fn read_value(mut value: Bytes) -> Option<Committed> {
    (value.try_get_i16().ok()? == VALUE_VERSION).then_some(())?;
    let (offset, leader_epoch) = (value.try_get_i64().ok()?, value.try_get_i32().ok()?);
    Some(Committed { offset, leader_epoch, metadata: read_string(&mut value)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_read_back_and_one_group_is_no_prefix_of_another() {
        assert_eq!(read_key(key("g", "readings", 7)), Some(("readings".to_owned(), 7)));
        assert!(!key("gg", "readings", 7).starts_with(&key_prefix("g")));
        let committed = Committed { offset: 42, leader_epoch: -1, metadata: "änd".to_owned() };
        assert_eq!(read_value(value(&committed, Millis(5))), Some(committed));
        assert_eq!(read_value(Bytes::from_static(&[0, 3, 1])), None);
    }
}
