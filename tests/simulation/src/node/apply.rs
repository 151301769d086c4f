//! From the image to the local log: which partitions are here, which of them this node leads, and which it follows.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_disk::Observer;
use forebay_log::cluster::PartitionState;
use forebay_log::flaws::{self, Flaw};
use forebay_log::partition::{Leadership, Truncation};
use forebay_log::replication::{PartitionId, Tail};
use forebay_log::{Epoch, PartitionEpoch, TopicConfig};

use super::Done;
use crate::quorum::{id_of, place_of};
use crate::world::World;

/// What this node was told to be in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) leader: Option<usize>,
    pub(crate) epoch: Epoch,
    pub(crate) partition_epoch: PartitionEpoch,
    /// The machine has taken it.
    pub(crate) holds: bool,
    /// Told, and not answered yet.
    pub(crate) waits: bool,
}

impl World {
    /// The node learns who leads the quorum, and how much is committed.
    pub(crate) fn learn(&mut self, place: usize, term: u64, commit: usize, leader: usize) {
        let Some(live) = self.live(place) else { return };
        if term < live.hint.0 {
            return;
        }
        live.hint = (term, Some(leader));
        if live.active.as_ref().is_some_and(|active| active.term < term) {
            live.active = None;
        }
        let (now, node) = (self.now, &mut self.nodes[place]);
        if commit > node.applied && (now >= node.deaf_until || leader == place) {
            for entry in &self.quorum.entries[node.applied..commit] {
                entry.records.iter().for_each(|record| node.image.apply(record));
            }
            node.applied = commit;
            self.reconcile(place);
        }
    }

    /// Makes the local log what the image says. Does again what has failed.
    pub(crate) fn reconcile(&mut self, place: usize) {
        let id = id_of(place);
        let node = &self.nodes[place];
        let Some(live) = &node.live else { return };
        let image = node.image.clone();
        // What is said to an earlier process of this node is not said to this one.
        if image.node(id).and_then(|known| known.incarnation()) != Some(live.incarnation) {
            return;
        }
        self.let_go(place, &image);
        self.host(place, &image);
        let wanted: Vec<(PartitionId, PartitionState)> = image
            .partitions()
            .filter(|(_, _, state)| state.replicas.contains(&id))
            .map(|(topic, index, state)| (PartitionId { topic: topic.id, index }, state.clone()))
            .collect();
        for (partition, state) in wanted {
            self.take_role(place, partition, &state);
        }
    }

    /// Partitions that are not to be here any more.
    fn let_go(&mut self, place: usize, image: &forebay_log::cluster::Image) {
        let id = id_of(place);
        let Some(live) = self.live(place) else { return };
        let stays = |topic, index| image.partition(topic, index).is_some_and(|state| state.replicas.contains(&id));
        for (name, topic) in live.log.topics().iter() {
            let gone: Vec<u32> = topic
                .partitions
                .iter()
                .map(|partition| partition.index())
                .filter(|index| !stays(topic.id, *index))
                .collect();
            if gone.is_empty() {
                continue;
            }
            for &index in &gone {
                let partition = PartitionId { topic: topic.id, index };
                live.roles.remove(&partition);
                live.partitions.remove(&partition);
                live.proposals.remove(&partition);
                live.led.remove(&partition);
                live.pullers.values_mut().for_each(|pulls| pulls.puller.unfollow(partition));
            }
            // A disk that fails: again with the next tick.
            let _ = live.log.unhost(name, topic.id, &gone);
        }
    }

    fn host(&mut self, place: usize, image: &forebay_log::cluster::Image) {
        let id = id_of(place);
        let Some(live) = self.live(place) else { return };
        for topic in image.topics() {
            let here = live.log.topic(&topic.name).filter(|known| known.id == topic.id);
            let missing: Vec<u32> = topic
                .partitions()
                .filter(|(index, state)| {
                    let is_here = here.as_ref().is_some_and(|known| known.partition(*index).is_some());
                    state.replicas.contains(&id) && !is_here
                })
                .map(|(index, _)| index)
                .collect();
            if !missing.is_empty() {
                let mut config = TopicConfig::default();
                for (name, value) in &topic.config {
                    let _ = config.set(name, value);
                }
                // A disk that fails, or an older topic of this name that is still to go.
                let _ = live.log.host(&topic.name, topic.id, &config, &missing);
            }
        }
        self.take_partitions(place);
    }

