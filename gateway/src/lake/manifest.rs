//! The manifest in its internal topic, and an index of it in memory for cold reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use forebay_cluster::{Log, Topic};
use forebay_log::Offset;
use forebay_tiering::manifest::{self, Entry, FormatError, State, TopicEntry};
use forebay_tiering::offload::{Change, ManifestStore};
use forebay_tiering::shape::Shape;
use uuid::Uuid;

use super::MANIFEST_TOPIC;
use super::status::Totals;
use crate::metrics::Metrics;
use crate::state::StateTopic;

/// Entries of one topic by partition, base offset and id.
type TopicEntries = BTreeMap<(u32, Offset, Uuid), Arc<Entry>>;

/// What the manifest holds of one topic.
#[derive(Default)]
struct TopicIndex {
    topic: Option<TopicEntry>,
    entries: TopicEntries,
    /// Counted when asked for after a change, and for which least state.
    totals: Option<(State, Arc<Totals>)>,
}

type Index = HashMap<Uuid, TopicIndex>;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Manifest {
    /// Or why it cannot be relied on: then nothing of it is used, and nothing written.
    state: Result<Arc<StateTopic>, Arc<str>>,
    index: Arc<RwLock<Index>>,
    metrics: Arc<Metrics>,
}

fn place(entry: &Entry) -> (u32, Offset, Uuid) {
    (entry.partition, entry.base, entry.id)
}

/// Reads every entry.
fn index(state: &StateTopic) -> Result<Index, String> {
    let broken = |key: &[u8], error: FormatError| format!("key {}: {error}", String::from_utf8_lossy(key));
    let mut index = Index::new();
    for (key, value) in state.scan(b"topic/") {
        let topic = manifest::decode_topic(&value).map_err(|error| broken(&key, error))?;
        let id = topic.topic_id;
        index.entry(id).or_default().topic = Some(topic);
    }
    for (key, value) in state.scan(b"range/") {
        let entry = manifest::decode_entry(&value).map_err(|error| broken(&key, error))?;
        index.entry(entry.topic_id).or_default().entries.insert(place(&entry), Arc::new(entry));
    }
    Ok(index)
}

impl Manifest {
    /// Reads every entry. One that is damaged is no error, see [`Manifest::broken`].
    ///
    /// # Errors
    /// The internal topic cannot be made.
    pub(super) async fn open(log: &Log, metrics: Arc<Metrics>) -> anyhow::Result<Manifest> {
        let there = log.topic(MANIFEST_TOPIC).is_some();
        let opened = match StateTopic::open(log, MANIFEST_TOPIC).await {
            Ok(state) => match state.damaged() {
                Some(damage) => Err(damage),
                None => index(&state).map(|index| (state, index)),
            },
            Err(error) if there => Err(error.to_string()),
            Err(error) => return Err(error).context("the lake's manifest cannot be made"),
        };
        let (state, index) = match opened {
            Ok((state, index)) => (Ok(state), index),
            Err(damage) => {
                let why = format!(
                    "the lake is off, because its manifest ({MANIFEST_TOPIC}) cannot be relied on: {damage}; put a whole \
                     copy of the log's directory {MANIFEST_TOPIC}-0 in place and start again"
                );
                (Err(why.into()), Index::new())
            }
        };
        Ok(Manifest { state, index: Arc::new(RwLock::new(index)), metrics })
    }

    /// Why the manifest cannot be relied on, if so. Entries that are missing would be taken for ranges that are not in the
    /// lake, or whose objects are nobody's.
    pub(super) fn broken(&self) -> Option<&str> {
        self.state.as_ref().err().map(|why| &**why)
    }

    fn state(&self) -> Result<&Arc<StateTopic>, String> {
        self.state.as_ref().map_err(|why| why.to_string())
    }

