//! Checkpoints: the state of a source partition's alerts in `_alert_state`, replaced as a whole.
//!
//! ```text
//! check/TOPIC/TOPIC_ID/PARTITION/head        generation, parts, journal
//! check/TOPIC/TOPIC_ID/PARTITION/part/G/N    the Nth part of generation G
//! source/TOPIC/TOPIC_ID                      where each partition is read from first
//! await/TOPIC                                a topic that rules read and that does not exist yet
//! ```
//! The head changes after all parts of its generation are durable; until then the old generation stands whole.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::Topic;
use forebay_log::{AppendError, Offset};
use serde::{Deserialize, Serialize};

use super::entry::{decode, encode};
use super::limits::CHECKPOINT_PART_BYTES;
use crate::state::StateTopic;

/// What says which parts are the checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    generation: u64,
    parts: usize,
    /// Every transition of later records stands at or behind this offset of `_alerts`.
    journal: i64,
}

/// A saved state.
pub(super) struct Checkpoint {
    pub(super) snapshot: Vec<u8>,
    /// From where on `_alerts` may hold transitions that the state does not know of.
    pub(super) journal: Offset,
}

/// The checkpoints of one source partition.
pub(super) struct Checkpoints {
    state: Arc<StateTopic>,
    prefix: String,
    head: Option<Head>,
}

impl Checkpoints {
    pub(super) fn new(state: Arc<StateTopic>, topic: &str, id: impl Display, partition: u32) -> Checkpoints {
        let prefix = format!("check/{topic}/{id}/{partition}/");
        let key = format!("{prefix}head");
        let head = state.get(key.as_bytes()).and_then(|bytes| decode(key.as_bytes(), &bytes));
        Checkpoints { state, prefix, head }
    }

    /// The last checkpoint; `None` if there is none, or if its parts are not all there.
    pub(super) fn load(&self) -> Option<Checkpoint> {
        let head = self.head.as_ref()?;
        let mut snapshot = Vec::new();
        for part in 0..head.parts {
            snapshot.extend_from_slice(&self.state.get(&self.part(head.generation, part))?);
        }
        Some(Checkpoint { snapshot, journal: Offset(head.journal) })
    }

    /// Replaces the checkpoint; durable on return.
    pub(super) async fn save(&mut self, snapshot: &[u8], journal: Offset) -> Result<(), AppendError> {
        let generation = self.head.as_ref().map_or(0, |head| head.generation) + 1;
        let parts: Vec<&[u8]> = snapshot.chunks(CHECKPOINT_PART_BYTES).collect();
        let head = Head { generation, parts: parts.len(), journal: journal.0 };
        let mut last = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let change = (self.part(generation, index), Some(Bytes::copy_from_slice(part)));
            // One part fits into the batch that changes the head.
            if parts.len() == 1 {
                last.push(change);
            } else {
                self.state.put_all(vec![change]).await?;
            }
        }
        last.push((Bytes::from(format!("{}head", self.prefix)), Some(encode(&head))));
        let kept = format!("{}part/{generation}/", self.prefix);
        for (key, _) in self.state.scan(format!("{}part/", self.prefix).as_bytes()) {
            if !key.starts_with(kept.as_bytes()) {
                last.push((key, None));
            }
        }
        self.state.put_all(last).await?;
        self.head = Some(head);
        Ok(())
    }

    /// Forgets the partition.
    pub(super) async fn remove(&mut self) -> Result<(), AppendError> {
        self.head = None;
        remove_all(&self.state, &self.prefix).await
    }

    fn part(&self, generation: u64, index: usize) -> Bytes {
        Bytes::from(format!("{}part/{generation}/{index}", self.prefix))
    }
}

/// Where the partitions of a topic are read from when there is no checkpoint yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Starts {
    /// Offsets by partition; partitions that are not in it are read from their beginning.
    pub(super) from: BTreeMap<u32, i64>,
    /// The end of `_alerts` at that time.
    pub(super) journal: i64,
}

impl Starts {
    fn key(topic: &str, id: impl Display) -> Bytes {
        Bytes::from(format!("source/{topic}/{id}"))
    }

    pub(super) fn load(state: &StateTopic, topic: &Topic) -> Option<Starts> {
        let key = Starts::key(&topic.name, topic.id);
        decode(&key, &state.get(&key)?)
    }

