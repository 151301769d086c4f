//! The coordinator of a consumer group: the real machine, where the leader of `_offsets` is, with what it stores in Kafka's own formats.
//!
//! It is one leadership's: what it appends goes to the log in the epoch that it was decided in, or not at all. It begins when all that
//! the log held at the start of the leadership is committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_disk::AppendData;
use forebay_log::group::classic::{ClassicGroup, Effect, GroupRecord, Join, Sync, Synced, Then};
use forebay_log::group::stored::{Committed, Key};
use forebay_log::group::{GroupError, Limits, Name};
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Millis, Offset};

use crate::clients::{build_records, values};
use crate::message::{Message, Peer};
use crate::node::Done;
use crate::world::World;

/// The topic of groups and offsets.
pub const OFFSETS: &str = "_offsets";
/// The one group that there is, and the topic that it reads.
const GROUP: &str = "readers";
const READ: &str = "t0";

/// What a member asks of the coordinator.
#[derive(Debug, Clone)]
pub enum GroupAsk {
    Join {
        member: Name,
        new: Name,
    },
    Sync {
        member: Name,
        generation: i32,
        assignments: Vec<(Name, Bytes)>,
    },
    Heartbeat {
        member: Name,
        generation: i32,
    },
    Commit {
        member: Name,
        generation: i32,
        index: u32,
        offset: i64,
    },
    /// Asked by a member of a generation: a coordinator of the past, which does not know of it, cannot answer.
    Offset {
        member: Name,
        generation: i32,
        index: u32,
    },
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum GroupReply {
    Joined {
        member: Name,
        generation: i32,
        members: Vec<Name>,
        leads: bool,
    },
    Synced {
        assignment: Bytes,
    },
    Done,
    Offset(Option<i64>),
    Refused(GroupError),
    /// Another node is the coordinator, or this one is not ready.
    NotCoordinator,
}

/// Whom to answer.
pub(crate) type To = (Peer, u64);

/// The coordinator of one leadership.
pub struct Coordinator {
    partition: PartitionId,
    epoch: Epoch,
    /// The log end when this leadership began; none once it is loaded.
    waits_for: Option<Offset>,
    group: ClassicGroup<To>,
    offsets: BTreeMap<i32, i64>,
}

/// Something that the coordinator had stored.
pub(crate) enum Storing {
    Group(Then),
    Offset { to: To, index: u32, offset: i64 },
}

fn name(text: &str) -> Name {
    text.into()
}

impl World {
    /// Begins and ends the coordinator of a node, and drives it.
    pub(crate) fn tick_coordinator(&mut self, place: usize) {
        let (steady, now) = (self.steady(place), self.now);
        let topic = self.nodes[place].image.topic_named(OFFSETS).map(|topic| topic.id);
        let Some(live) = self.live(place) else { return };
        let led = topic.map(|topic| PartitionId { topic, index: 0 }).and_then(|partition| {
            let handle = live.partitions.get(&partition).filter(|handle| handle.leads())?;
            live.roles.get(&partition).filter(|role| role.leader == Some(place))?;
            Some((partition, handle.leader_epoch(), handle.watermarks(), handle.clone()))
        });
        let Some((partition, epoch, marks, handle)) = led else {
            live.coordinator = None;
            return;
        };
        if live.coordinator.as_ref().is_none_or(|known| (known.partition, known.epoch) != (partition, epoch)) {
            live.coordinator = Some(Box::new(Coordinator {
                partition,
                epoch,
                waits_for: Some(marks.log_end),
                group: ClassicGroup::new(Limits::default()),
                offsets: BTreeMap::new(),
            }));
        }
        let Some(coordinator) = live.coordinator.as_mut() else { return };
        if let Some(end) = coordinator.waits_for {
            if marks.high_watermark < end {
                return;
            }
            let mut next = Offset::ZERO;
            let mut stored = None;
            while next < end {
                let Ok(fetched) = handle.read(next, 8000) else { return };
                let Ok(found) = values(&fetched.batches) else { return };
                let Some((last, ..)) = found.last() else { return };
                next = last.next();
                for (_, _, record) in &found {
                    match read_record(record) {
                        Some(Stored::Group(group)) => stored = Some(group),
                        Some(Stored::Offset(index, offset)) => drop(coordinator.offsets.insert(index, offset)),
                        None => {}
                    }
                }
            }
            if let Some(stored) = stored {
                coordinator.group = ClassicGroup::restore(Limits::default(), &stored, steady);
            }
            coordinator.waits_for = None;
            let told = coordinator.offsets.clone();
            self.trace.tell(now, || format!("node {place} coordinates in epoch {epoch}: {told:?}"));
        }
        let mut effects = Vec::new();
        if let Some(coordinator) = self.live(place).and_then(|live| live.coordinator.as_mut()) {
            coordinator.group.tick(steady, &mut effects);
        }
        self.group_effects(place, effects);
    }

