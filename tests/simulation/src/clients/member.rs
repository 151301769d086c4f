//! A member of a consumer group: joins, reads the partitions that it is given from where the group has got to, and commits.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_log::group::{GroupError, Name};

use crate::message::{Message, Peer};
use crate::queue::Event;
use crate::quorum::place_of;
use crate::services::groups::{GroupAsk, GroupReply, OFFSETS};
use crate::world::World;

/// How long an answer is waited for, in milliseconds; a join takes as long as the others let it.
const WAIT_MS: i64 = 2500;
const JOIN_MS: i64 = 9000;
/// Partitions of the topic that the group reads: of no more than these is an offset committed.
const PARTITIONS: u8 = 3;

/// A member.
#[derive(Default)]
pub struct Member {
    id: Name,
    generation: i32,
    step: Step,
    owned: Vec<u32>,
    /// Where it has got to in what it owns.
    positions: BTreeMap<u32, i64>,
    waits: Option<(u64, i64)>,
    /// What was acknowledged of a partition when its offset was asked for.
    least: i64,
    commit: Option<(u32, i64)>,
}

#[derive(Default, Clone, PartialEq, Eq)]
enum Step {
    #[default]
    Joins,
    Syncs(Vec<(Name, Bytes)>),
    Looks,
    Reads,
}

impl World {
    pub(crate) fn member_goes_on(&mut self, client: usize) {
        let pause = self.within(30, 250);
        self.queue.at(self.now + pause, Event::Member { client });
        let now = self.now;
        if self.members[client].waits.is_some_and(|(_, until)| until > now) {
            return;
        }
        let (draw, new) = (self.random.below(100), self.number());
        let members = &self.group_acked;
        let member = &mut self.members[client];
        let ask = match &member.step {
            Step::Joins => {
                GroupAsk::Join { member: member.id.clone(), new: format!("m{client}-{new}").as_str().into() }
            }
            Step::Syncs(assignments) => GroupAsk::Sync {
                member: member.id.clone(),
                generation: member.generation,
                assignments: assignments.clone(),
            },
            Step::Looks => {
                let Some(index) = member.owned.iter().find(|index| !member.positions.contains_key(index)) else {
                    member.step = Step::Reads;
                    return;
                };
                member.least = members.get(index).copied().unwrap_or(0);
                GroupAsk::Offset { member: member.id.clone(), generation: member.generation, index: *index }
            }
            Step::Reads if member.commit.is_none() && (draw < 30 || member.owned.is_empty()) => {
                GroupAsk::Heartbeat { member: member.id.clone(), generation: member.generation }
            }
            Step::Reads => {
                let at = usize::try_from(draw).unwrap_or(0) % member.owned.len().max(1);
                let index = member.owned.get(at).copied().unwrap_or(0);
                let position = member.positions.get(&index).copied().unwrap_or(0);
                let (index, offset) =
                    *member.commit.get_or_insert((index, position + 1 + i64::try_from(draw % 3).unwrap_or(0)));
                GroupAsk::Commit { member: member.id.clone(), generation: member.generation, index, offset }
            }
        };
        let id = self.number();
        let is_join = matches!(ask, GroupAsk::Join { .. } | GroupAsk::Sync { .. });
        self.members[client].waits = Some((id, now + if is_join { JOIN_MS } else { WAIT_MS }));
        let asked = self.draw(self.nodes.len());
        let coordinator = self.nodes[asked].image.topic_named(OFFSETS).and_then(|topic| topic.partition(0)?.leader);
        match coordinator.map(place_of) {
            Some(place) => self.send(Peer::Member(client), Peer::Node(place), Message::Group { id, ask }),
            None => self.members[client].waits = None,
        }
    }

    pub(crate) fn member_hears(&mut self, client: usize, message: Message) {
        let Message::GroupAnswer { id, reply } = message else { return };
        let again = self.now + 100;
        let member = &mut self.members[client];
        if member.waits.is_none_or(|(waits, _)| waits != id) {
            return;
        }
        member.waits = None;
        match (member.step.clone(), reply) {
            (Step::Joins, GroupReply::Joined { member: own, generation, members, leads }) => {
                (member.id, member.generation) = (own, generation);
                let shares = members.iter().enumerate().map(|(at, id)| {
                    let share = (0..PARTITIONS).filter(|index| usize::from(*index) % members.len().max(1) == at);
                    (id.clone(), share.collect::<Vec<u8>>().into())
                });
                member.step = Step::Syncs(if leads { shares.collect() } else { Vec::new() });
            }
            (Step::Syncs(_), GroupReply::Synced { assignment }) => {
                member.owned = assignment.iter().map(|index| u32::from(*index)).collect();
                member.positions.clear();
                member.commit = None;
                member.step = Step::Looks;
            }
            (Step::Looks, GroupReply::Offset(offset)) => {
                let (offset, least) = (offset.unwrap_or(0), member.least);
                let index = member.owned.iter().find(|index| !member.positions.contains_key(index)).copied();
                if let Some(index) = index {
                    member.positions.insert(index, offset);
                    if offset < least {
                        self.fail(format!("a new owner of {index} begins at {offset}, {least} was acknowledged"));
                    }
                }
            }
            (Step::Reads, GroupReply::Done) => {
                if let Some((index, offset)) = member.commit.take() {
                    member.positions.insert(index, offset);
                    // The answer may come when the next owner has gone on.
                    let known = self.group_acked.entry(index).or_default();
                    *known = offset.max(*known);
                }
            }
            (_, GroupReply::NotCoordinator | GroupReply::Refused(GroupError::CoordinatorNotAvailable)) => {
                member.waits = Some((0, again));
            }
            (_, GroupReply::Refused(error)) => {
                if error == GroupError::UnknownMemberId {
                    member.id = Name::default();
                }
                member.commit = None;
                member.step = Step::Joins;
            }
            _ => {}
        }
    }
}
