//! Trouble: what goes wrong, what operators do meanwhile, and how it ends.

use forebay_disk::sim::Faults;
use forebay_log::NodeId;
use forebay_log::cluster::Request;
use forebay_log::cluster::controller::{ElectionType, Reassign};
use uuid::Uuid;

use crate::message::Peer;
use crate::queue::{Event, Mend};
use crate::quorum::id_of;
use crate::world::World;

impl World {
    /// Something goes wrong, or somebody changes something.
    pub(crate) fn trouble(&mut self) {
        if self.healing {
            // Topics that nobody could make while nothing went right.
            self.make_topics();
            let again = self.now + 2000;
            return self.queue.at(again, Event::Trouble);
        }
        let pause = 1 + i64::try_from(self.random.below(2 * self.profile.fault_every_ms)).unwrap_or(0);
        self.queue.at(self.now + pause, Event::Trouble);
        self.make_topics();
        let node = self.draw(self.nodes.len());
        let profile = &self.profile;
        match self.random.below(14) {
            0 | 1 if profile.crashes => {
                let back = self.now + self.within(50, 8000);
                self.crash(node);
                self.queue.at(back, Event::Start { node });
            }
            2 if profile.pauses => {
                // What waits for the end of a pause keeps its order: none ends earlier than was said.
                let before = self.nodes[node].paused_until.unwrap_or_default();
                let until = before.max(self.now + self.within(100, 6000));
                let now = self.now;
                self.trace.tell(now, || format!("node {node} pauses until {until}"));
                self.nodes[node].paused_until = Some(until);
            }
            3..=5 if profile.cuts => self.cut_some(node),
            6 if profile.disk_faults => {
                let rate = [20, 100, 300][self.draw(3)];
                let faults = Faults { write_per_mille: rate, sync_per_mille: rate, ..Faults::default() };
                self.disk_fails(node, faults);
            }
            7 if profile.full_disks => {
                let used: u64 = self.nodes[node].files.contents().iter().map(|(_, bytes)| bytes.len() as u64).sum();
                let faults = Faults { capacity: Some(used + self.random.below(4000)), ..Faults::default() };
                self.disk_fails(node, faults);
            }
            8 if profile.clocks => self.set_clock(node),
            9 | 10 if profile.admin => self.operate(node),
            11 if profile.deletions => self.change_topic(),
            12 if profile.late_metadata => {
                let until = self.now + self.within(500, 9000);
                let now = self.now;
                self.trace.tell(now, || format!("node {node} hears nothing of the metadata until {until}"));
                self.nodes[node].deaf_until = until;
            }
            13 if profile.moves => self.move_leader(),
            _ => {}
        }
    }

    fn cut_some(&mut self, node: usize) {
        let (me, count) = (Peer::Node(node), self.nodes.len());
        let other = Peer::Node((node + 1 + self.draw(count - 1)) % count);
        let others: Vec<Peer> = (0..count).filter(|&place| place != node).map(Peer::Node).collect();
        let clients: Vec<Peer> = (0..self.producers.len()).map(Peer::Producer).collect();
        let to = |list: &[Peer]| list.iter().map(|peer| (me, *peer)).collect::<Vec<_>>();
        let from = |list: &[Peer]| list.iter().map(|peer| (*peer, me)).collect::<Vec<_>>();
        let ways = match self.random.below(8) {
            0 => vec![(me, other)],
            1 => vec![(me, other), (other, me)],
            2 => to(&others),
            3 => from(&others),
            4 | 5 => [to(&others), from(&others)].concat(),
            6 => [to(&clients), from(&clients)].concat(),
            _ => [to(&others), from(&others), to(&clients), from(&clients)].concat(),
        };
        let until = self.now + if self.random.chance(300) { self.within(8000, 25_000) } else { self.within(200, 6000) };
        let now = self.now;
        self.trace.tell(now, || format!("cut until {until}: {ways:?}"));
        let cut = self.network.cut(ways);
        self.queue.at(until, Event::Mend(Mend::Cut(cut)));
    }

    fn disk_fails(&mut self, node: usize, faults: Faults) {
        let until = self.now + self.within(200, 6000);
        let now = self.now;
        self.trace.tell(now, || format!("the disk of node {node} until {until}: {faults:?}"));
        self.nodes[node].full = faults.capacity.is_some();
        self.nodes[node].files.set_faults(faults);
        self.queue.at(until, Event::Mend(Mend::Disk(node)));
    }

    pub(crate) fn mend_disk(&mut self, node: usize) {
        self.nodes[node].full = false;
        self.nodes[node].files.set_faults(Faults::default());
    }