    fn read<T>(&self, topic_id: Uuid, look: impl FnOnce(&TopicIndex) -> T) -> Option<T> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).get(&topic_id).map(look)
    }

    /// All entries of a topic, in order of partition and offset.
    pub(super) fn all(&self, topic_id: Uuid) -> Vec<Arc<Entry>> {
        self.read(topic_id, |index| index.entries.values().cloned().collect()).unwrap_or_default()
    }

    /// The entries of a partition whose objects are whole, in order of offset.
    pub(super) fn readable(&self, topic_id: Uuid, partition: u32) -> Vec<Arc<Entry>> {
        let readable = |index: &TopicIndex| {
            let from = (partition, Offset(i64::MIN), Uuid::nil());
            let own = index.entries.range(from..).take_while(|((of, ..), _)| *of == partition);
            own.map(|(_, entry)| entry).filter(|entry| entry.readable()).cloned().collect()
        };
        self.read(topic_id, readable).unwrap_or_default()
    }

    /// What the entries of at least this state add up to.
    pub(super) fn totals(&self, topic_id: Uuid, least: State) -> Arc<Totals> {
        let known = |index: &TopicIndex| index.totals.clone().filter(|(of, _)| *of == least);
        if let Some((_, totals)) = self.read(topic_id, known).flatten() {
            return totals;
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = index.get_mut(&topic_id) else { return Arc::default() };
        let totals = Arc::new(Totals::of(index.entries.values(), least));
        index.totals = Some((least, totals.clone()));
        totals
    }

    /// The topics that the lake has begun with.
    pub(super) fn topics(&self) -> Vec<TopicEntry> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.values().filter_map(|index| index.topic.clone()).collect()
    }

    pub(super) fn topic(&self, topic_id: Uuid) -> Option<TopicEntry> {
        self.read(topic_id, |index| index.topic.clone()).flatten()
    }

    pub(super) async fn put_topic(&self, topic: TopicEntry) -> Result<(), String> {
        let (key, value) = (manifest::topic_key(topic.topic_id), manifest::encode_topic(&topic));
        self.state()?.put(key, Some(value)).await.map_err(|error| error.to_string())?;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let id = topic.topic_id;
        index.entry(id).or_default().topic = Some(topic);
        Ok(())
    }

    /// Removes everything about a topic.
    pub(super) async fn forget_topic(&self, topic_id: Uuid) -> Result<(), String> {
        let entries = self.all(topic_id);
        let mut changes: Vec<_> = entries.iter().map(|entry| (manifest::entry_key(entry), None)).collect();
        changes.push((manifest::shape_key(topic_id), None));
        changes.push((manifest::topic_key(topic_id), None));
        self.state()?.put_all(changes).await.map_err(|error| error.to_string())?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(&topic_id);
        Ok(())
    }

    /// The manifest as the offload of one topic uses it.
    pub(super) fn of(&self, topic: &Topic) -> TopicManifest {
        let topic = TopicEntry { topic_id: topic.id, name: topic.name.clone(), removal: None };
        TopicManifest { manifest: self.clone(), topic }
    }

    fn apply(&self, topic: &TopicEntry, changes: &[Change]) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let index = index.entry(topic.topic_id).or_default();
        index.totals = None;
        index.topic.get_or_insert_with(|| topic.clone());
        for change in changes {
            match change {
                Change::Put(entry) => {
                    if entry.state == State::CopyFinished {
                        self.finished(&topic.name, entry);
                    }
                    index.entries.insert(place(entry), Arc::new(entry.as_ref().clone()));
                }
                Change::Forget(entry) => {
                    index.entries.remove(&place(entry));
                }
                Change::Shape(_) => {}
            }
        }
    }

    fn finished(&self, topic: &str, entry: &Entry) {
        let Some(facts) = &entry.facts else { return };
        self.metrics.lake.object_written(facts.rows, facts.errors, facts.bytes);
        if facts.lost.offsets > 0 {
            self.metrics.lake.lost(facts.lost.offsets);
            let (partition, lost, object) = (entry.partition, &facts.lost, &entry.path);
            tracing::error!(topic, partition, %lost, object, "damaged in the local log: not in the lake");
        }
    }
}

/// The manifest for one topic, whose name it keeps with the first change.
pub(super) struct TopicManifest {
    manifest: Manifest,
    topic: TopicEntry,
}

#[async_trait]
impl ManifestStore for TopicManifest {
    fn load(&self, topic_id: Uuid) -> Result<(Vec<Entry>, Shape), String> {
        let entries = self.manifest.all(topic_id).iter().map(|entry| entry.as_ref().clone()).collect();
        let shape = match self.manifest.state()?.get(&manifest::shape_key(topic_id)) {
            Some(stored) => manifest::decode_shape(&stored).map_err(|error| error.to_string())?,
            None => Shape::default(),
        };
        Ok((entries, shape))
    }

    async fn persist(&self, topic_id: Uuid, changes: &[Change]) -> Result<(), String> {
        let named = self.manifest.topic(topic_id).is_some();
        let name = (!named).then(|| (manifest::topic_key(topic_id), Some(manifest::encode_topic(&self.topic))));
        let puts = changes.iter().map(|change| -> (Bytes, Option<Bytes>) {
            match change {
                Change::Put(entry) => (manifest::entry_key(entry), Some(manifest::encode_entry(entry))),
                Change::Forget(entry) => (manifest::entry_key(entry), None),
                Change::Shape(shape) => (manifest::shape_key(topic_id), Some(manifest::encode_shape(shape))),
            }
        });
        let puts = name.into_iter().chain(puts).collect();
        self.manifest.state()?.put_all(puts).await.map_err(|error| error.to_string())?;
        self.manifest.apply(&self.topic, changes);
        Ok(())
    }
}
