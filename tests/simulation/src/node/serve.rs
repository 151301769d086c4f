//! What a node does with what it hears: from other nodes, and from clients.

use forebay_disk::AppendData;
use forebay_log::AppendError;

use super::Done;
use crate::message::{Message, Peer, Produce, Refused};
use crate::world::World;

impl World {
    pub(crate) fn node_hears(&mut self, place: usize, from: Peer, message: Message) {
        match (from, message) {
            (Peer::Node(leader), Message::Lead { term, commit }) => self.learn(place, term, commit, leader),
            (_, Message::Ask { id, request }) => self.ask_controller(place, from, id, *request),
            (_, Message::Answer { id, answer }) => self.answered(place, id, answer),
            (Peer::Node(follower), Message::Pull { incarnation, pull }) => {
                self.pull(place, follower, incarnation, &pull);
            }
            (Peer::Node(leader), Message::Pulled { session, sequence, parts }) => {
                self.pulled(place, leader, (session, sequence), parts);
            }
            (Peer::Node(follower), Message::Ends { incarnation, ends }) => {
                self.report_ends(place, follower, incarnation, ends);
            }
            (_, Message::Produce(produce)) => self.produce(place, from, produce),
            (_, Message::Fetch { attempt, partition, from: offset }) => {
                let handle = self.live(place).and_then(|live| live.partitions.get(&partition).cloned());
                let read = handle.and_then(|handle| handle.read(offset, 2000).ok());
                let batches = read.map(|fetched| fetched.batches);
                self.send(Peer::Node(place), from, Message::Fetched { attempt, batches });
            }
            (_, Message::Group { id, ask }) => self.group_asked(place, from, id, ask),
            (_, Message::Produced { attempt, outcome }) => self.service_written(place, attempt, outcome),
            (_, Message::Fetched { attempt, batches }) => self.service_read(place, attempt, batches),
            _ => {}
        }
    }

    fn produce(&mut self, place: usize, client: Peer, produce: Produce) {
        let Produce { partition, batch, all, attempt, .. } = produce;
        let Some(handle) = self.live(place).and_then(|live| live.partitions.get(&partition).cloned()) else {
            let outcome = Err(Refused::NotHere);
            return self.send(Peer::Node(place), client, Message::Produced { attempt, outcome });
        };
        self.spawn(place, async move {
            let data = AppendData::Batches(batch.clone());
            let ticket = if all { handle.submit(data).await } else { handle.submit_to_leader(data).await };
            let result = match ticket {
                Ok(ticket) => ticket.await,
                Err(error) => Err(error),
            };
            Done::Appended { client, attempt, partition, all, batch, result }
        });
    }

    /// An append was answered by the log.
    pub(crate) fn appended(&mut self, place: usize, done: Done) {
        let Done::Appended { client, attempt, partition, all, batch, result } = done else { return };
        if let (Ok(at), true) = (&result, all) {
            self.truth_acked(partition, *at, &batch);
        }
        if matches!(result, Err(AppendError::Closed)) {
            return;
        }
        let outcome = result.map_err(Refused::By);
        self.send(Peer::Node(place), client, Message::Produced { attempt, outcome });
    }
}
