//! The manifest in its internal topic, and an index of it in memory for cold reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use forebay_log::Offset;
use forebay_tiering::manifest::{self, Entry, State};
use forebay_tiering::offload::{Change, ManifestStore};
use forebay_tiering::shape::Shape;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::state::StateTopic;

/// Entries of one topic by partition, base offset and id.
type TopicEntries = BTreeMap<(u32, Offset, Uuid), Arc<Entry>>;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Manifest {
    state: Arc<StateTopic>,
    index: Arc<RwLock<HashMap<Uuid, TopicEntries>>>,
    metrics: Arc<Metrics>,
}

fn place(entry: &Entry) -> (u32, Offset, Uuid) {
    (entry.partition, entry.base, entry.id)
}

impl Manifest {
    /// Reads every entry.
    pub(super) fn open(state: Arc<StateTopic>, metrics: Arc<Metrics>) -> anyhow::Result<Manifest> {
        let mut index: HashMap<Uuid, TopicEntries> = HashMap::new();
        for (key, value) in state.scan(b"range/") {
            let entry = manifest::decode_entry(&value)
                .with_context(|| format!("lake manifest, key {}", String::from_utf8_lossy(&key)))?;
            index.entry(entry.topic_id).or_default().insert(place(&entry), Arc::new(entry));
        }
        Ok(Manifest { state, index: Arc::new(RwLock::new(index)), metrics })
    }

    /// All entries of a topic, in order of partition and offset.
    pub(super) fn all(&self, topic_id: Uuid) -> Vec<Arc<Entry>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(&topic_id).map(|entries| entries.values().cloned().collect()).unwrap_or_default()
    }

    /// The entries of a partition whose objects are whole, in order of offset.
    pub(super) fn readable(&self, topic_id: Uuid, partition: u32) -> Vec<Arc<Entry>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = index.get(&topic_id) else { return Vec::new() };
        let from = (partition, Offset(i64::MIN), Uuid::nil());
        let own = entries.range(from..).take_while(|((of, ..), _)| *of == partition);
        own.map(|(_, entry)| entry).filter(|entry| entry.readable()).cloned().collect()
    }

    /// The topics that have entries.
    pub(super) fn topics(&self) -> Vec<Uuid> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.iter().filter(|(_, entries)| !entries.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Removes everything about a topic.
    pub(super) async fn forget_topic(&self, topic_id: Uuid) -> Result<(), String> {
        let entries = self.all(topic_id);
        let mut changes: Vec<_> = entries.iter().map(|entry| (manifest::entry_key(entry), None)).collect();
        changes.push((manifest::shape_key(topic_id), None));
        self.state.put_all(changes).await.map_err(|error| error.to_string())?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(&topic_id);
        Ok(())
    }

    fn apply(&self, topic_id: Uuid, changes: &[Change]) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let entries = index.entry(topic_id).or_default();
        for change in changes {
            match change {
                Change::Put(entry) => {
                    if entry.state == State::CopyFinished
                        && let Some(facts) = &entry.facts
                    {
                        self.metrics.lake.object_written(facts.rows, facts.errors, facts.bytes);
                    }
                    entries.insert(place(entry), Arc::new(entry.as_ref().clone()));
                }
                Change::Forget(entry) => {
                    entries.remove(&place(entry));
                }
                Change::Shape(_) => {}
            }
        }
    }
}

#[async_trait]
impl ManifestStore for Manifest {
    fn load(&self, topic_id: Uuid) -> Result<(Vec<Entry>, Shape), String> {
        let entries = self.all(topic_id).iter().map(|entry| entry.as_ref().clone()).collect();
        let shape = match self.state.get(&manifest::shape_key(topic_id)) {
            Some(stored) => manifest::decode_shape(&stored).map_err(|error| error.to_string())?,
            None => Shape::default(),
        };
        Ok((entries, shape))
    }

    async fn persist(&self, topic_id: Uuid, changes: &[Change]) -> Result<(), String> {
        let puts = changes.iter().map(|change| -> (Bytes, Option<Bytes>) {
            match change {
                Change::Put(entry) => (manifest::entry_key(entry), Some(manifest::encode_entry(entry))),
                Change::Forget(entry) => (manifest::entry_key(entry), None),
                Change::Shape(shape) => (manifest::shape_key(topic_id), Some(manifest::encode_shape(shape))),
            }
        });
        self.state.put_all(puts.collect()).await.map_err(|error| error.to_string())?;
        self.apply(topic_id, changes);
        Ok(())
    }
}
