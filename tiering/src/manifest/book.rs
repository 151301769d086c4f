//! Whose word counts in the manifest, when leaders of a partition follow one another and one may not know yet that it is none.
//!
//! The manifest is a map that every node sees, last write of a key wins. Each leader epoch writes keys of its own. A new leader
//! first notes its epoch (from then on older leaders see, after each of their own writes, that they are none, and do nothing
//! more); what it finds then is all that an older one may have acted upon. It writes again, under its epoch, what is still on its
//! way, and notes that it has adopted it: of older epochs only what is in the table, or on its way out, counts from then on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use forebay_log::{Epoch, Offset};
use uuid::Uuid;

use super::codec::{
    FormatError, attempt_prefix, decode_entry, decode_lead, decode_shape, encode_entry, encode_lead, encode_shape,
    entry_key, entry_prefix, lead_key, lead_prefix, parse_lead_key, shape_key,
};
use super::{Entry, NO_EPOCH, State};
use crate::offload::Change;
use crate::shape::Shape;

/// The partitions that a node leads, and in which leader epoch.
pub type Leads = BTreeMap<u32, Epoch>;

/// One change of the map; `None` removes the key.
pub type Write = (Bytes, Option<Bytes>);

/// All keys with a prefix, and their values, in the order of the keys.
pub trait Scan {
    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)>;
}

/// What is noted of a partition's leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Led {
    /// The latest epoch that was noted: leaders of older ones are none any more.
    latest: Epoch,
    /// The latest epoch whose leader has adopted what it found.
    adopted: Epoch,
}

impl Led {
    /// Whether what an entry says counts.
    fn counts(&self, entry: &Entry) -> bool {
        entry.epoch >= self.adopted || matches!(entry.state, State::Committed | State::DeleteStarted)
    }
}

const NOBODY: Led = Led { latest: NO_EPOCH, adopted: NO_EPOCH };

/// What is noted of the leaders of a topic's partitions.
fn led(topic_id: Uuid, book: &dyn Scan) -> Result<BTreeMap<u32, Led>, FormatError> {
    let mut all: BTreeMap<u32, Led> = BTreeMap::new();
    for (key, value) in book.scan(&lead_prefix(topic_id)) {
        let Some((partition, epoch)) = parse_lead_key(&key) else { continue };
        let adopted = decode_lead(&value)?;
        let led = all.entry(partition).or_insert(NOBODY);
        led.latest = led.latest.max(epoch);
        if adopted {
            led.adopted = led.adopted.max(epoch);
        }
    }
    Ok(all)
}

/// The entries of a topic, or of some of its partitions, that count.
#[derive(Debug, Default)]
pub struct View {
    /// By partition, base offset and id; of each attempt what the latest leader noted.
    pub entries: BTreeMap<(u32, Offset, Uuid), Arc<Entry>>,
    /// Attempts that nobody has adopted: their objects are to go.
    pub abandoned: Vec<Arc<Entry>>,
}

/// What of `entries` counts.
///
/// # Errors
/// What is noted of the leaders is damaged.
pub fn view(
    topic_id: Uuid,
    entries: impl IntoIterator<Item = Arc<Entry>>,
    book: &dyn Scan,
) -> Result<View, FormatError> {
    let led = led(topic_id, book)?;
    let mut found = View::default();
    let mut doubtful: HashMap<Uuid, Arc<Entry>> = HashMap::new();
    for entry in entries {
        if !led.get(&entry.partition).unwrap_or(&NOBODY).counts(&entry) {
            doubtful.insert(entry.id, entry);
            continue;
        }
        let place = (entry.partition, entry.base, entry.id);
        match found.entries.get(&place) {
            Some(known) if known.epoch > entry.epoch => {}
            _ => drop(found.entries.insert(place, entry)),
        }
    }
    let counted: BTreeSet<Uuid> = found.entries.keys().map(|(.., id)| *id).collect();
    found.abandoned = doubtful.into_values().filter(|entry| !counted.contains(&entry.id)).collect();
    Ok(found)
}

fn decoded(topic_id: Uuid, book: &dyn Scan) -> Result<Vec<Arc<Entry>>, FormatError> {
    book.scan(&entry_prefix(topic_id)).iter().map(|(_, value)| decode_entry(value).map(Arc::new)).collect()
}

/// What to write first when a node takes partitions over.
#[must_use]
pub fn claim(topic_id: Uuid, leads: &Leads, book: &dyn Scan) -> Vec<Write> {
    let known: BTreeMap<Bytes, Bytes> = book.scan(&lead_prefix(topic_id)).into_iter().collect();
    let own = leads.iter().map(|(partition, epoch)| lead_key(topic_id, *partition, *epoch));
    own.map(|key| {
        let value = known.get(&key).cloned().unwrap_or_else(|| encode_lead(false));
        (key, Some(value))
    })
    .collect()
}

