//! What must hold: after every event, and at the end.

mod end;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_disk::Appended;
use forebay_log::replication::PartitionId;
use forebay_log::{Epoch, Offset};

use crate::clients::values;
use crate::quorum::place_of;
use crate::world::World;

/// Everything that anybody has seen below a high watermark, and what was acknowledged.
#[derive(Default)]
pub struct Truth {
    /// At each offset: the leader epoch that the batch has, and `key=value`.
    records: BTreeMap<PartitionId, Vec<(Epoch, Bytes)>>,
    /// Acknowledged by all in-sync replicas.
    acked: BTreeMap<PartitionId, BTreeMap<Offset, Bytes>>,
    /// By key of a producer: the first number of each batch that it has made.
    batches: BTreeMap<String, BTreeSet<u64>>,
    /// Which process was seen to lead in an epoch.
    leaders: BTreeMap<(PartitionId, Epoch), (usize, u64)>,
    /// How far a process's partition was looked at.
    seen: BTreeMap<(usize, u64, PartitionId), Offset>,
}

impl Truth {
    #[must_use]
    pub fn at(&self, partition: PartitionId, offset: Offset) -> Option<&Bytes> {
        self.records.get(&partition)?.get(usize::try_from(offset.0).ok()?).map(|(_, value)| value)
    }

    /// Every record of a partition, by offset.
    pub fn all(&self, partition: PartitionId) -> impl Iterator<Item = &Bytes> {
        self.records.get(&partition).into_iter().flatten().map(|(_, value)| value)
    }

    /// A producer has made a batch that begins with this number.
    pub(crate) fn made(&mut self, key: String, first: u64) {
        self.batches.entry(key).or_default().insert(first);
    }

    /// A replica is there anew.
    pub(crate) fn begin(&mut self, place: usize, life: u64, partition: PartitionId) {
        self.seen.remove(&(place, life, partition));
    }

    #[must_use]
    pub fn acked_count(&self) -> usize {
        self.acked.values().map(BTreeMap::len).sum()
    }
}

impl World {
    /// A batch was acknowledged by all: it is there from now on, at these offsets.
    pub(crate) fn truth_acked(&mut self, partition: PartitionId, at: Appended, batch: &Bytes) {
        let Ok(records) = values(batch) else { return };
        let last = at.base_offset.plus(records.len() as i64 - 1);
        if last != at.last_offset {
            return self.fail(format!("{} records were acknowledged as {at:?} of {partition:?}", records.len()));
        }
        for (delta, (_, _, value)) in (0i64..).zip(records) {
            let offset = at.base_offset.plus(delta);
            if let Some(known) = self.truth.at(partition, offset).filter(|known| **known != value) {
                return self
                    .fail(format!("{value:?} was acknowledged at {offset} of {partition:?}, there is {known:?}"));
            }
            let before = self.truth.acked.entry(partition).or_default().insert(offset, value.clone());
            if let Some(before) = before.filter(|before| *before != value) {
                return self.fail(format!("{before:?} and {value:?} were acknowledged at {offset} of {partition:?}"));
            }
        }
    }

    /// Reads what has come below the high watermark of a node's partition.
    pub(crate) fn check_reader(&mut self, place: usize, partition: PartitionId) {
        let life = self.nodes[place].life;
        let Some(handle) = self.live(place).and_then(|live| live.partitions.get(&partition).cloned()) else { return };
        if handle.unopened().is_some() {
            return;
        }
        let marks = handle.watermarks();
        if marks.high_watermark > marks.log_end {
            return self.fail(format!("node {place} has {marks:?} in {partition:?}"));
        }
        let mut next = self.truth.seen.get(&(place, life, partition)).copied().unwrap_or(marks.local_start);
        if marks.high_watermark < next {
            return self
                .fail(format!("the high watermark of {partition:?} on node {place} went back from {next}: {marks:?}"));
        }
        while next < marks.high_watermark {
            let Ok(fetched) = handle.read(next, 8000) else { break };
            let found = match values(&fetched.batches) {
                Ok(found) => found,
                Err(what) => return self.fail(format!("{partition:?} on node {place}: {what}")),
            };
            if found.is_empty() {
                return self.fail(format!("nothing to read at {next} of {partition:?} on node {place}: {marks:?}"));
            }
            let known = self.truth.records.entry(partition).or_default();
            let from = next;
            for (offset, epoch, value) in found.into_iter().filter(|(offset, ..)| *offset >= from) {
                let at = usize::try_from(offset.0).unwrap_or(usize::MAX);
                if let Some(other) = known.get(at)
                    && *other != (epoch, value.clone())
                {
                    let text = format!(
                        "offset {offset} of {partition:?} has two contents: {other:?}, and {:?} on node {place}",
                        (epoch, value)
                    );
                    return self.fail(text);
                }
                if at == known.len() {
                    known.push((epoch, value));
                }
                if offset != next || at > known.len() {
                    return self.fail(format!("offset {next} of {partition:?} is missing on node {place}"));
                }
                next = offset.next();
            }
        }
        self.truth.seen.insert((place, life, partition), next);
    }

    /// Looks at every partition in which something has moved.
    pub(crate) fn check_touched(&mut self) {
        while let Some((partition, ())) = self.touched.pop_first() {
            self.check_in_sync(partition);
            self.check_leader(partition);
        }
    }

    /// The leader's high watermark is on every in-sync replica.
    pub(crate) fn check_in_sync(&mut self, partition: PartitionId) {
        let Some(state) = self.quorum.image.partition(partition.topic, partition.index) else { return };
        let Some(leader) = state.leader.map(place_of) else { return };
        let handle = |place: usize| {
            let live = self.nodes[place].live.as_ref()?;
            live.partitions.get(&partition).filter(|handle| handle.unopened().is_none())
        };
        let Some(led) = handle(leader).filter(|led| led.leads() && led.leader_epoch() == state.leader_epoch) else {
            return;
        };
        let high_watermark = led.watermarks().high_watermark;
        let behind = state.isr.iter().find_map(|member| {
            let end = handle(place_of(*member))?.watermarks().log_end;
            (end < high_watermark).then_some((*member, end))
        });
        if let Some((member, end)) = behind {
            let text = format!(
                "the high watermark of {partition:?} is {high_watermark}, in-sync node {member} has it up to {end}: {state:?}"
            );
            self.fail(text);
        }
    }

    /// One process leads in an epoch.
    fn check_leader(&mut self, partition: PartitionId) {
        for place in 0..self.nodes.len() {
            let life = self.nodes[place].life;
            let Some(live) = &self.nodes[place].live else { continue };
            let Some(handle) = live.partitions.get(&partition).filter(|handle| handle.leads()) else { continue };
            let epoch = handle.leader_epoch();
            let first = *self.truth.leaders.entry((partition, epoch)).or_insert((place, life));
            if first != (place, life) {
                let text = format!("{first:?} and {:?} lead {partition:?} in epoch {epoch}", (place, life));
                return self.fail(text);
            }
        }
    }

    /// A log could not be cut: a disk may fail, but no leader may lack what is committed.
    pub(crate) fn check_cut(&mut self, place: usize, error: &str) {
        let now = self.now;
        self.trace.tell(now, || format!("node {place} cannot cut: {error}"));
        if error.contains("are committed here") {
            self.fail(format!("node {place}: {error}"));
        }
    }
}
