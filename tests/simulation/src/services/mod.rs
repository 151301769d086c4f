//! What runs where a partition's leader is: the offload and the alert rules of the partition, each with its state in an internal topic.
//!
//! The state's partition is led by another node as likely as not, so every write carries whose it is: the source partition as
//! an idempotent producer, its leader epoch as that producer's epoch. A new leader begins with a claim; when that is durable no
//! leader of before can write any more (`ProducerFenced`), and all that it wrote is there to be read up to the claim.

pub mod alerts;
pub mod groups;
pub mod lake;
pub mod store;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Offset};

use crate::clients::{build_records, values};
use crate::message::{Message, Peer, Produce, Refused};
use crate::quorum::place_of;
use crate::world::World;

/// How long an answer is waited for, in milliseconds.
const WAIT_MS: i64 = 1500;

/// What a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Lake,
    Alerts,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Lake, Kind::Alerts];

    /// The internal topic that holds its state.
    #[must_use]
    pub fn topic(self) -> &'static str {
        match self {
            Kind::Lake => "_lake",
            Kind::Alerts => "_alerts",
        }
    }
}

/// What is to happen when a write is durable.
pub enum Then {
    Nothing,
    Lake(forebay_tiering::offload::Then),
}

struct Outgoing {
    batch: Bytes,
    then: Then,
}

enum Phase {
    /// The claim is on its way.
    Claiming,
    /// Reads what was written up to the claim.
    Loading {
        to: Offset,
        at: Offset,
        found: BTreeMap<Bytes, Bytes>,
    },
    Running,
    /// Another leader has claimed.
    Fenced,
}

/// One service of one source partition, as long as this node leads that.
pub struct Service {
    pub(crate) epoch: Epoch,
    sequence: i32,
    outgoing: VecDeque<Outgoing>,
    /// The attempt without an answer, and until when it is waited for.
    attempt: Option<(u64, i64)>,
    fetch: Option<(u64, i64)>,
    phase: Phase,
    pub(crate) job: Option<Job>,
}

/// The machine and what belongs to it.
pub enum Job {
    Lake(Box<lake::Lake>),
    Alerts(Box<alerts::Alerts>),
}

/// Names a service in its node.
pub type ServiceId = (PartitionId, Kind);

impl Service {
    fn new(id: ServiceId, epoch: Epoch) -> Service {
        let mut service = Service {
            epoch,
            sequence: 0,
            outgoing: VecDeque::new(),
            attempt: None,
            fetch: None,
            phase: Phase::Claiming,
            job: None,
        };
        service.write(id, vec![(Bytes::from_static(b"claim"), Bytes::new())], Then::Nothing);
        service
    }

    /// Has these records written, all or none, after those of before.
    pub(crate) fn write(&mut self, (source, kind): ServiceId, records: Vec<(Bytes, Bytes)>, then: Then) {
        let count = i32::try_from(records.len()).unwrap_or(0);
        let low = i64::try_from(source.topic.as_u128() & 0xffff_ffff).unwrap_or(0);
        let producer = (1 << 60) | (low << 20) | (i64::from(source.index) << 4) | kind as i64;
        let epoch = i16::try_from(self.epoch.0).unwrap_or(i16::MAX);
        let batch = build_records(&records, Some((producer, epoch, self.sequence)));
        self.sequence += count;
        self.outgoing.push_back(Outgoing { batch, then });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// For a person who asks why it does not get on.
    #[must_use]
    pub fn state(&self) -> String {
        let phase = match &self.phase {
            Phase::Claiming => "claims".to_owned(),
            Phase::Loading { to, at, .. } => format!("loads {at} of {to}"),
            Phase::Running => "runs".to_owned(),
            Phase::Fenced => "is fenced".to_owned(),
        };
        format!("epoch {} {phase}, {} writes to go", self.epoch, self.outgoing.len())
    }
}

impl World {
    /// Begins, ends and drives the services of a node.
    pub(crate) fn tick_services(&mut self, place: usize) {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| self.profile.runs(*kind)).collect();
        if kinds.is_empty() {
            return;
        }
        let image = self.nodes[place].image.clone();
        let Some(live) = self.live(place) else { return };
        let mut led: BTreeMap<PartitionId, Epoch> = BTreeMap::new();
        for (id, handle) in &live.partitions {
            let is_source = image.topic(id.topic).is_some_and(|topic| topic.name.starts_with('t'));
            if is_source && handle.leads() && live.roles.get(id).is_some_and(|role| role.leader == Some(place)) {
                led.insert(*id, handle.leader_epoch());
            }
        }
        live.services.retain(|(id, _), service| led.get(id) == Some(&service.epoch));
        for (id, epoch) in led {
            for &kind in &kinds {
                live.services.entry((id, kind)).or_insert_with(|| Service::new((id, kind), epoch));
            }
        }
        let ids: Vec<ServiceId> = live.services.keys().copied().collect();
        for id in ids {
            self.drive_service(place, id);
        }
    }