    /// Notes the partitions that the log has, and listens to them.
    pub(crate) fn take_partitions(&mut self, place: usize) {
        let Some(live) = self.live(place) else { return };
        let mut fresh = Vec::new();
        for topic in live.log.topics().values() {
            for partition in &topic.partitions {
                let id = PartitionId { topic: topic.id, index: partition.index() };
                if live.partitions.get(&id).is_none_or(|known| !Arc::ptr_eq(known, partition)) {
                    let observer: Arc<dyn Observer> = Arc::clone(&live.moved) as Arc<dyn Observer>;
                    partition.observe(observer);
                    live.partitions.insert(id, Arc::clone(partition));
                    live.roles.remove(&id);
                    fresh.push(id);
                }
            }
        }
        let life = self.nodes[place].life;
        for id in fresh {
            self.truth.begin(place, life, id);
            self.touched.insert(id, ());
            self.check_reader(place, id);
        }
    }

    fn take_role(&mut self, place: usize, partition: PartitionId, state: &PartitionState) {
        let me = id_of(place);
        let Some(live) = self.live(place) else { return };
        let Some(handle) = live.partitions.get(&partition).cloned() else { return };
        let leader = state.leader.map(place_of);
        let known = live.roles.get(&partition);
        let leads = leader == Some(place);
        if let Some(known) = known {
            let same = (known.leader, known.epoch, known.partition_epoch)
                == (leader, state.leader_epoch, state.partition_epoch);
            let taken = if leads {
                handle.leads() && handle.leader_epoch() == state.leader_epoch
            } else {
                known.holds || known.waits
            };
            if same && taken {
                return;
            }
            if !leads && taken && known.leader == leader && known.epoch == state.leader_epoch {
                if let Some(known) = live.roles.get_mut(&partition) {
                    known.partition_epoch = state.partition_epoch;
                }
                return;
            }
        }
        let role = Role {
            leader,
            epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            holds: false,
            waits: true,
        };
        live.roles.insert(partition, role);
        live.pullers.values_mut().for_each(|pulls| pulls.puller.unfollow(partition));
        if let Some(proposal) = live.proposals.get(&partition)
            && proposal.change.partition_epoch < state.partition_epoch
        {
            live.proposals.remove(&partition);
        }
        let epoch = state.leader_epoch;
        if leads {
            let others = |list: &[forebay_log::NodeId]| list.iter().copied().filter(|id| *id != me).collect();
            let word = Leadership {
                epoch,
                partition_epoch: state.partition_epoch,
                followers: others(&state.replicas),
                in_sync: others(&state.isr),
                max_lag_ms: forebay_log::limits::REPLICA_LAG_TIME_MAX_MS,
            };
            self.spawn(place, async move {
                let _ = handle.lead(word).await;
                Done::Quietly
            });
        } else {
            self.spawn(place, async move {
                let mut result = handle.follow(epoch).await;
                if flaws::has(Flaw::TruncateToHighWatermark) && result.is_ok() {
                    let to = handle.watermarks().high_watermark;
                    result = handle.truncate(Truncation { epoch, to, anew: None }).await;
                }
                Done::Followed { partition, epoch, result }
            });
        }
    }

    /// The machine follows: nothing of before is under way.
    pub(crate) fn followed(&mut self, place: usize, partition: PartitionId, epoch: Epoch, taken: bool) {
        let (now, session) = (self.steady(place), self.number() << 24);
        let Some(live) = self.live(place) else { return };
        let Some(role) = live.roles.get_mut(&partition).filter(|role| role.epoch == epoch) else { return };
        role.waits = false;
        role.holds = taken;
        let (Some(leader), true) = (role.leader.filter(|leader| *leader != place), taken) else { return };
        let Some(tail) = live.tail(partition) else { return };
        let mut effects = Vec::new();
        let pulls = live.pullers.entry(leader).or_insert_with(|| super::Pulls {
            puller: forebay_log::replication::Puller::new(session),
            waiting: Default::default(),
        });
        pulls.puller.follow(now, partition, epoch, tail, &mut effects);
        self.pull_effects(place, leader, effects);
    }

    /// The partitions of this node, as the image that it knows has them.
    pub(crate) fn hosted(&self, place: usize) -> BTreeSet<PartitionId> {
        self.nodes[place].live.as_ref().map(|live| live.partitions.keys().copied().collect()).unwrap_or_default()
    }
}

impl super::Live {
    /// Where the local log of a partition ends.
    pub(crate) fn tail(&self, partition: PartitionId) -> Option<Tail> {
        let handle = self.partitions.get(&partition)?;
        Some(Tail { end: handle.watermarks().log_end, epoch: handle.epochs().latest() })
    }
}
