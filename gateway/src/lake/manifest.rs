//! The manifest in its internal topic, as every node sees it, and what of it counts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use forebay_cluster::{Claim, Log, Topic};
use forebay_log::Offset;
use forebay_tiering::manifest::{self, Entry, FormatError, Leads, Scan, State, TopicEntry, View, Write};
use forebay_tiering::offload::{Change, ManifestStore};
use forebay_tiering::shape::Shape;
use uuid::Uuid;

use super::MANIFEST_TOPIC;
use super::status::Totals;
use crate::leadership;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::state::StateTopic;

/// The offload, to who keeps the manifest.
const OFFLOAD: u8 = 1;

/// What is known of one topic, as of the records that it was read from.
#[derive(Default)]
struct Known {
    ranges: Vec<(Bytes, Bytes)>,
    leads: Vec<(Bytes, Bytes)>,
    decoded: HashMap<Bytes, Arc<Entry>>,
    view: Arc<View>,
    /// Counted when asked for after a change, and for which least state.
    totals: Option<(State, Arc<Totals>)>,
}

/// Why nothing is known yet.
const UNREAD: &str = "the lake is off until its manifest (_lake_manifest) can be read";

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Manifest {
    /// Or why it cannot be relied on: then nothing of it is used, and nothing written. Not there before it was read.
    state: Arc<OnceLock<Result<Arc<StateTopic>, Arc<str>>>>,
    known: Arc<Mutex<HashMap<Uuid, Known>>>,
    /// Topics whose entries have changed since they were looked at: of all others what is known holds.
    changed: Arc<Mutex<HashSet<Uuid>>>,
    metrics: Arc<Metrics>,
}

impl Scan for StateTopic {
    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        StateTopic::scan(self, prefix)
    }
}

/// Whether these are the very same records, not only equal ones.
fn same(a: &[(Bytes, Bytes)], b: &[(Bytes, Bytes)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is(&a.1, &b.1))
}

fn is(a: &Bytes, b: &Bytes) -> bool {
    a.as_ptr() == b.as_ptr() && a.len() == b.len()
}

fn broken(key: &[u8], error: &FormatError) -> String {
    format!("key {}: {error}", String::from_utf8_lossy(key))
}

/// Reads every entry.
fn check(state: &StateTopic) -> Result<(), String> {
    for (key, value) in state.scan(b"topic/") {
        let topic = manifest::decode_topic(&value).map_err(|error| broken(&key, &error))?;
        manifest::view(topic.topic_id, [], state).map_err(|error| broken(&key, &error))?;
    }
    for (key, value) in state.scan(b"range/") {
        manifest::decode_entry(&value).map_err(|error| broken(&key, &error))?;
    }
    Ok(())
}

impl Known {
    /// Takes over what has changed.
    fn refresh(&mut self, topic_id: Uuid, state: &StateTopic) -> Result<(), String> {
        let ranges = state.scan(&manifest::entry_prefix(topic_id));
        let leads = state.scan(&manifest::lead_prefix(topic_id));
        if same(&ranges, &self.ranges) && same(&leads, &self.leads) {
            return Ok(());
        }
        let values: HashMap<&Bytes, &Bytes> = self.ranges.iter().map(|(key, value)| (key, value)).collect();
        let mut decoded = HashMap::with_capacity(ranges.len());
        for (key, value) in &ranges {
            let unchanged = values.get(key).is_some_and(|known| is(known, value));
            let entry = match self.decoded.get(key).filter(|_| unchanged) {
                Some(entry) => entry.clone(),
                None => Arc::new(manifest::decode_entry(value).map_err(|error| broken(key, &error))?),
            };
            decoded.insert(key.clone(), entry);
        }
        let view = manifest::view(topic_id, decoded.values().cloned(), state).map_err(|error| error.to_string())?;
        *self = Known { ranges, leads, decoded, view: Arc::new(view), totals: None };
        Ok(())
    }
}

impl Manifest {
    /// One that is still to be read.
    pub(super) fn new(metrics: Arc<Metrics>) -> Manifest {
        Manifest { state: Arc::default(), known: Arc::default(), changed: Arc::default(), metrics }
    }

