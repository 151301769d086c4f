//! Whether all is whole again, and what must be true then.

use std::collections::BTreeMap;

use forebay_log::Offset;
use forebay_log::replication::PartitionId;

use crate::quorum::place_of;
use crate::services::Kind;
use crate::world::World;

impl World {
    /// Whether every node is there, every replica in sync with the same end, and every request answered.
    pub(crate) fn check_whole(&mut self) -> Result<(), String> {
        if let Some(waits) = self.producers.iter().find(|producer| !producer.is_done()) {
            return Err(waits.state());
        }
        for (place, node) in self.nodes.iter().enumerate() {
            if !node.is_up(self.now) {
                return Err(format!("node {place} is not there"));
            }
            if node.applied != self.quorum.entries.len() {
                return Err(format!("node {place} has not all metadata"));
            }
        }
        for (topic, index, state) in self.quorum.image.partitions() {
            let partition = PartitionId { topic: topic.id, index };
            let is_whole = state.isr.len() == state.replicas.len() && !state.is_reassigning();
            let Some(leader) = state.leader.filter(|_| is_whole) else {
                return Err(format!("{}-{index} is not whole: {state:?}; {}", topic.name, self.shown(partition)));
            };
            let marks = |place: usize| {
                let live = self.nodes[place].live.as_ref()?;
                live.partitions.get(&partition).filter(|handle| handle.unopened().is_none()).map(|h| h.watermarks())
            };
            let led = marks(place_of(leader)).ok_or("the leader has not opened it")?;
            for replica in &state.replicas {
                let Some(known) = marks(place_of(*replica)) else {
                    return Err(format!("{}-{index} is not open on node {replica}", topic.name));
                };
                if known.log_end != led.log_end || known.high_watermark != led.log_end {
                    let shown = self.shown(partition);
                    return Err(format!("{}-{index} on node {replica} is at {known:?}: {shown}", topic.name));
                }
            }
        }
        self.check_services()?;
        for (place, node) in self.nodes.iter().enumerate() {
            for partition in self.hosted(place) {
                let state = self.quorum.image.partition(partition.topic, partition.index);
                if state.is_none_or(|state| !state.replicas.iter().any(|id| place_of(*id) == node.place)) {
                    return Err(format!("node {place} still has {partition:?}"));
                }
            }
        }
        Ok(())
    }

    /// Whether the services have caught up.
    fn check_services(&self) -> Result<(), String> {
        for (topic, index, state) in self.quorum.image.partitions().filter(|(topic, ..)| topic.name.starts_with('t')) {
            let partition = PartitionId { topic: topic.id, index };
            let place = place_of(state.leader.ok_or("nobody leads")?);
            let live = self.nodes[place].live.as_ref().ok_or("a node is not there")?;
            let handle = live.partitions.get(&partition).ok_or("a replica is not there")?;
            let shown = |kind| live.services.get(&(partition, kind)).map(|service| service.state());
            if self.profile.lake {
                let (end, wanted) = (self.table_end(partition), handle.closed_segments().last().map(|s| s.end_offset));
                if wanted.is_some_and(|wanted| end < wanted) {
                    let state = shown(Kind::Lake);
                    return Err(format!("the table of {}-{index} is at {end} of {wanted:?}: {state:?}", topic.name));
                }
            }
            if self.profile.alerts {
                let (at, wanted) = (self.alerts_at(place, (partition, Kind::Alerts)), handle.watermarks().log_end.0);
                if at != Some(wanted) {
                    let state = shown(Kind::Alerts);
                    return Err(format!("the rules of {}-{index} are at {at:?} of {wanted}: {state:?}", topic.name));
                }
            }
        }
        Ok(())
    }

    /// What the nodes know of a partition, for a person.
    fn shown(&self, partition: PartitionId) -> String {
        let mut text = String::new();
        for (place, node) in self.nodes.iter().enumerate() {
            let Some(live) = &node.live else { continue };
            let Some(handle) = live.partitions.get(&partition) else { continue };
            text += &format!(
                "[node {place}: leads {} epoch {} {:?} offline {:?} role {:?} proposal {:?}] ",
                handle.leads(),
                handle.leader_epoch(),
                handle.watermarks(),
                handle.offline(),
                live.roles.get(&partition),
                live.proposals.get(&partition).map(|proposal| &proposal.change),
            );
        }
        text
    }

