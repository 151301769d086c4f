//! The object store and the tables in it: slow, sometimes failing, sometimes done though the answer says otherwise.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_log::flaws::{self, Flaw};
use forebay_log::replication::PartitionId;
use forebay_log::{Epoch, Offset};
use forebay_tiering::manifest::Entry;
use uuid::Uuid;

use super::{Kind, ServiceId};
use crate::queue::Event;
use crate::world::World;

/// How often one commit follows those of others.
const CONFLICT_RETRIES: usize = 3;

/// A Delta-like table: versions made by put-if-absent, each with the end offset of every partition.
#[derive(Default)]
pub struct Table {
    version: u64,
    ends: BTreeMap<u32, Offset>,
    /// Partition, range and object of each file, in the order of the commits.
    files: Vec<(u32, Offset, Offset, String)>,
}

/// The store.
#[derive(Default)]
pub struct Store {
    /// Records by object name.
    objects: BTreeMap<String, Vec<(Offset, Bytes)>>,
    tables: BTreeMap<Uuid, Table>,
}

/// What is asked of the store.
#[derive(Debug, Clone)]
pub enum Work {
    Put {
        entry: Box<Entry>,
        records: Vec<(Offset, Bytes)>,
    },
    /// First the table is looked at; then, based on what was seen, its next version is put.
    Commit {
        adds: Vec<Entry>,
        seen: Option<(u64, BTreeMap<u32, Offset>)>,
        tries: usize,
    },
    Delete {
        entry: Uuid,
        path: String,
    },
}

impl Work {
    fn told(&self) -> String {
        match self {
            Work::Put { entry, .. } => format!("put {}..{} {}", entry.base, entry.end, entry.id),
            Work::Commit { adds, seen, .. } => {
                let ranges: Vec<_> = adds.iter().map(|entry| (entry.partition, entry.base.0, entry.end.0)).collect();
                format!("commit {ranges:?} on {seen:?}")
            }
            Work::Delete { path, .. } => format!("delete {path}"),
        }
    }
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub place: usize,
    pub life: u64,
    pub source: PartitionId,
    pub epoch: Epoch,
}

impl Asker {
    fn service(&self) -> ServiceId {
        (self.source, Kind::Lake)
    }
}

impl World {
    /// Something goes to the store; it comes there now or much later, whatever has become of who asked.
    pub(crate) fn ask_store(&mut self, asker: Asker, work: Work) {
        let slow = if self.random.chance(100) && !self.healing { 8000 } else { 200 };
        let at = self.now + self.within(5, slow);
        self.queue.at(at, Event::Store { asker, work: Box::new(work) });
    }

    /// The store does what it was asked.
    pub(crate) fn store_works(&mut self, asker: Asker, work: Work) {
        let fails = !self.healing && self.random.chance(100);
        let is_done = !fails || self.random.chance(500);
        let now = self.now;
        let mut result = if fails { Err("503".to_owned()) } else { Ok(()) };
        self.trace.tell(now, || format!("store for {asker:?}: {}, fails {fails}, done {is_done}", work.told()));
        if is_done {
            match &work {
                Work::Put { entry, records } => {
                    self.store.objects.insert(entry.path.clone(), records.clone());
                }
                Work::Delete { path, .. } => {
                    self.store.objects.remove(path);
                }
                Work::Commit { adds, seen: None, tries } if !fails => {
                    let table = self.store.tables.entry(asker.source.topic).or_default();
                    let seen = Some((table.version, table.ends.clone()));
                    return self.ask_store(asker, Work::Commit { adds: adds.clone(), seen, tries: *tries });
                }
                Work::Commit { seen: None, .. } => {}
                Work::Commit { adds, seen: Some((version, ends)), tries } => {
                    let table = self.store.tables.entry(asker.source.topic).or_default();
                    if table.version != *version {
                        if *tries < CONFLICT_RETRIES {
                            let again = Work::Commit { adds: adds.clone(), seen: None, tries: tries + 1 };
                            return self.ask_store(asker, again);
                        }
                        result = Err("others commit all the time".to_owned());
                    } else if let Err(what) = self.put_version(asker.source.topic, adds, ends) {
                        result = Err(what);
                    }
                }
            }
        }
        let back = self.now + self.within(1, 200);
        self.queue.at(back, Event::Stored { asker, work: Box::new(work), result });
    }

    /// As the program's Delta table does it.
    fn put_version(&mut self, topic: Uuid, adds: &[Entry], seen: &BTreeMap<u32, Offset>) -> Result<(), String> {
        let mut ends = seen.clone();
        let mut files = Vec::new();
        for entry in adds {
            let table_end = ends.get(&entry.partition).copied().unwrap_or_default();
            if !flaws::has(Flaw::CommitWithoutOffsetCheck) {
                if entry.end <= table_end {
                    continue;
                }
                if entry.base < table_end {
                    return Err(format!("{}..{} overlaps with a table up to {table_end}", entry.base, entry.end));
                }
            }
            files.push((entry.partition, entry.base, entry.end, entry.path.clone()));
            ends.insert(entry.partition, entry.end);
        }
        if files.is_empty() {
            return Ok(());
        }
        let table = self.store.tables.entry(topic).or_default();
        for file in files {
            let (partition, base, end, path) = &file;
            let known = table.files.iter().filter(|(index, ..)| index == partition).map(|(_, _, end, _)| *end).max();
            if *base != known.unwrap_or_default() {
                let text = format!("{base}..{end} of partition {partition} came into the table at {known:?}");
                self.fail(text);
                return Ok(());
            }
            if !self.store.objects.contains_key(path) {
                let text = format!("{path} is in the table and not in the store");
                self.fail(text);
                return Ok(());
            }
            table.files.push(file);
        }
        table.version += 1;
        table.ends = ends;
        Ok(())
    }

    /// The answer has come to who asked, if that is still there.
    pub(crate) fn store_answers(&mut self, asker: Asker, work: Work, result: Result<(), String>) {
        let Asker { place, life, epoch, .. } = asker;
        if self.nodes[place].life != life || self.nodes[place].live.is_none() {
            return;
        }
        let id = asker.service();
        if self.service(place, id).is_none_or(|service| service.epoch != epoch) {
            return;
        }
        self.lake_answered(place, id, work, result);
    }

    /// How far the table of a partition goes.
    pub(crate) fn table_end(&self, partition: PartitionId) -> Offset {
        let table = self.store.tables.get(&partition.topic);
        table.and_then(|table| table.ends.get(&partition.index)).copied().unwrap_or_default()
    }

    /// Every range is in the table once, and says what the log says.
    pub(crate) fn check_table(&self, partition: PartitionId) -> Result<(), String> {
        let Some(table) = self.store.tables.get(&partition.topic) else { return Ok(()) };
        let mut next = Offset::ZERO;
        for (_, base, end, path) in table.files.iter().filter(|(index, ..)| *index == partition.index) {
            let records = self.store.objects.get(path).ok_or_else(|| format!("{path} is gone"))?;
            if *base != next {
                return Err(format!("the table goes on at {base} after {next}"));
            }
            for (offset, record) in records {
                if *offset != next || self.truth.at(partition, *offset) != Some(record) {
                    return Err(format!("the table has {record:?} at {offset}, expected {next}"));
                }
                next = next.next();
            }
            if next != *end {
                return Err(format!("{path} ends at {next}, not at {end}"));
            }
        }
        Ok(())
    }
}
