//! What `__consumer_offsets` holds, in Kafka's own formats: how far groups have read, and their members.
//!
//! | key | value |
//! |---|---|
//! | 1: group, topic, partition | 3: offset, leader epoch, metadata, time of the commit |
//! | 2: group | 3: protocol type, generation, protocol, leader, time, members |
//! | 3 to 8: group, and for some a member | of the consumer protocol: [`super::consumer::records`] |
//!
//! Numbers are big-endian, strings have their length in two bytes before them and byte strings in four, -1 for none.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Name;
use super::classic::{GroupRecord, MemberRecord};
use super::consumer::records::RecordOf;
use crate::Millis;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 3;
const GROUP_VALUE: i16 = 3;

/// What a record of the topic is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Offset {
        group: Name,
        topic: Name,
        partition: i32,
    },
    Group(Name),
    /// A part of what is stored of a group of the consumer protocol.
    Consumer(Name, RecordOf),
}

/// Where a group has got to in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// Of the last record read, -1 when the client did not say.
    pub leader_epoch: i32,
    pub metadata: String,
}

impl Key {
    pub fn encode(&self) -> Bytes {
        let mut key = BytesMut::new();
        match self {
            Key::Offset { group, topic, partition } => {
                key.put_slice(&Key::offsets_of(group));
                put_string(&mut key, topic);
                key.put_i32(*partition);
            }
            Key::Group(group) => {
                key.put_i16(GROUP_KEY);
                put_string(&mut key, group);
            }
            Key::Consumer(group, of) => {
                key.put_i16(of.kind());
                put_string(&mut key, group);
                of.member().into_iter().for_each(|id| put_string(&mut key, id));
            }
        }
        key.freeze()
    }

    /// What the keys of a consumer group's records begin with, by kind, and those of no other group.
    pub fn consumer_of(group: &str) -> impl Iterator<Item = Bytes> {
        RecordOf::KINDS.map(move |kind| {
            let mut prefix = BytesMut::new();
            prefix.put_i16(kind);
            put_string(&mut prefix, group);
            prefix.freeze()
        })
    }

    /// What the keys of all consumer groups' records begin with, by kind.
    pub fn all_consumer() -> impl Iterator<Item = [u8; 2]> {
        RecordOf::KINDS.map(i16::to_be_bytes)
    }

    /// What the keys of all offsets of a group begin with, and those of no other group.
    pub fn offsets_of(group: &str) -> Bytes {
        let mut prefix = BytesMut::new();
        prefix.put_i16(OFFSET_KEY);
        put_string(&mut prefix, group);
        prefix.freeze()
    }

    /// What the keys of all offsets begin with.
    pub fn all_offsets() -> [u8; 2] {
        OFFSET_KEY.to_be_bytes()
    }

    /// What the keys of all groups begin with.
    pub fn all_groups() -> [u8; 2] {
        GROUP_KEY.to_be_bytes()
    }

    /// `None` for a key of another kind, or one that is no key.
    pub fn decode(mut key: Bytes) -> Option<Key> {
        match key.try_get_i16().ok()? {
            OFFSET_KEY => {
                let (group, topic) = (string(&mut key)?, string(&mut key)?);
                Some(Key::Offset { group, topic, partition: key.try_get_i32().ok()? })
            }
            GROUP_KEY => Some(Key::Group(string(&mut key)?)),
            kind if RecordOf::KINDS.contains(&kind) => {
                let group = string(&mut key)?;
                Some(Key::Consumer(group, RecordOf::of_kind(kind, || string(&mut key))?))
            }
            _ => None,
        }
    }
}

impl Committed {
    pub fn encode(&self, at: Millis) -> Bytes {
        let mut value = BytesMut::new();
        value.put_i16(OFFSET_VALUE);
        value.put_i64(self.offset);
        value.put_i32(self.leader_epoch);
        put_string(&mut value, &self.metadata);
        value.put_i64(at.0);
        value.freeze()
    }

    /// What was committed, and when.
    pub fn decode(mut value: Bytes) -> Option<(Committed, Millis)> {
        (value.try_get_i16().ok()? == OFFSET_VALUE).then_some(())?;
        let (offset, leader_epoch) = (value.try_get_i64().ok()?, value.try_get_i32().ok()?);
        let metadata = string(&mut value)?.to_string();
        Some((Committed { offset, leader_epoch, metadata }, Millis(value.try_get_i64().ok()?)))
    }
}

