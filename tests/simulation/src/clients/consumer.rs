//! A consumer: reads partitions from any of their replicas, and compares what it gets with what anybody has read there.

use std::collections::BTreeMap;

use forebay_log::Offset;
use forebay_log::replication::PartitionId;

use super::values;
use crate::message::{Message, Peer};
use crate::queue::Event;
use crate::quorum::place_of;
use crate::world::World;

/// A consumer.
#[derive(Default)]
pub struct Consumer {
    positions: BTreeMap<PartitionId, Offset>,
    waits: Option<(u64, PartitionId)>,
}

impl World {
    pub(crate) fn consumer_goes_on(&mut self, client: usize) {
        let pause = self.within(50, 400);
        self.queue.at(self.now + pause, Event::Consumer { client });
        let asked = self.draw(self.nodes.len());
        let partitions: Vec<_> = self.nodes[asked]
            .image
            .partitions()
            .map(|(topic, index, state)| (PartitionId { topic: topic.id, index }, state.replicas.clone()))
            .collect();
        if partitions.is_empty() {
            return;
        }
        let (partition, replicas) = partitions[self.draw(partitions.len())].clone();
        let replica = place_of(replicas[self.draw(replicas.len())]);
        let attempt = self.number();
        let consumer = &mut self.consumers[client];
        let from = consumer.positions.get(&partition).copied().unwrap_or_default();
        consumer.waits = Some((attempt, partition));
        let fetch = Message::Fetch { attempt, partition, from };
        self.send(Peer::Consumer(client), Peer::Node(replica), fetch);
    }

    pub(crate) fn consumer_hears(&mut self, client: usize, message: Message) {
        let Message::Fetched { attempt, batches: Some(batches) } = message else { return };
        let consumer = &mut self.consumers[client];
        let Some((_, partition)) = consumer.waits.filter(|(waits, _)| *waits == attempt) else { return };
        let from = consumer.positions.get(&partition).copied().unwrap_or_default();
        let found = match values(&batches) {
            Ok(found) => found,
            Err(what) => return self.fail(format!("consumer {client} cannot read {partition:?}: {what}")),
        };
        let mut next = from;
        for (offset, _, value) in found.into_iter().filter(|(offset, ..)| *offset >= from) {
            if offset != next || self.truth.at(partition, offset) != Some(&value) {
                let known = self.truth.at(partition, offset);
                return self.fail(format!(
                    "consumer {client} read {value:?} at {offset} of {partition:?}, expected {next} and {known:?}"
                ));
            }
            next = offset.next();
        }
        self.consumers[client].positions.insert(partition, next);
    }
}