    fn set_clock(&mut self, place: usize) {
        let far = [500, 15_000, 3_600_000, 86_400_000][self.draw(4)];
        let skew = self.within(-far, far);
        let now = self.now;
        let node = &mut self.nodes[place];
        let by = skew - node.skew;
        node.skew = skew;
        let wall = node.wall(now);
        node.files.set_clock(wall.0);
        self.trace.tell(now, || format!("the clock of node {place} is set by {by} ms"));
        if let Some(live) = node.live.as_mut().filter(|_| by.abs() > forebay_log::limits::CLOCK_STEP_MS) {
            live.steps.clock_stepped(wall, by);
        }
        self.follow_moves(place);
    }

    /// What operators do.
    fn operate(&mut self, node: usize) {
        let image = &self.quorum.image;
        let partitions: Vec<(Uuid, u32, Vec<NodeId>, bool)> = image
            .partitions()
            .map(|(topic, index, state)| (topic.id, index, state.replicas.clone(), state.is_reassigning()))
            .collect();
        let draining: Vec<NodeId> = image.nodes().filter(|(_, node)| node.draining).map(|(id, _)| id).collect();
        match self.random.below(6) {
            0 => {
                let request = Request::ElectLeaders { election: ElectionType::Preferred, partitions: None };
                self.order(request);
            }
            1 => {
                if let Some(live) = self.live(node) {
                    live.wants_shutdown = true;
                }
            }
            2 if self.nodes.len() > 3 && draining.is_empty() => {
                let until = self.now + self.within(3000, 12_000);
                self.order(Request::DrainNode { id: id_of(node), draining: true });
                self.queue.at(until, Event::Mend(Mend::Drain(id_of(node).0)));
            }
            _ => {
                if partitions.is_empty() {
                    return;
                }
                let (topic, index, replicas, is_reassigning) = partitions[self.draw(partitions.len())].clone();
                let count = self.nodes.len();
                let first = self.draw(count);
                let size = if self.random.chance(800) { replicas.len() } else { 2 + self.draw(2) };
                let target = (0..size.min(count)).map(|n| id_of((first + n) % count)).collect();
                let target = if is_reassigning && self.random.chance(300) { None } else { Some(target) };
                self.order(Request::AlterReassignments { partitions: vec![Reassign { topic, index, target }] });
            }
        }
    }

    /// Another replica is to lead a partition.
    fn move_leader(&mut self) {
        let led: Vec<(Uuid, u32, Vec<NodeId>)> = self
            .quorum
            .image
            .partitions()
            .filter(|(_, _, state)| state.replicas.len() > 1 && !state.is_reassigning())
            .map(|(topic, index, state)| (topic.id, index, state.replicas.clone()))
            .collect();
        if led.is_empty() {
            return;
        }
        let (topic, index, mut target) = led[self.draw(led.len())].clone();
        target.rotate_left(1);
        self.order(Request::AlterReassignments { partitions: vec![Reassign { topic, index, target: Some(target) }] });
        self.order(Request::ElectLeaders { election: ElectionType::Preferred, partitions: Some(vec![(topic, index)]) });
    }

    pub(crate) fn end_drain(&mut self, id: i32) {
        self.order(Request::DrainNode { id: NodeId(id), draining: false });
    }

    fn change_topic(&mut self) {
        let topics: Vec<(Uuid, usize)> = self
            .quorum
            .image
            .topics()
            .filter(|topic| topic.name.starts_with('t'))
            .map(|topic| (topic.id, topic.partitions.len()))
            .collect();
        if topics.is_empty() {
            return;
        }
        let (topic, count) = topics[self.draw(topics.len())];
        if self.random.chance(500) {
            // It is made again under the same name.
            self.order(Request::DeleteTopic { topic });
        } else if count < 5 {
            let count = u32::try_from(count + 1).unwrap_or(1);
            self.order(Request::CreatePartitions { topic, count, had: None, assignment: None, validate_only: false });
        }
    }

    /// Everything is well from now on.
    pub(crate) fn heal(&mut self) {
        let now = self.now;
        self.trace.tell(now, || "everything is well from now on".to_owned());
        self.healing = true;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].deaf_until = 0;
            self.mend_disk(node);
            if let Some(live) = self.live(node) {
                live.wants_shutdown = false;
            }
            if self.nodes[node].live.is_none() {
                self.queue.at(now, Event::Start { node });
            }
        }
        let draining: Vec<i32> =
            self.quorum.image.nodes().filter(|(_, node)| node.draining).map(|(id, _)| id.0).collect();
        for id in draining {
            self.queue.at(now + 1000, Event::Mend(Mend::Drain(id)));
        }
    }
}