impl GroupRecord {
    pub fn encode(&self, at: Millis) -> Bytes {
        let mut value = BytesMut::new();
        value.put_i16(GROUP_VALUE);
        put_string(&mut value, self.protocol_type.as_deref().unwrap_or_default());
        value.put_i32(self.generation);
        put_optional(&mut value, self.protocol.as_deref());
        put_optional(&mut value, self.leader.as_deref());
        value.put_i64(at.0);
        value.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_string(&mut value, &member.id);
            put_optional(&mut value, member.instance.as_deref());
            put_string(&mut value, &member.client_id);
            put_string(&mut value, &member.client_host);
            value.put_i32(member.rebalance_timeout.clamp(0, i64::from(i32::MAX)) as i32);
            value.put_i32(member.session_timeout.clamp(0, i64::from(i32::MAX)) as i32);
            put_bytes(&mut value, &member.metadata);
            put_bytes(&mut value, &member.assignment);
        }
        value.freeze()
    }

    /// The group, and when it was stored.
    pub fn decode(mut value: Bytes) -> Option<(GroupRecord, Millis)> {
        let value = &mut value;
        (value.try_get_i16().ok()? == GROUP_VALUE).then_some(())?;
        let protocol_type = Some(string(value)?).filter(|kind| !kind.is_empty());
        let generation = value.try_get_i32().ok()?;
        let (protocol, leader) = (optional(value)?, optional(value)?);
        let at = Millis(value.try_get_i64().ok()?);
        let count = value.try_get_i32().ok()?;
        let mut members = Vec::new();
        for _ in 0..count {
            let (id, instance, client_id, client_host) =
                (string(value)?, optional(value)?, string(value)?, string(value)?);
            let rebalance_timeout = i64::from(value.try_get_i32().ok()?);
            let session_timeout = i64::from(value.try_get_i32().ok()?);
            let (metadata, assignment) = (byte_string(value)?, byte_string(value)?);
            members.push(MemberRecord {
                id,
                instance,
                client_id,
                client_host,
                session_timeout,
                rebalance_timeout,
                metadata,
                assignment,
            });
        }
        Some((GroupRecord { protocol_type, generation, protocol, leader, members }, at))
    }
}

fn put_string(buffer: &mut BytesMut, text: &str) {
    let length = text.len().min(i16::MAX as usize);
    buffer.put_i16(length as i16);
    buffer.put_slice(&text.as_bytes()[..length]);
}

fn put_optional(buffer: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(buffer, text),
        None => buffer.put_i16(-1),
    }
}

fn put_bytes(buffer: &mut BytesMut, bytes: &Bytes) {
    buffer.put_i32(bytes.len() as i32);
    buffer.put_slice(bytes);
}

fn string(buffer: &mut Bytes) -> Option<Name> {
    optional(buffer)?
}

/// The outer `None` for what is no string.
fn optional(buffer: &mut Bytes) -> Option<Option<Name>> {
    let length = buffer.try_get_i16().ok()?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= buffer.len())?;
    let text = buffer.split_to(length);
    Some(Some(std::str::from_utf8(&text).ok()?.into()))
}

fn byte_string(buffer: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(buffer.try_get_i32().ok()?).ok().filter(|length| *length <= buffer.len())?;
    Some(buffer.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        ".{0,12}".prop_map(Name::from)
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn member() -> impl Strategy<Value = MemberRecord> {
        let names = (name(), prop::option::of(name()), name(), name());
        (names, 0..i64::from(i32::MAX), 0..i64::from(i32::MAX), bytes(), bytes()).prop_map(
            |((id, instance, client_id, client_host), session_timeout, rebalance_timeout, metadata, assignment)| {
                MemberRecord {
                    id,
                    instance,
                    client_id,
                    client_host,
                    session_timeout,
                    rebalance_timeout,
                    metadata,
                    assignment,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn groups_read_back(
            kind in prop::option::of("[a-z]{1,9}"),
            generation: i32,
            protocol in prop::option::of(name()),
            leader in prop::option::of(name()),
            members in prop::collection::vec(member(), 0..5),
            at: i64,
        ) {
            let record = GroupRecord { protocol_type: kind.map(Name::from), generation, protocol, leader, members };
            prop_assert_eq!(GroupRecord::decode(record.encode(Millis(at))), Some((record, Millis(at))));
        }

        #[test]
        fn offsets_read_back(offset: i64, leader_epoch: i32, metadata in ".{0,40}", at: i64, topic in name(), partition: i32) {
            let committed = Committed { offset, leader_epoch, metadata };
            prop_assert_eq!(Committed::decode(committed.encode(Millis(at))), Some((committed, Millis(at))));
            let key = Key::Offset { group: "g".into(), topic, partition };
            prop_assert_eq!(Key::decode(key.encode()), Some(key));
            let of_group = [RecordOf::Group, RecordOf::Partitions, RecordOf::Target];
            let of_member = [RecordOf::Member, RecordOf::TargetMember, RecordOf::Current].map(|of| of("m".into()));
            for of in of_group.into_iter().chain(of_member) {
                let key = Key::Consumer("g".into(), of);
                prop_assert_eq!(Key::decode(key.encode()), Some(key));
            }
        }

        #[test]
        fn whatever_is_stored_is_read_or_left_alone(bytes in prop::collection::vec(any::<u8>(), 0..200), version in 0..4i16) {
            let bytes: Bytes = [&version.to_be_bytes()[..], &bytes].concat().into();
            let _ = (Key::decode(bytes.clone()), Committed::decode(bytes.clone()), GroupRecord::decode(bytes));
        }
    }

    #[test]
    fn one_group_is_no_prefix_of_another() {
        let key = Key::Offset { group: "gg".into(), topic: "readings".into(), partition: 7 }.encode();
        assert!(!key.starts_with(&Key::offsets_of("g")));
        assert!(key.starts_with(&Key::offsets_of("gg")) && key.starts_with(&Key::all_offsets()));
    }

    #[test]
    fn the_bytes_are_those_of_kafka() {
        let committed = Committed { offset: 42, leader_epoch: -1, metadata: "m".to_owned() };
        let expected = [&[0, 3][..], &42i64.to_be_bytes(), &[255; 4], &[0, 1, b'm'], &5i64.to_be_bytes()].concat();
        assert_eq!(committed.encode(Millis(5)), expected);
        assert_eq!(Key::Group("g".into()).encode(), &[0, 2, 0, 1, b'g'][..]);
    }
}