    /// Reads every entry. One that is damaged is no error, see [`Manifest::broken`]. Where this node has no replica, this takes until
    /// another one can be asked.
    ///
    /// # Errors
    /// The internal topic cannot be made.
    pub(super) async fn read_all(&self, log: &Log) -> anyhow::Result<()> {
        let there = log.topic(MANIFEST_TOPIC).is_some();
        let opened = match StateTopic::open(log, MANIFEST_TOPIC).await {
            Ok(state) => match state.damaged() {
                Some(damage) => Err(damage),
                None => check(&state).map(|()| state),
            },
            Err(error) if there => Err(error.to_string()),
            Err(error) => return Err(error).context("the lake's manifest cannot be made"),
        };
        let state = opened.map_err(|damage| {
            let why = format!(
                "the lake is off, because its manifest ({MANIFEST_TOPIC}) cannot be relied on: {damage}; put a whole \
                 copy of the log's directory {MANIFEST_TOPIC}-0 in place and start again"
            );
            why.into()
        });
        if let Ok(state) = &state {
            let changed = self.changed.clone();
            state.observe(move |changes| {
                let topics = changes.iter().filter_map(|(key, _)| manifest::topic_of(key));
                changed.lock().unwrap_or_else(PoisonError::into_inner).extend(topics);
            });
        }
        // Read once.
        let _ = self.state.set(state);
        Ok(())
    }

    /// Why the manifest cannot be relied on, if so. Entries that are missing would be taken for ranges that are not in the
    /// lake, or whose objects are nobody's.
    pub(super) fn broken(&self) -> Option<&str> {
        self.opened().err()
    }

    fn opened(&self) -> Result<&Arc<StateTopic>, &str> {
        match self.state.get() {
            Some(state) => state.as_ref().map_err(|why| &**why),
            None => Err(UNREAD),
        }
    }

    pub(super) fn state(&self) -> Result<&Arc<StateTopic>, String> {
        self.opened().map_err(str::to_owned)
    }

    /// What is known of a topic now. A record that cannot be read leaves what was known before, and is told: a later
    /// release's, most likely.
    fn read<T: Default>(&self, topic_id: Uuid, look: impl FnOnce(&mut Known) -> T) -> T {
        static LIMIT: LogLimit = LogLimit::new(1);
        let Ok(state) = self.opened() else { return T::default() };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !all.contains_key(&topic_id);
        let known = all.entry(topic_id).or_default();
        let changed = || self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it is looked at: what changes meanwhile is looked at the next time.
        if (changed().remove(&topic_id) || is_new)
            && let Err(error) = known.refresh(topic_id, state)
        {
            changed().insert(topic_id);
            if let Some(suppressed) = LIMIT.admit() {
                tracing::error!(error, suppressed, "the lake's manifest holds what this node cannot read");
            }
        }
        let found = look(known);
        if known.ranges.is_empty() {
            all.remove(&topic_id);
        }
        found
    }

    /// All entries of a topic, in order of partition and offset.
    pub(super) fn all(&self, topic_id: Uuid) -> Vec<Arc<Entry>> {
        self.read(topic_id, |known| known.view.entries.values().cloned().collect())
    }

    /// As [`Manifest::all`], with those that count no more.
    pub(super) fn all_objects(&self, topic_id: Uuid) -> Vec<Arc<Entry>> {
        self.read(topic_id, |known| known.decoded.values().cloned().collect())
    }

    /// The entries of a partition whose objects are whole, in order of offset.
    pub(super) fn readable(&self, topic_id: Uuid, partition: u32) -> Vec<Arc<Entry>> {
        self.read(topic_id, |known| {
            let from = (partition, Offset(i64::MIN), Uuid::nil());
            let own = known.view.entries.range(from..).take_while(|((of, ..), _)| *of == partition);
            own.map(|(_, entry)| entry).filter(|entry| entry.readable()).cloned().collect()
        })
    }

    /// What the entries of at least this state add up to.
    pub(super) fn totals(&self, topic_id: Uuid, least: State) -> Arc<Totals> {
        self.read(topic_id, |known| match &known.totals {
            Some((of, totals)) if *of == least => totals.clone(),
            _ => {
                let totals = Arc::new(Totals::of(known.view.entries.values(), least));
                known.totals = Some((least, totals.clone()));
                totals
            }
        })
    }

    /// The topics that the lake has begun with.
    pub(super) fn topics(&self) -> Vec<TopicEntry> {
        let stored = self.opened().map(|state| state.scan(b"topic/")).unwrap_or_default();
        stored.iter().filter_map(|(_, value)| manifest::decode_topic(value).ok()).collect()
    }

    pub(super) fn topic(&self, topic_id: Uuid) -> Option<TopicEntry> {
        let stored = self.opened().ok()?.get(&manifest::topic_key(topic_id))?;
        manifest::decode_topic(&stored).ok()
    }

    /// Whether this node removes what deleted topics leave behind: one does, the leader of the manifest.
    pub(super) fn is_keeper(&self, log: &Log) -> bool {
        let topic = log.topic(MANIFEST_TOPIC);
        topic.and_then(|topic| leadership::led(log, topic.partitions.first()?)).is_some()
    }

