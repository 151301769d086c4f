//! `uniform`: all members have as many partitions as their subscriptions allow, and keep what they had where they can.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::super::topics::{Partition, Partitions, Shape};
use super::{Candidate, readers};

struct Plan {
    /// Of each topic, who has which partitions.
    held: Vec<BTreeMap<usize, Vec<i32>>>,
    /// How many partitions each member has.
    loads: Vec<usize>,
}

pub(super) fn assign(topics: &[Shape], members: &[Candidate]) -> Vec<Partitions> {
    let readers = readers(topics, members);
    let mut plan = Plan { held: vec![BTreeMap::new(); topics.len()], loads: vec![0; members.len()] };
    let left = plan.keep(topics, members);
    plan.give(left, &readers);
    plan.even_out(&readers);
    let mut assigned = vec![Partitions::new(); members.len()];
    for (shape, held) in topics.iter().zip(plan.held) {
        for (member, indexes) in held {
            assigned[member].extend(indexes.into_iter().map(|index| Partition { topic: shape.id, index }));
        }
    }
    assigned
}

impl Plan {
    /// Leaves members what they had and still read. Returns of each topic what is left.
    fn keep(&mut self, topics: &[Shape], members: &[Candidate]) -> Vec<Vec<i32>> {
        let numbers: HashMap<_, _> = topics.iter().enumerate().map(|(number, shape)| (shape.id, number)).collect();
        let mut taken: Vec<Vec<bool>> =
            topics.iter().map(|shape| vec![false; shape.partitions.max(0) as usize]).collect();
        for (member, candidate) in members.iter().enumerate() {
            for part in candidate.had {
                let Some(topic) = numbers.get(&part.topic).copied() else { continue };
                let slot = usize::try_from(part.index).ok().and_then(|index| taken[topic].get_mut(index));
                let Some(slot) = slot.filter(|slot| !**slot && candidate.topics.binary_search(&topic).is_ok()) else {
                    continue;
                };
                *slot = true;
                self.held[topic].entry(member).or_default().push(part.index);
                self.loads[member] += 1;
            }
        }
        let free = |taken: Vec<bool>| (0..).zip(taken).filter(|(_, taken)| !taken).map(|(index, _)| index).collect();
        taken.into_iter().map(free).collect()
    }

    /// Gives what is left to those who have least, beginning with the topics that few read.
    fn give(&mut self, left: Vec<Vec<i32>>, readers: &[Vec<usize>]) {
        let mut order: Vec<usize> = (0..left.len()).collect();
        order.sort_by_key(|topic| readers[*topic].len());
        for topic in order {
            let by_load = readers[topic].iter().map(|member| Reverse((self.loads[*member], *member)));
            let mut poorest: BinaryHeap<_> = by_load.collect();
            for index in &left[topic] {
                let Some(Reverse((load, member))) = poorest.pop() else { break };
                self.held[topic].entry(member).or_default().push(*index);
                self.loads[member] = load + 1;
                poorest.push(Reverse((load + 1, member)));
            }
        }
    }

    /// Takes from the rich and gives to the poor while somebody reads what another has two more of. The widest gaps go first, so
    /// that nothing moves twice. Each step brings the loads closer together, so it ends.
    fn even_out(&mut self, readers: &[Vec<usize>]) {
        loop {
            let gaps = readers.iter().enumerate().filter_map(|(topic, readers)| self.gap(topic, readers));
            let Some(widest) = gaps.map(|(_, _, gap)| gap).max().filter(|gap| *gap > 1) else { return };
            for (topic, readers) in readers.iter().enumerate() {
                while let Some((rich, poor, _)) = self.gap(topic, readers).filter(|(_, _, gap)| *gap >= widest) {
                    let Some(indexes) = self.held[topic].get_mut(&rich) else { break };
                    let Some(index) = indexes.pop() else { break };
                    if indexes.is_empty() {
                        self.held[topic].remove(&rich);
                    }
                    self.held[topic].entry(poor).or_default().push(index);
                    self.loads[rich] -= 1;
                    self.loads[poor] += 1;
                }
            }
        }
    }

    /// Who has most of those who have something of the topic, who least of those who read it, and how far they are apart.
    fn gap(&self, topic: usize, readers: &[usize]) -> Option<(usize, usize, usize)> {
        let load = |member: &usize| self.loads[*member];
        let rich = self.held[topic].keys().copied().max_by_key(load)?;
        let poor = readers.iter().copied().min_by_key(load)?;
        Some((rich, poor, load(&rich).saturating_sub(load(&poor))))
    }
}
