//! Checkpoints: the state of a source partition's alerts in `_alert_state`, replaced as a whole.
//!
//! ```text
//! check/TOPIC/TOPIC_ID/PARTITION/claim/EPOCH  the leader of this epoch evaluates from now on
//! check/TOPIC/TOPIC_ID/PARTITION/head/EPOCH   generation, parts, journal
//! check/TOPIC/TOPIC_ID/PARTITION/part/G/N     the Nth part of generation G
//! source/TOPIC/TOPIC_ID                       where each partition is read from first
//! await/TOPIC                                 a topic that rules read and that does not exist yet
//! ```
//! The head changes after all parts of its generation are durable; until then the old generation stands whole. Each leader
//! writes a head of its own and removes only what older ones wrote, so that one that does not know yet that it leads no more
//! changes nothing that counts. (Before there were leaders the key was `head`.)

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::{Claim, Topic};
use forebay_log::{AppendError, Epoch, Offset};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::{decode, encode};
use super::limits::CHECKPOINT_PART_BYTES;
use crate::state::{Change, StateTopic};

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

/// Why a checkpoint was not saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSaved {
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("another node evaluates the partition by now")]
    Superseded,
}

/// The followers' checkpoints, to who keeps `_alert_state`.
const CHECKPOINTS: u8 = 1;
/// Of heads from before there were leaders.
const NO_EPOCH: Epoch = Epoch(-1);

/// The checkpoints of one source partition, by the leader of one epoch.
pub(super) struct Checkpoints {
    state: Arc<StateTopic>,
    prefix: String,
    epoch: Epoch,
    generation: u64,
    /// In whose name it is written: refused where there is a later leader.
    claim: Option<Claim>,
    /// Something was written of which it is not known what became.
    in_doubt: bool,
}

impl Checkpoints {
    pub(super) fn new(
        state: Arc<StateTopic>,
        topic: &str,
        id: impl Display,
        partition: u32,
        epoch: Epoch,
    ) -> Checkpoints {
        let prefix = format!("check/{topic}/{id}/{partition}/");
        let mut checkpoints = Checkpoints { state, prefix, epoch, generation: 0, claim: None, in_doubt: false };
        checkpoints.generation = checkpoints.heads().values().map(|head| head.generation).max().unwrap_or(0);
        checkpoints
    }

    /// The same, written in the name of the partition's leader.
    pub(super) fn led(mut self, topic: Uuid) -> Checkpoints {
        let partition = self.prefix.trim_end_matches('/').rsplit('/').next().and_then(|index| index.parse().ok());
        self.claim = partition.map(|index| Claim::new(CHECKPOINTS, topic, [(index, self.epoch)].into()));
        self
    }

    /// Claims, and loads what there was before.
    pub(super) async fn take_over(&mut self) -> Result<Option<Checkpoint>, NotSaved> {
        self.claim().await?;
        let loaded = self.load();
        // A later leader claims before it saves: then nothing of it was loaded.
        self.check()?;
        Ok(loaded)
    }

    async fn put(&self, changes: Vec<Change>) -> Result<(), NotSaved> {
        let put = match &self.claim {
            Some(claim) => self.state.put_as(claim, changes).await,
            None => self.state.put_all(changes).await,
        };
        put.map_err(|error| match error {
            AppendError::ProducerFenced => NotSaved::Superseded,
            error => NotSaved::Append(error),
        })
    }

    /// From now on this leader evaluates the partition. On return everything is seen here that an older one has saved, and it can
    /// save no more.
    pub(super) async fn claim(&mut self) -> Result<(), NotSaved> {
        self.claim.iter_mut().for_each(Claim::renew);
        let key = Bytes::from(format!("{}claim/{:010}", self.prefix, self.epoch.0));
        self.put(vec![(key, Some(encode(&())))]).await?;
        self.in_doubt = false;
        self.generation = self.heads().values().map(|head| head.generation).max().unwrap_or(0);
        self.check()
    }

    fn check(&self) -> Result<(), NotSaved> {
        let later = self.epochs("claim/").into_iter().any(|(epoch, _)| epoch > self.epoch);
        if later { Err(NotSaved::Superseded) } else { Ok(()) }
    }

    /// Keys and epochs of one kind.
    fn epochs(&self, kind: &str) -> Vec<(Epoch, Bytes)> {
        let prefix = format!("{}{kind}", self.prefix);
        let epoch = |key: &Bytes| std::str::from_utf8(&key[prefix.len()..]).ok()?.parse().ok().map(Epoch);
        let keys = self.state.scan(prefix.as_bytes()).into_iter().map(|(key, _)| key);
        keys.filter_map(|key| Some((epoch(&key)?, key))).collect()
    }

    fn head_key(&self, epoch: Epoch) -> String {
        if epoch == NO_EPOCH { format!("{}head", self.prefix) } else { format!("{}head/{:010}", self.prefix, epoch.0) }
    }

    fn heads(&self) -> BTreeMap<Epoch, Head> {
        let known = self.epochs("head/").into_iter().map(|(epoch, _)| epoch).chain([NO_EPOCH]);
        let head = |epoch| {
            let key = self.head_key(epoch);
            Some((epoch, decode(key.as_bytes(), &self.state.get(key.as_bytes())?)?))
        };
        known.filter_map(head).collect()
    }