/// What to write next, once the claim is seen by this node: all that was written before it is seen too.
///
/// # Errors
/// The manifest is damaged.
pub fn adopt(topic_id: Uuid, leads: &Leads, book: &dyn Scan) -> Result<Vec<Write>, FormatError> {
    let before = led(topic_id, book)?;
    let adopted = |partition: &u32| before.get(partition).unwrap_or(&NOBODY).adopted;
    let fresh: Leads =
        leads.iter().filter(|(partition, epoch)| adopted(partition) < **epoch).map(|(p, e)| (*p, *e)).collect();
    if fresh.is_empty() {
        return Ok(Vec::new());
    }
    let mut writes = Vec::new();
    for entry in view(topic_id, decoded(topic_id, book)?, book)?.entries.into_values() {
        if let Some(epoch) = fresh.get(&entry.partition)
            && entry.state == State::CopyFinished
        {
            writes.extend(put(&Entry { epoch: *epoch, ..(*entry).clone() }, book));
        }
    }
    for (key, _) in book.scan(&lead_prefix(topic_id)) {
        let Some((partition, epoch)) = parse_lead_key(&key) else { continue };
        if fresh.get(&partition).is_some_and(|own| epoch < *own) {
            writes.push((key, None));
        }
    }
    let own = fresh.iter().map(|(partition, epoch)| lead_key(topic_id, *partition, *epoch));
    writes.extend(own.map(|key| (key, Some(encode_lead(true)))));
    Ok(writes)
}

/// The partitions of `leads` that a later leader has claimed.
///
/// # Errors
/// What is noted of the leaders is damaged.
pub fn superseded(topic_id: Uuid, leads: &Leads, book: &dyn Scan) -> Result<Vec<u32>, FormatError> {
    let led = led(topic_id, book)?;
    let later = |(partition, epoch): &(&u32, &Epoch)| led.get(partition).is_some_and(|led| led.latest > **epoch);
    Ok(leads.iter().filter(later).map(|(partition, _)| *partition).collect())
}

/// The entries of the partitions that a node leads, those of attempts that nobody has adopted as unfinished ones.
///
/// # Errors
/// The manifest is damaged.
pub fn loaded(topic_id: Uuid, leads: &Leads, book: &dyn Scan) -> Result<Vec<Entry>, FormatError> {
    let View { entries, abandoned } = view(topic_id, decoded(topic_id, book)?, book)?;
    let unfinished = |entry: &Arc<Entry>| Entry { state: State::CopyStarted, ..(**entry).clone() };
    let all = entries.values().map(|entry| (**entry).clone()).chain(abandoned.iter().map(unfinished));
    Ok(all.filter(|entry| leads.contains_key(&entry.partition)).collect())
}

/// The writes that make `changes` of the leader of these epochs.
///
/// # Errors
/// The shape that is there is damaged.
pub fn changed(topic_id: Uuid, leads: &Leads, changes: &[Change], book: &dyn Scan) -> Result<Vec<Write>, FormatError> {
    let mut writes = Vec::new();
    for change in changes {
        match change {
            Change::Put(entry) => {
                let epoch = leads.get(&entry.partition).copied().unwrap_or(NO_EPOCH);
                writes.extend(put(&Entry { epoch, ..(**entry).clone() }, book));
            }
            Change::Forget(entry) => {
                let epoch = leads.get(&entry.partition).copied().unwrap_or(NO_EPOCH);
                let last = entry_key(&Entry { epoch, ..(**entry).clone() });
                let known = book.scan(&attempt_prefix(entry)).into_iter().filter(|(key, _)| *key <= last);
                writes.extend(known.map(|(key, _)| (key, None)));
            }
            Change::Shape(shape) => {
                let merged = merged_shape(topic_id, shape, book)?;
                writes.push((shape_key(topic_id), Some(encode_shape(&merged))));
            }
        }
    }
    Ok(writes)
}

/// An entry takes the place of what older leaders noted of the same attempt.
fn put(entry: &Entry, book: &dyn Scan) -> Vec<Write> {
    let key = entry_key(entry);
    let older = book.scan(&attempt_prefix(entry)).into_iter().filter(|(other, _)| *other < key);
    let mut writes: Vec<Write> = older.map(|(key, _)| (key, None)).collect();
    writes.push((key, Some(encode_entry(entry))));
    writes
}

/// A shape with the fields that the leaders of the topic's other partitions have found besides.
///
/// # Errors
/// The shape that is there is damaged.
pub fn merged_shape(topic_id: Uuid, shape: &Shape, book: &dyn Scan) -> Result<Shape, FormatError> {
    let key = shape_key(topic_id);
    let stored = book.scan(&key).into_iter().find(|(found, _)| *found == key);
    let Some((_, stored)) = stored else { return Ok(shape.clone()) };
    let mut merged = shape.clone();
    merged.absorb(&decode_shape(&stored)?);
    Ok(merged)
}