    pub(super) async fn save(&self, state: &StateTopic, topic: &Topic) -> Result<(), AppendError> {
        state.put(Starts::key(&topic.name, topic.id), Some(encode(self))).await
    }

    pub(super) async fn remove(state: &StateTopic, topic: &str, id: impl Display) -> Result<(), AppendError> {
        state.put(Starts::key(topic, id), None).await
    }
}

/// A topic that has state here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KnownSource {
    pub(super) topic: String,
    /// The topic's id as text.
    pub(super) id: String,
    /// Partitions with a checkpoint.
    pub(super) partitions: Vec<u32>,
}

/// All topics that have state here.
pub(super) fn known_sources(state: &StateTopic) -> Vec<KnownSource> {
    let mut sources: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
    for prefix in ["check/", "source/"] {
        for (key, _) in state.scan(prefix.as_bytes()) {
            let Ok(key) = std::str::from_utf8(&key) else { continue };
            let mut parts = key.split('/').skip(1).map(str::to_owned);
            let (Some(topic), Some(id)) = (parts.next(), parts.next()) else { continue };
            let partitions = sources.entry((topic, id)).or_default();
            if let (Some(Ok(partition)), Some("head")) =
                (parts.next().map(|text| text.parse()), parts.next().as_deref())
            {
                partitions.push(partition);
            }
        }
    }
    sources.into_iter().map(|((topic, id), partitions)| KnownSource { topic, id, partitions }).collect()
}

/// Notes that a topic is to be read from its beginning as soon as it exists.
pub(super) async fn await_topic(state: &StateTopic, topic: &str) -> Result<(), AppendError> {
    state.put(format!("await/{topic}"), Some(encode(&()))).await
}

/// The topics that are awaited.
pub(super) fn awaited(state: &StateTopic) -> Vec<String> {
    let names = state.scan(b"await/").into_iter();
    names.filter_map(|(key, _)| Some(std::str::from_utf8(&key).ok()?.strip_prefix("await/")?.to_owned())).collect()
}

/// Whether a topic was awaited when it did not exist yet.
pub(super) fn is_awaited(state: &StateTopic, topic: &str) -> bool {
    state.get(format!("await/{topic}").as_bytes()).is_some()
}

/// The topic exists now, or no rule reads it any more.
pub(super) async fn stop_awaiting(state: &StateTopic, topic: &str) -> Result<(), AppendError> {
    state.put(format!("await/{topic}"), None).await
}

async fn remove_all(state: &StateTopic, prefix: &str) -> Result<(), AppendError> {
    let removed = state.scan(prefix.as_bytes()).into_iter().map(|(key, _)| (key, None)).collect();
    state.put_all(removed).await
}

#[cfg(test)]
mod tests {
    use forebay_cluster::{Log, LogOptions, RealFiles};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checkpoint_of_many_parts_is_replaced_as_a_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = RealFiles::open(folder.path()).expect("a directory");
        let log = Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).expect("a log");
        let state = StateTopic::open(&log, "_alert_state").await.expect("a state topic");
        let open = || Checkpoints::new(state.clone(), "readings", "id", 3);
        assert!(open().load().is_none());
        let large: Vec<u8> = (0..CHECKPOINT_PART_BYTES * 2 + 5).map(|i| (i * 7 % 251) as u8).collect();
        for (snapshot, journal) in [(&large[..], 7), (&large[..9], 8), (&large[3..], 9)] {
            let mut checkpoints = open();
            checkpoints.save(snapshot, Offset(journal)).await.expect("saved");
            let loaded = open().load().expect("a checkpoint");
            assert!(loaded.snapshot == snapshot && loaded.journal == Offset(journal));
            assert_eq!(known_sources(&state)[0].partitions, [3]);
        }
        // Parts of a generation whose head was never written, as a crash leaves them.
        state.put("check/readings/id/3/part/9/0", Some(Bytes::from_static(b"half"))).await.expect("put");
        assert_eq!(open().load().expect("the whole one").journal, Offset(9));
        open().save(b"next", Offset(10)).await.expect("saved");
        assert_eq!(state.scan(b"check/").len(), 2, "a head and a part");
        open().remove().await.expect("removed");
        assert!(state.scan(b"check/").is_empty() && known_sources(&state).is_empty());
    }
}