    /// The last checkpoint of the latest leader that has one; `None` if there is none, or if its parts are not all there.
    pub(super) fn load(&self) -> Option<Checkpoint> {
        let (_, head) = self.heads().pop_last()?;
        let mut snapshot = Vec::new();
        for part in 0..head.parts {
            snapshot.extend_from_slice(&self.state.get(&self.part(head.generation, part))?);
        }
        Some(Checkpoint { snapshot, journal: Offset(head.journal) })
    }

    /// Tells one checkpoint from another; `None` if there is none.
    pub(super) fn stamp(&self) -> Option<(Epoch, u64)> {
        self.heads().pop_last().map(|(epoch, head)| (epoch, head.generation))
    }

    /// Whether the last checkpoint is of this leader.
    pub(super) fn is_own(&self) -> bool {
        self.stamp().is_some_and(|(epoch, _)| epoch == self.epoch)
    }

    /// Replaces the checkpoint; durable on return.
    pub(super) async fn save(&mut self, snapshot: &[u8], journal: Offset) -> Result<(), NotSaved> {
        if std::mem::replace(&mut self.in_doubt, true) {
            // What was written then is there by now, or never comes.
            self.claim().await?;
            self.in_doubt = true;
        }
        let generation = self.generation + 1;
        let parts: Vec<&[u8]> = snapshot.chunks(CHECKPOINT_PART_BYTES).collect();
        let head = Head { generation, parts: parts.len(), journal: journal.0 };
        let mut last = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let change = (self.part(generation, index), Some(Bytes::copy_from_slice(part)));
            // One part fits into the batch that changes the head.
            if parts.len() == 1 {
                last.push(change);
            } else {
                self.put(vec![change]).await?;
            }
        }
        last.push((Bytes::from(self.head_key(self.epoch)), Some(encode(&head))));
        // What later leaders have written stays.
        let before = |epoch: &Epoch| *epoch < self.epoch;
        let old = self.heads().into_keys().filter(before).map(|epoch| Bytes::from(self.head_key(epoch)));
        let claims = self.epochs("claim/").into_iter().filter(|(epoch, _)| before(epoch)).map(|(_, key)| key);
        last.extend(old.chain(claims).map(|key| (key, None)));
        let later: Vec<u64> = self.heads().range(self.epoch.next()..).map(|(_, head)| head.generation).collect();
        for (key, _) in self.state.scan(format!("{}part/", self.prefix).as_bytes()) {
            let of = std::str::from_utf8(&key).ok().and_then(|key| key.rsplit('/').nth(1)?.parse::<u64>().ok());
            if of.is_none_or(|of| of != generation && !later.contains(&of)) {
                last.push((key, None));
            }
        }
        self.check()?;
        self.put(last).await?;
        (self.generation, self.in_doubt) = (generation, false);
        self.check()
    }

    /// Forgets the partition.
    pub(super) async fn remove(&mut self) -> Result<(), AppendError> {
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

    pub(super) async fn save(&self, state: &StateTopic, keeper: &Claim, topic: &Topic) -> Result<(), AppendError> {
        state.put_as(keeper, vec![(Starts::key(&topic.name, topic.id), Some(encode(self)))]).await
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
                partitions.dedup();
            }
        }
    }
    sources.into_iter().map(|((topic, id), partitions)| KnownSource { topic, id, partitions }).collect()
}

/// Notes that a topic is to be read from its beginning as soon as it exists.
pub(super) async fn await_topic(state: &StateTopic, keeper: &Claim, topic: &str) -> Result<(), AppendError> {
    state.put_as(keeper, vec![(Bytes::from(format!("await/{topic}")), Some(encode(&())))]).await
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
pub(super) async fn stop_awaiting(state: &StateTopic, keeper: &Claim, topic: &str) -> Result<(), AppendError> {
    state.put_as(keeper, vec![(Bytes::from(format!("await/{topic}")), None)]).await
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
        let open = || Checkpoints::new(state.clone(), "readings", "id", 3, Epoch(2));
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
        // The next leader takes over; the one before it may go on for a while, and changes nothing that counts.
        let mut old = open();
        let mut new = Checkpoints::new(state.clone(), "readings", "id", 3, Epoch(3));
        new.claim().await.expect("claimed");
        assert!(!new.is_own());
        new.save(&new.load().expect("the old one's").snapshot, Offset(11)).await.expect("saved");
        assert!(matches!(old.save(b"late", Offset(12)).await, Err(NotSaved::Superseded)));
        assert!(matches!(old.claim().await, Err(NotSaved::Superseded)));
        // Even if it was checked just before.
        state
            .put("check/readings/id/3/head/0000000002", Some(encode(&Head { generation: 99, parts: 0, journal: 0 })))
            .await
            .expect("put");
        let loaded = new.load().expect("its own");
        assert!(loaded.snapshot == b"next" && loaded.journal == Offset(11) && new.is_own());
        open().remove().await.expect("removed");
        assert!(state.scan(b"check/").is_empty() && known_sources(&state).is_empty());
    }
}