    /// What must be true at the end.
    pub(crate) fn check_end(&mut self) -> Result<(), String> {
        // Everybody has seen everything by now: what is on record from here on is all that there ever was.
        for place in 0..self.nodes.len() {
            for partition in self.hosted(place) {
                self.check_reader(place, partition);
            }
        }
        if let Some(what) = self.failed() {
            return Err(what);
        }
        self.check_offsets()?;
        for (topic, index, state) in self.quorum.image.partitions() {
            let partition = PartitionId { topic: topic.id, index };
            let name = format!("{}-{index}", topic.name);
            let copies = state.replicas.iter().map(|id| self.bytes(place_of(*id), partition));
            let copies: Vec<Vec<u8>> = copies.collect::<Result<_, _>>().map_err(|what| format!("{name}: {what}"))?;
            for (copy, replica) in copies.iter().zip(&state.replicas) {
                if *copy != copies[0] {
                    let what = difference(&copies[0], copy);
                    return Err(format!("{name}: nodes {} and {replica} differ: {what}", state.replicas[0]));
                }
            }
            self.check_kept(partition, &copies[0]).map_err(|what| format!("{name}: {what}"))?;
            self.check_acked(partition).map_err(|what| format!("{name}: {what}"))?;
            self.check_order(partition).map_err(|what| format!("{name}: {what}"))?;
            self.check_table(partition).map_err(|what| format!("{name}: {what}"))?;
            if topic.name.starts_with('t') && self.profile.alerts {
                self.check_alerts(partition).map_err(|what| format!("{name}: {what}"))?;
            }
        }
        Ok(())
    }

    fn bytes(&self, place: usize, partition: PartitionId) -> Result<Vec<u8>, String> {
        let live = self.nodes[place].live.as_ref().ok_or("a node is not there")?;
        let handle = live.partitions.get(&partition).ok_or("a replica is not there")?;
        let (marks, mut next, mut all) = (handle.watermarks(), handle.watermarks().local_start, Vec::new());
        while next < marks.log_end {
            let fetched = handle.read_to_end(next, 1 << 16).map_err(|error| format!("node {place}: {error}"))?;
            let found = crate::clients::values(&fetched.batches)?;
            next = found.last().map(|(offset, ..)| offset.next()).ok_or("nothing to read")?;
            all.extend_from_slice(&fetched.batches);
        }
        Ok(all)
    }

    /// What anybody ever saw below a high watermark is what the log holds now, no more and no less: retention is off.
    fn check_kept(&self, partition: PartitionId, copy: &[u8]) -> Result<(), String> {
        let held = crate::clients::values(&copy.to_vec().into())?;
        let seen = self.truth.records.get(&partition).map_or(&[][..], Vec::as_slice);
        for (offset, (epoch, value)) in (0i64..).map(Offset).zip(seen) {
            match usize::try_from(offset.0).ok().and_then(|at| held.get(at)) {
                Some(found) if *found == (offset, *epoch, value.clone()) => {}
                found => return Err(format!("{value:?} of {epoch:?} was seen at {offset}, there is {found:?}")),
            }
        }
        match held.get(seen.len()) {
            Some(more) => Err(format!("{more:?} is in sync everywhere, but nobody has seen it")),
            None => Ok(()),
        }
    }

    /// Everything acknowledged is there, where it was said to be.
    fn check_acked(&self, partition: PartitionId) -> Result<(), String> {
        for (offset, value) in self.truth.acked.get(&partition).into_iter().flatten() {
            match self.truth.at(partition, *offset) {
                Some(known) if known == value => {}
                other => return Err(format!("acknowledged {value:?} is lost: at {offset} is {other:?}")),
            }
        }
        Ok(())
    }

    /// The records of a key come in their order, those of an idempotent producer once. Another's batch may be there again as
    /// long as it was not answered, so before any later one.
    fn check_order(&self, partition: PartitionId) -> Result<(), String> {
        // By key: the first number of the batch seen last, and the number that follows in it.
        let mut last: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (offset, (_, value)) in (0i64..).map(Offset).zip(self.truth.records.get(&partition).into_iter().flatten()) {
            let text = String::from_utf8_lossy(value);
            let Some((key, number)) = text.split_once('=') else { continue };
            let Some(batches) = self.truth.batches.get(key) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            let Some(batch) = batches.range(..=number).next_back().copied() else {
                return Err(format!("{text} at {offset} was never written"));
            };
            let (before, next) = last.get(key).copied().unwrap_or((0, 0));
            let is_once = key.starts_with('i');
            if number < next && is_once {
                return Err(format!("{text} is there twice, again at {offset}"));
            }
            if number > next && is_once {
                return Err(format!("{text} at {offset} comes before {next:06} of its producer"));
            }
            if batch < before {
                return Err(format!(
                    "{text} at {offset} comes behind {before:06} of its producer, which was sent later"
                ));
            }
            if number != batch && number != next {
                return Err(format!("{text} at {offset} comes without what is before it in its batch"));
            }
            last.insert(key.to_owned(), (batch, number + 1));
        }
        Ok(())
    }
}

/// Where two logs part, for a person.
fn difference(one: &[u8], other: &[u8]) -> String {
    let records = |bytes: &[u8]| crate::clients::values(&bytes.to_vec().into()).unwrap_or_default();
    let (one, other) = (records(one), records(other));
    match one.iter().zip(&other).find(|(a, b)| a != b) {
        Some((a, b)) => format!("{a:?} and {b:?}"),
        None => format!("{} and {} records, the same up to there, or other batches", one.len(), other.len()),
    }
}