    pub(crate) fn service(&mut self, place: usize, id: ServiceId) -> Option<&mut Service> {
        self.live(place)?.services.get_mut(&id)
    }

    fn drive_service(&mut self, place: usize, id: ServiceId) {
        self.send_write(place, id);
        let Some(service) = self.service(place, id) else { return };
        match &service.phase {
            Phase::Loading { .. } => self.load(place, id),
            Phase::Running => match id.1 {
                Kind::Lake => self.drive_lake(place, id),
                Kind::Alerts => self.drive_alerts(place, id),
            },
            Phase::Claiming | Phase::Fenced => {}
        }
        self.send_write(place, id);
    }

    /// The partition of the service's state, and who leads it as far as this node knows.
    fn state_of(&self, place: usize, kind: Kind) -> Option<(PartitionId, usize)> {
        let topic = self.nodes[place].image.topic_named(kind.topic())?;
        let leader = topic.partition(0)?.leader?;
        Some((PartitionId { topic: topic.id, index: 0 }, place_of(leader)))
    }

    /// Sends the first write that waits; one at a time, again and again until it is durable.
    fn send_write(&mut self, place: usize, id: ServiceId) {
        let (now, attempt) = (self.now, self.number());
        let Some((partition, leader)) = self.state_of(place, id.1) else { return };
        let Some(service) = self.service(place, id) else { return };
        if service.attempt.is_some_and(|(_, until)| until > now) {
            return;
        }
        let Some(first) = service.outgoing.front() else { return };
        let batch = first.batch.clone();
        service.attempt = Some((attempt, now + WAIT_MS));
        let produce = Message::Produce(Produce { partition, batch, all: true, attempt, numbers: (0, 0) });
        self.send(Peer::Node(place), Peer::Node(leader), produce);
    }

    fn load(&mut self, place: usize, id: ServiceId) {
        let (now, attempt) = (self.now, self.number());
        let Some((partition, leader)) = self.state_of(place, id.1) else { return };
        let Some(service) = self.service(place, id) else { return };
        if service.fetch.is_some_and(|(_, until)| until > now) {
            return;
        }
        let Phase::Loading { at, .. } = &service.phase else { return };
        let from = *at;
        service.fetch = Some((attempt, now + WAIT_MS));
        self.send(Peer::Node(place), Peer::Node(leader), Message::Fetch { attempt, partition, from });
    }

    /// The leader of a service's state has answered a write.
    pub(crate) fn service_written(
        &mut self,
        place: usize,
        attempt: u64,
        outcome: Result<forebay_disk::Appended, Refused>,
    ) {
        let now = self.now;
        let Some(live) = self.live(place) else { return };
        let Some((&id, service)) =
            live.services.iter_mut().find(|(_, service)| service.attempt.is_some_and(|(known, _)| known == attempt))
        else {
            return;
        };
        match outcome {
            Ok(at) => {
                service.attempt = None;
                let written = service.outgoing.pop_front();
                if matches!(service.phase, Phase::Claiming) {
                    service.phase = Phase::Loading { to: at.base_offset, at: Offset::ZERO, found: BTreeMap::new() };
                    return self.load(place, id);
                }
                if let Some(Outgoing { then: Then::Lake(then), .. }) = written {
                    self.lake_event(place, id, forebay_tiering::offload::Event::Persisted(then));
                }
                self.send_write(place, id);
            }
            Err(Refused::By(AppendError::ProducerFenced)) => {
                service.phase = Phase::Fenced;
                service.outgoing.clear();
                service.job = None;
                self.trace.tell(now, || format!("node {place}: {id:?} is fenced"));
            }
            Err(Refused::By(AppendError::OutOfOrderSequence)) => {
                let state = service.state();
                self.fail(format!("the writes of {id:?} on node {place} are out of order: {state}"));
            }
            Err(_) => service.attempt = Some((0, now + 100)),
        }
    }

    /// A stretch of a service's state.
    pub(crate) fn service_read(&mut self, place: usize, attempt: u64, batches: Option<Bytes>) {
        let Some(live) = self.live(place) else { return };
        let Some((&id, service)) =
            live.services.iter_mut().find(|(_, service)| service.fetch.is_some_and(|(known, _)| known == attempt))
        else {
            return;
        };
        service.fetch = None;
        let Phase::Loading { to, at, found } = &mut service.phase else { return };
        for (offset, _, record) in values(&batches.unwrap_or_default()).unwrap_or_default() {
            if offset < *at {
                continue;
            }
            *at = offset.next();
            // What lies behind the claim a later leader may have written: its copy in progress is no rubbish to be deleted.
            if offset > *to {
                break;
            }
            let Some(cut) = record.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = (record.slice(..cut), record.slice(cut + 1..));
            if value.is_empty() {
                found.remove(&key)
            } else {
                found.insert(key, value)
            };
        }
        if *at <= *to {
            return;
        }
        let found = std::mem::take(found);
        service.phase = Phase::Running;
        match id.1 {
            Kind::Lake => self.begin_lake(place, id, found),
            Kind::Alerts => self.begin_alerts(place, id, found),
        }
    }
}
