//! The offload of one partition, on its leader: the real machine, with its manifest in `_lake`.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_disk::sim::Random;
use forebay_tiering::manifest::{Lost, decode_entry, encode_entry, entry_key, entry_prefix};
use forebay_tiering::offload::{Change, Effect, Event, NotCommitted, Offload, Policy, Segment};
use forebay_tiering::parquet::Written;
use forebay_tiering::shape::Shape;

use super::store::{Asker, Work};
use super::{Job, ServiceId, Then};
use crate::clients::values;
use crate::world::World;

/// The machine.
pub struct Lake {
    offload: Offload,
}

fn policy() -> Policy {
    Policy { table: true, commit_interval: 1000, unhurried_bytes: 1 << 30 }
}

impl World {
    pub(super) fn begin_lake(&mut self, place: usize, id: ServiceId, found: BTreeMap<Bytes, Bytes>) {
        let prefix = entry_prefix(id.0.topic);
        let entries = found
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(_, value)| decode_entry(value).ok())
            .filter(|entry| entry.partition == id.0.index)
            .collect();
        let mut random = Random::new(self.random.bits());
        let ids = Box::new(move || uuid::Uuid::from_u64_pair(random.bits(), random.bits()));
        let name = self.nodes[place].image.topic(id.0.topic).map(|topic| topic.name.clone()).unwrap_or_default();
        let offload = Offload::recover(&name, id.0.topic, policy(), entries, Shape::default(), ids);
        if let Some(service) = self.service(place, id) {
            service.job = Some(Job::Lake(Box::new(Lake { offload })));
        }
    }

    pub(super) fn drive_lake(&mut self, place: usize, id: ServiceId) {
        let Some(handle) = self.live(place).and_then(|live| live.partitions.get(&id.0).cloned()) else { return };
        let segment = |closed: forebay_disk::ClosedSegment| Segment {
            base: closed.base_offset,
            end: closed.end_offset,
            bytes: closed.bytes,
            append_day: closed.append_day,
        };
        let segments = handle.closed_segments().into_iter().map(segment).collect();
        let log_start = handle.watermarks().log_start;
        self.lake_event(place, id, Event::Local { partition: id.0.index, log_start, segments });
        self.lake_event(place, id, Event::Tick);
    }

    /// Tells the machine, and does what it asks for.
    pub(super) fn lake_event(&mut self, place: usize, id: ServiceId, event: Event) {
        let now = self.nodes[place].wall(self.now);
        let life = self.nodes[place].life;
        let Some(service) = self.service(place, id) else { return };
        let asker = Asker { place, life, source: id.0, epoch: service.epoch };
        let Some(Job::Lake(lake)) = &mut service.job else { return };
        let mut effects = Vec::new();
        lake.offload.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Persist { changes, then } => {
                    let records = changes.iter().map(|change| match change {
                        Change::Put(entry) => (entry_key(entry), encode_entry(entry)),
                        Change::Forget(entry) => (entry_key(entry), Bytes::new()),
                        Change::Shape(_) => (Bytes::from_static(b"shape"), Bytes::from_static(b"-")),
                    });
                    let records = records.collect();
                    if let Some(service) = self.service(place, id) {
                        service.write(id, records, Then::Lake(then));
                    }
                }
                Effect::Copy { entry, .. } => match self.records(place, id, (entry.base, entry.end)) {
                    Ok(records) => self.ask_store(asker, Work::Put { entry, records }),
                    Err(what) => {
                        let (partition, copy) = (entry.partition, entry.id);
                        self.lake_event(place, id, Event::Copied { partition, id: copy, result: Err(what) });
                    }
                },
                Effect::Commit { adds, .. } => {
                    self.ask_store(asker, Work::Commit { adds, seen: None, tries: 0 });
                }
                Effect::DeleteObject { id: entry, path, .. } => self.ask_store(asker, Work::Delete { entry, path }),
                Effect::Tiered { .. } => {}
            }
        }
    }

    /// The records of a range, from the local log.
    fn records(
        &mut self,
        place: usize,
        id: ServiceId,
        (base, end): (forebay_log::Offset, forebay_log::Offset),
    ) -> Result<Vec<(forebay_log::Offset, Bytes)>, String> {
        let handle = self.live(place).and_then(|live| live.partitions.get(&id.0).cloned()).ok_or("gone")?;
        let (mut next, mut found) = (base, Vec::new());
        while next < end {
            let fetched = handle.read(next, 4000).map_err(|error| error.to_string())?;
            let before = next;
            for (offset, _, value) in values(&fetched.batches)? {
                if offset == next && offset < end {
                    found.push((offset, value));
                    next = next.next();
                }
            }
            if next == before {
                return Err("nothing to read".to_owned());
            }
        }
        Ok(found)
    }

    pub(super) fn lake_answered(&mut self, place: usize, id: ServiceId, work: Work, result: Result<(), String>) {
        let partition = id.0.index;
        let event = match work {
            Work::Put { entry, records } => {
                let written = Written {
                    rows: records.len() as u64,
                    errors: 0,
                    bytes: records.len() as u64,
                    min_timestamp: forebay_log::Millis(0),
                    max_timestamp: forebay_log::Millis(0),
                    stats: String::new(),
                    lost: Lost::default(),
                };
                let result = result.map(|()| (written, Shape::default()));
                Event::Copied { partition, id: entry.id, result }
            }
            Work::Commit { .. } => Event::Committed { result: result.map_err(NotCommitted::Failed) },
            Work::Delete { entry, .. } => Event::Deleted { partition, id: entry, result },
        };
        self.lake_event(place, id, event);
    }
}
