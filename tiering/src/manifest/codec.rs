//! Manifest keys and values as bytes: magic, version, checksum, then JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_log::{Epoch, Millis, NodeId, Offset};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Entry, Lost, NO_EPOCH, ObjectFacts, Removal, State, TopicEntry};
use crate::shape::Shape;

const MAGIC: &[u8; 4] = b"FBLM";
const VERSION: u8 = 1;
/// Magic, version, CRC-32C of the rest.
const HEADER: usize = 9;

/// Why bytes are no manifest value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("not a manifest value")]
    Magic,
    #[error("manifest value of version {0}: this program reads version {VERSION}")]
    Version(u8),
    #[error("manifest value: checksum mismatch")]
    Checksum,
    #[error("manifest value: {0}")]
    Body(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StoredState {
    CopyStarted,
    CopyFinished,
    Committed,
    DeleteStarted,
}

#[derive(Serialize, Deserialize)]
struct StoredFacts {
    rows: u64,
    errors: u64,
    bytes: u64,
    min_timestamp: i64,
    max_timestamp: i64,
    finished_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<StoredLost>,
}

#[derive(Serialize, Deserialize)]
struct StoredLost {
    offsets: u64,
    gaps: Vec<(i64, i64)>,
    cause: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StoredRemoval {
    Folder,
    OwnObjects,
}

#[derive(Serialize, Deserialize)]
struct StoredTopic {
    topic_id: Uuid,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removal: Option<StoredRemoval>,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    topic_id: Uuid,
    partition: u32,
    base: i64,
    end: i64,
    id: Uuid,
    path: String,
    append_day: i64,
    log_bytes: u64,
    state: StoredState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    facts: Option<StoredFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<i32>,
}

/// The prefix of a topic's entries.
#[must_use]
pub fn entry_prefix(topic_id: Uuid) -> Bytes {
    Bytes::from(format!("range/{topic_id}/"))
}

/// The topic whose entries or leaders a key is about.
#[must_use]
pub fn topic_of(key: &[u8]) -> Option<Uuid> {
    let rest = key.strip_prefix(b"range/").or_else(|| key.strip_prefix(b"lead/"))?;
    Uuid::try_parse_ascii(rest.get(..36)?).ok()
}

/// The prefix of a partition's entries.
#[must_use]
pub fn partition_prefix(topic_id: Uuid, partition: u32) -> Bytes {
    Bytes::from(format!("range/{topic_id}/{partition:010}/"))
}

/// What the keys of one attempt at a range begin with, whoever noted it.
pub(super) fn attempt_prefix(entry: &Entry) -> Bytes {
    let Entry { topic_id, partition, base, id, .. } = entry;
    Bytes::from(format!("range/{topic_id}/{partition:010}/{:020}/{id}", base.0))
}

/// The key of an entry; keys of a partition sort by base offset. Each leader epoch has its own, so that none overwrites what
/// a later one has noted.
#[must_use]
pub fn entry_key(entry: &Entry) -> Bytes {
    let attempt = attempt_prefix(entry);
    if entry.epoch <= NO_EPOCH {
        return attempt;
    }
    [&attempt[..], format!("/{:010}", entry.epoch.0).as_bytes()].concat().into()
}

/// The prefix of what is noted of the leaders of a topic's partitions.
#[must_use]
pub fn lead_prefix(topic_id: Uuid) -> Bytes {
    Bytes::from(format!("lead/{topic_id}/"))
}

/// The key of one leader epoch of a partition.
pub(super) fn lead_key(topic_id: Uuid, partition: u32, epoch: Epoch) -> Bytes {
    Bytes::from(format!("lead/{topic_id}/{partition:010}/{:010}", epoch.0))
}

/// The partition and epoch of such a key.
pub(super) fn parse_lead_key(key: &[u8]) -> Option<(u32, Epoch)> {
    let mut parts = std::str::from_utf8(key).ok()?.strip_prefix("lead/")?.split('/').skip(1);
    Some((parts.next()?.parse().ok()?, Epoch(parts.next()?.parse().ok()?)))
}

#[derive(Serialize, Deserialize)]
struct StoredLead {
    adopted: bool,
}

/// Whether the leader of an epoch has taken over what it found.
pub(super) fn encode_lead(adopted: bool) -> Bytes {
    seal(&StoredLead { adopted })
}

pub(super) fn decode_lead(bytes: &[u8]) -> Result<bool, FormatError> {
    open::<StoredLead>(bytes).map(|lead| lead.adopted)
}

/// The key of what is kept of a topic as a whole.
#[must_use]
pub fn topic_key(topic_id: Uuid) -> Bytes {
    Bytes::from(format!("topic/{topic_id}"))
}

/// The key of how far a topic is to be flushed: whoever asks for it writes this, and the leaders of its partitions act upon it.
#[must_use]
pub fn flush_key(topic_id: Uuid) -> Bytes {
    Bytes::from(format!("flush/{topic_id}"))
}

#[derive(Serialize, Deserialize)]
struct StoredEnds {
    ends: BTreeMap<u32, i64>,
}

/// Up to where each partition is to be in the lake.
#[must_use]
pub fn encode_ends(ends: &BTreeMap<u32, Offset>) -> Bytes {
    seal(&StoredEnds { ends: ends.iter().map(|(partition, end)| (*partition, end.0)).collect() })
}

/// # Errors
/// As for `decode_entry`.
pub fn decode_ends(bytes: &[u8]) -> Result<BTreeMap<u32, Offset>, FormatError> {
    let stored: StoredEnds = open(bytes)?;
    Ok(stored.ends.into_iter().map(|(partition, end)| (partition, Offset(end))).collect())
}

/// The prefix of the nodes that do nothing more for a topic.
#[must_use]
pub fn rest_prefix(topic_id: Uuid) -> Bytes {
    Bytes::from(format!("rest/{topic_id}/"))
}

/// The key with which a node says so.
#[must_use]
pub fn rest_key(topic_id: Uuid, node: NodeId) -> Bytes {
    Bytes::from(format!("rest/{topic_id}/{}", node.0))
}

/// The key of a topic's shape.
#[must_use]
pub fn shape_key(topic_id: Uuid) -> Bytes {
    Bytes::from(format!("shape/{topic_id}"))
}

#[must_use]
pub fn encode_entry(entry: &Entry) -> Bytes {
    let facts = entry.facts.as_ref().map(|facts| StoredFacts {
        rows: facts.rows,
        errors: facts.errors,
        bytes: facts.bytes,
        min_timestamp: facts.min_timestamp.0,
        max_timestamp: facts.max_timestamp.0,
        finished_at: facts.finished_at.0,
        stats: facts.stats.clone(),
        lost: (facts.lost.offsets > 0).then(|| StoredLost {
            offsets: facts.lost.offsets,
            gaps: facts.lost.gaps.iter().map(|(from, to)| (from.0, to.0)).collect(),
            cause: facts.lost.cause.clone(),
        }),
    });
    seal(&StoredEntry {
        topic_id: entry.topic_id,
        partition: entry.partition,
        base: entry.base.0,
        end: entry.end.0,
        id: entry.id,
        path: entry.path.clone(),
        append_day: entry.append_day,
        log_bytes: entry.log_bytes,
        state: match entry.state {
            State::CopyStarted => StoredState::CopyStarted,
            State::CopyFinished => StoredState::CopyFinished,
            State::Committed => StoredState::Committed,
            State::DeleteStarted => StoredState::DeleteStarted,
        },
        facts,
        removed_at: entry.removed_at.map(|at| at.0),
        epoch: (entry.epoch > NO_EPOCH).then_some(entry.epoch.0),
    })
}

/// # Errors
/// The bytes are damaged, of another kind or of a later version.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, FormatError> {
    let stored: StoredEntry = open(bytes)?;
    Ok(Entry {
        topic_id: stored.topic_id,
        partition: stored.partition,
        base: Offset(stored.base),
        end: Offset(stored.end),
        id: stored.id,
        path: stored.path,
        append_day: stored.append_day,
        log_bytes: stored.log_bytes,
        state: match stored.state {
            StoredState::CopyStarted => State::CopyStarted,
            StoredState::CopyFinished => State::CopyFinished,
            StoredState::Committed => State::Committed,
            StoredState::DeleteStarted => State::DeleteStarted,
        },
        facts: stored.facts.map(|facts| ObjectFacts {
            rows: facts.rows,
            errors: facts.errors,
            bytes: facts.bytes,
            min_timestamp: Millis(facts.min_timestamp),
            max_timestamp: Millis(facts.max_timestamp),
            finished_at: Millis(facts.finished_at),
            stats: facts.stats,
            lost: facts.lost.map_or_else(Lost::default, |lost| Lost {
                offsets: lost.offsets,
                gaps: lost.gaps.into_iter().map(|(from, to)| (Offset(from), Offset(to))).collect(),
                cause: lost.cause,
            }),
        }),
        removed_at: stored.removed_at.map(Millis),
        epoch: stored.epoch.map_or(NO_EPOCH, Epoch),
    })
}

#[must_use]
pub fn encode_topic(topic: &TopicEntry) -> Bytes {
    let removal = topic.removal.map(|removal| match removal {
        Removal::Folder => StoredRemoval::Folder,
        Removal::OwnObjects => StoredRemoval::OwnObjects,
    });
    seal(&StoredTopic { topic_id: topic.topic_id, name: topic.name.clone(), removal })
}

/// # Errors
/// As for `decode_entry`.
pub fn decode_topic(bytes: &[u8]) -> Result<TopicEntry, FormatError> {
    let StoredTopic { topic_id, name, removal } = open(bytes)?;
    let removal = removal.map(|removal| match removal {
        StoredRemoval::Folder => Removal::Folder,
        StoredRemoval::OwnObjects => Removal::OwnObjects,
    });
    Ok(TopicEntry { topic_id, name, removal })
}

#[must_use]
pub fn encode_shape(shape: &Shape) -> Bytes {
    seal(shape)
}

/// # Errors
/// As for `decode_entry`.
pub fn decode_shape(bytes: &[u8]) -> Result<Shape, FormatError> {
    open(bytes)
}

fn seal(value: &impl Serialize) -> Bytes {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out.into()
}

fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let (Some((magic, [version, crc @ ..])), Some(body)) =
        (bytes.get(..HEADER).and_then(<[u8]>::split_first_chunk::<4>), bytes.get(HEADER..))
    else {
        return Err(FormatError::Magic);
    };
    if magic != MAGIC {
        return Err(FormatError::Magic);
    }
    if *version != VERSION {
        return Err(FormatError::Version(*version));
    }
    if crc != crc32c::crc32c(body).to_be_bytes() {
        return Err(FormatError::Checksum);
    }
    serde_json::from_slice(body).map_err(|error| FormatError::Body(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::object_path;
    use super::*;

    fn lost() -> Lost {
        let mut lost = Lost::default();
        lost.add(Offset(3), Offset(5), "0.log at byte 7: checksum mismatch");
        lost.add(Offset(5), Offset(6), "another");
        lost
    }

    #[test]
    fn what_was_lost_is_told_with_count_offsets_and_cause() {
        assert_eq!(lost().to_string(), "3 records, offsets 3..6: 0.log at byte 7: checksum mismatch");
        let mut many = Lost::default();
        (0..1000).for_each(|n| many.add(Offset(n * 10), Offset(n * 10 + 1), "why"));
        assert!(many.to_string().starts_with("1000 records, offsets 0..1, 10..11,"), "{many}");
        assert!(many.to_string().ends_with("150..151 and more: why"), "{many}");
    }

    #[test]
    fn keys_tell_their_topic() {
        let id = Uuid::from_u128(7);
        for key in [entry_prefix(id), partition_prefix(id, 3), lead_key(id, 3, Epoch(1))] {
            assert_eq!(topic_of(&key), Some(id));
        }
        assert_eq!((topic_of(&topic_key(id)), topic_of(b"range/")), (None, None));
    }

    #[test]
    fn how_far_a_topic_is_to_be_flushed_comes_back_as_written() {
        let ends = BTreeMap::from([(0, Offset(7)), (11, Offset(0))]);
        assert_eq!(decode_ends(&encode_ends(&ends)), Ok(ends));
    }

    #[test]
    fn a_topic_comes_back_as_written() {
        for removal in [None, Some(Removal::Folder), Some(Removal::OwnObjects)] {
            let topic = TopicEntry { topic_id: Uuid::from_u128(7), name: "readings".into(), removal };
            assert_eq!(decode_topic(&encode_topic(&topic)), Ok(topic));
        }
    }

    fn entry(base: i64, len: i64, state: usize, finished: bool) -> Entry {
        let id = Uuid::from_u128(u128::from(base.unsigned_abs()) << 8);
        Entry {
            topic_id: Uuid::from_u128(7),
            partition: 3,
            base: Offset(base),
            end: Offset(base + len),
            id,
            path: object_path("readings", 3, Offset(base), 19_000, id),
            append_day: 19_000,
            log_bytes: 5,
            state: [State::CopyStarted, State::CopyFinished, State::Committed, State::DeleteStarted][state],
            facts: finished.then(|| ObjectFacts {
                rows: 1,
                errors: 2,
                bytes: 3,
                min_timestamp: Millis(-1),
                max_timestamp: Millis(i64::MAX),
                finished_at: Millis(4),
                stats: Some("{}".into()),
                lost: if state == 1 { lost() } else { Lost::default() },
            }),
            removed_at: (state == 3).then_some(Millis(9)),
            epoch: Epoch(if finished { 7 } else { -1 }),
        }
    }

    #[test]
    fn an_object_lies_under_its_day_and_names_its_range() {
        let path = entry(42, 1, 0, false).path;
        assert!(path.starts_with("readings/_date=2022-01-08/part-00003-00000000000000000042-"), "{path}");
    }

    #[test]
    fn a_value_of_a_later_version_or_with_a_flipped_bit_is_refused() {
        let mut bytes = encode_entry(&entry(1, 2, 1, true)).to_vec();
        bytes[20] ^= 1;
        assert_eq!(decode_entry(&bytes), Err(FormatError::Checksum));
        bytes[20] ^= 1;
        bytes[4] = 9;
        assert_eq!(decode_entry(&bytes), Err(FormatError::Version(9)));
        assert_eq!(decode_entry(b"FB"), Err(FormatError::Magic));
    }

    proptest! {
        #[test]
        fn entries_come_back_as_written(base in 0i64..i64::MAX / 2, len in 1i64..1000, state in 0usize..4, finished: bool) {
            let entry = entry(base, len, state, finished);
            prop_assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode_entry(&bytes);
        }
    }
}