    pub(super) async fn put_topic(&self, topic: TopicEntry) -> Result<(), String> {
        let (key, value) = (manifest::topic_key(topic.topic_id), manifest::encode_topic(&topic));
        self.state()?.put(key, Some(value)).await.map_err(|error| error.to_string())
    }

    /// Removes everything about a topic.
    pub(super) async fn forget_topic(&self, topic_id: Uuid) -> Result<(), String> {
        let state = self.state()?;
        // What leaders have written before they heard of the deletion is seen then.
        state.sync().await.map_err(|error| error.to_string())?;
        let prefixes =
            [manifest::entry_prefix(topic_id), manifest::lead_prefix(topic_id), manifest::rest_prefix(topic_id)];
        let all = prefixes.iter().flat_map(|prefix| state.scan(prefix));
        let mut changes: Vec<_> = all.map(|(key, _)| (key, None)).collect();
        changes.push((manifest::flush_key(topic_id), None));
        changes.push((manifest::shape_key(topic_id), None));
        changes.push((manifest::topic_key(topic_id), None));
        state.put_all(changes).await.map_err(|error| error.to_string())
    }

    /// The manifest as the offload of one topic uses it.
    pub(super) fn of(&self, topic: &Topic) -> TopicManifest {
        let claim = Mutex::new(Claim::new(OFFLOAD, topic.id, Leads::new()));
        let topic = TopicEntry { topic_id: topic.id, name: topic.name.clone(), removal: None };
        TopicManifest { manifest: self.clone(), topic, claim }
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
    /// In whose name it is written: refused where there is a later leader.
    claim: Mutex<Claim>,
}

impl TopicManifest {
    /// Makes writes durable, the topic's name with the first ones; on return this node sees them, and all that came before.
    async fn write(&self, claim: &Claim, writes: Vec<Write>) -> Result<(), String> {
        if writes.is_empty() {
            return Ok(());
        }
        let named = self.manifest.topic(self.topic.topic_id).is_some();
        let name = (manifest::topic_key(self.topic.topic_id), Some(manifest::encode_topic(&self.topic)));
        let all = Some(name).filter(|_| !named).into_iter().chain(writes).collect();
        self.manifest.state()?.put_as(claim, all).await.map_err(|error| error.to_string())
    }

    fn claimed(&self) -> Claim {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check(&self, topic_id: Uuid, leads: &Leads) -> Result<(), String> {
        match manifest::superseded(topic_id, leads, &**self.manifest.state()?) {
            Ok(later) => later.first().map_or(Ok(()), |p| Err(format!("partition {p} has a later leader"))),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[async_trait]
impl ManifestStore for TopicManifest {
    async fn claim(&self, topic_id: Uuid, leads: &Leads) -> Result<(), String> {
        self.check(topic_id, leads)?;
        let state = self.manifest.state()?;
        // What this node wrote before and has no answer to is there by then, or never.
        let claim = Claim::new(OFFLOAD, topic_id, leads.clone());
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&claim);
        self.write(&claim, manifest::claim(topic_id, leads, &**state)).await?;
        self.check(topic_id, leads)?;
        self.write(&claim, manifest::adopt(topic_id, leads, &**state).map_err(|error| error.to_string())?).await?;
        self.check(topic_id, leads)
    }

    fn load(&self, topic_id: Uuid, leads: &Leads) -> Result<(Vec<Entry>, Shape), String> {
        let state = self.manifest.state()?;
        let entries = manifest::loaded(topic_id, leads, &**state).map_err(|error| error.to_string())?;
        // What a later leader has written would be taken for an earlier one's, its copy in progress for rubbish. It claims before.
        self.check(topic_id, leads)?;
        Ok((entries, self.widened(topic_id, &Shape::default())?))
    }

    fn widened(&self, topic_id: Uuid, shape: &Shape) -> Result<Shape, String> {
        manifest::merged_shape(topic_id, shape, &**self.manifest.state()?).map_err(|error| error.to_string())
    }

    async fn persist(&self, topic_id: Uuid, leads: &Leads, changes: &[Change]) -> Result<(), String> {
        let state = self.manifest.state()?;
        let writes = manifest::changed(topic_id, leads, changes, &**state).map_err(|error| error.to_string())?;
        let partition = |change: &Change| match change {
            Change::Put(entry) | Change::Forget(entry) => Some(entry.partition),
            Change::Shape(_) => None,
        };
        self.write(&self.claimed().only(changes.iter().filter_map(partition)), writes).await?;
        self.check(topic_id, leads)?;
        for change in changes {
            if let Change::Put(entry) = change
                && entry.state == State::CopyFinished
            {
                self.manifest.finished(&self.topic.name, entry);
            }
        }
        Ok(())
    }
}