    /// A member asks.
    pub(crate) fn group_asked(&mut self, place: usize, from: Peer, id: u64, ask: GroupAsk) {
        let steady = self.steady(place);
        let to = (from, id);
        let ready = |coordinator: &&mut Box<Coordinator>| coordinator.waits_for.is_none();
        let Some(coordinator) = self.live(place).and_then(|live| live.coordinator.as_mut()).filter(ready) else {
            return self.group_answers(place, to, GroupReply::NotCoordinator);
        };
        let mut effects = Vec::new();
        let reply = match ask {
            GroupAsk::Join { member, new } => {
                let join = Join {
                    to,
                    id: member,
                    new_id: new,
                    instance: None,
                    client_id: name("simulated"),
                    client_host: name("/1.1.1.1"),
                    session_timeout: 6000,
                    rebalance_timeout: 6000,
                    protocol_type: name("consumer"),
                    protocols: vec![(name("range"), Bytes::new())],
                    takes_id_first: false,
                    may_skip_assignment: false,
                };
                coordinator.group.join(steady, join, &mut effects);
                None
            }
            GroupAsk::Sync { member, generation, assignments } => {
                let (protocol_type, protocol) = (Some(name("consumer")), Some(name("range")));
                let sync = Sync { to, id: member, instance: None, generation, protocol_type, protocol, assignments };
                coordinator.group.sync(steady, sync, &mut effects);
                None
            }
            GroupAsk::Heartbeat { member, generation } => {
                Some(match coordinator.group.heartbeat(steady, generation, &member, None) {
                    Ok(()) => GroupReply::Done,
                    Err(error) => GroupReply::Refused(error),
                })
            }
            GroupAsk::Commit { member, generation, index, offset } => {
                match coordinator.group.may_commit(steady, generation, &member, None) {
                    Ok(()) => {
                        self.store_offset(place, to, index, offset);
                        return;
                    }
                    Err(error) => Some(GroupReply::Refused(error)),
                }
            }
            GroupAsk::Offset { member, generation, index } => {
                let index = i32::try_from(index).unwrap_or(0);
                Some(match coordinator.group.heartbeat(steady, generation, &member, None) {
                    Ok(()) => GroupReply::Offset(coordinator.offsets.get(&index).copied()),
                    Err(error) => GroupReply::Refused(error),
                })
            }
        };
        if let Some(reply) = reply {
            self.group_answers(place, to, reply);
        }
        self.group_effects(place, effects);
    }

    fn group_answers(&mut self, place: usize, (to, id): To, reply: GroupReply) {
        self.send(Peer::Node(place), to, Message::GroupAnswer { id, reply });
    }

    fn store_offset(&mut self, place: usize, to: To, index: u32, offset: i64) {
        let partition = i32::try_from(index).unwrap_or(0);
        let key = Key::Offset { group: name(GROUP), topic: name(READ), partition }.encode();
        let value = Committed { offset, leader_epoch: -1, metadata: String::new() }.encode(Millis(0));
        self.store(place, (key, value), Storing::Offset { to, index, offset });
    }

    /// Appends a record of this leadership.
    fn store(&mut self, place: usize, record: (Bytes, Bytes), storing: Storing) {
        let Some(live) = self.live(place) else { return };
        let Some(coordinator) = &live.coordinator else { return };
        let epoch = coordinator.epoch;
        let Some(handle) = live.partitions.get(&coordinator.partition).cloned() else { return };
        self.spawn(place, async move {
            // Of another leadership: the roles are told in the order of the appends.
            let data = AppendData::Batches(build_records(&[record], None));
            let result = match handle.submit(data).await {
                Ok(ticket) => ticket.await.map(drop),
                Err(error) => Err(error),
            };
            Done::Coordinated { epoch, storing, result }
        });
    }

    fn group_effects(&mut self, place: usize, effects: Vec<Effect<To>>) {
        for effect in effects {
            match effect {
                Effect::Joined { to, id, answer } => {
                    let reply = match answer {
                        Ok(joined) => GroupReply::Joined {
                            leads: joined.leader == id,
                            member: id,
                            generation: joined.generation,
                            members: joined.members.into_iter().map(|member| member.id).collect(),
                        },
                        Err(error) => GroupReply::Refused(error),
                    };
                    self.group_answers(place, to, reply);
                }
                Effect::Synced { to, answer } => {
                    let reply = match answer {
                        Ok(Synced { assignment, .. }) => GroupReply::Synced { assignment },
                        Err(error) => GroupReply::Refused(error),
                    };
                    self.group_answers(place, to, reply);
                }
                Effect::Persist { record, then } => {
                    let record = (Key::Group(name(GROUP)).encode(), record.encode(Millis(0)));
                    self.store(place, record, Storing::Group(then));
                }
            }
        }
    }

    /// A record of the coordinator is durable, or was refused.
    pub(crate) fn coordinated(
        &mut self,
        place: usize,
        epoch: Epoch,
        storing: Storing,
        result: Result<(), AppendError>,
    ) {
        let steady = self.steady(place);
        let Some(coordinator) = self.live(place).and_then(|live| live.coordinator.as_mut()) else { return };
        if coordinator.epoch != epoch {
            return;
        }
        // What was replicated too seldom is in the log all the same, and counts.
        let is_kept = matches!(result, Ok(()) | Err(AppendError::NotEnoughReplicasAfterAppend));
        match storing {
            Storing::Group(then) => {
                let mut effects = Vec::new();
                coordinator.group.stored(steady, then, is_kept, &mut effects);
                self.group_effects(place, effects);
            }
            Storing::Offset { to, index, offset } => {
                if is_kept {
                    coordinator.offsets.insert(i32::try_from(index).unwrap_or(0), offset);
                }
                let reply = match result {
                    Ok(()) => GroupReply::Done,
                    Err(_) => GroupReply::Refused(GroupError::CoordinatorNotAvailable),
                };
                self.group_answers(place, to, reply);
            }
        }
    }

    /// What was committed of a partition never goes back.
    pub(crate) fn check_offsets(&self) -> Result<(), String> {
        let Some(topic) = self.quorum.image.topic_named(OFFSETS) else { return Ok(()) };
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for record in self.truth.all(PartitionId { topic: topic.id, index: 0 }) {
            if let Some(Stored::Offset(index, offset)) = read_record(record) {
                let before = last.insert(index, offset).unwrap_or(0);
                if offset < before {
                    return Err(format!("the group's offset of partition {index} went back from {before} to {offset}"));
                }
            }
        }
        Ok(())
    }
}

enum Stored {
    Group(GroupRecord),
    Offset(i32, i64),
}

/// A record of the topic; keys may hold any byte, so that each `=` may be where the value begins.
fn read_record(record: &Bytes) -> Option<Stored> {
    let cuts = record.iter().enumerate().filter(|(_, byte)| **byte == b'=').map(|(at, _)| at);
    for cut in cuts {
        let (key, value) = (record.slice(..cut), record.slice(cut + 1..));
        match Key::decode(key.clone()).filter(|decoded| decoded.encode() == key) {
            Some(Key::Group(_)) => return GroupRecord::decode(value).map(|(group, _)| Stored::Group(group)),
            Some(Key::Offset { partition, .. }) => {
                return Committed::decode(value).map(|(committed, _)| Stored::Offset(partition, committed.offset));
            }
            _ => {}
        }
    }
    None
}
