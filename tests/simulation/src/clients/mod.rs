//! Clients: meters that write numbered records, readers, and somebody who makes topics.

mod batch;
mod consumer;
mod member;
mod producer;

use std::collections::BTreeMap;

use forebay_log::cluster::Request;
use forebay_log::cluster::controller::{Assignment, CreateTopic};
use uuid::Uuid;

pub use batch::{build, build_records, values};
pub use consumer::Consumer;
pub use member::Member;
pub use producer::Producer;

use crate::message::{Message, Peer};
use crate::queue::Event;
use crate::services::Kind;
use crate::services::groups::OFFSETS;
use crate::world::World;

/// Somebody who changes the cluster.
#[derive(Default)]
pub struct Admin {
    /// Topics that there are to be, and their numbers of partitions.
    pub topics: BTreeMap<String, Uuid>,
}

impl World {
    pub(crate) fn begin_clients(&mut self) {
        for client in 0..self.profile.producers {
            let topic = self.draw(self.profile.topics);
            let (idempotent, all) = (self.random.chance(500), self.random.chance(800));
            let window = if idempotent { 1 + self.draw(4) } else { 1 };
            let eager = idempotent && self.random.chance(500);
            let index = u32::try_from(self.draw(3)).unwrap_or(0);
            self.producers.push(Producer::new(
                client,
                format!("t{topic}"),
                index,
                (idempotent, all || idempotent),
                (window, eager),
            ));
            self.queue.at(2000, Event::Producer { client });
        }
        for client in 0..self.profile.consumers {
            self.consumers.push(Consumer::default());
            self.queue.at(2500, Event::Consumer { client });
        }
    }

    /// Members of a group, where there is one.
    pub(crate) fn begin_members(&mut self) {
        if !self.profile.group {
            return;
        }
        for client in 0..3 {
            self.members.push(Member::default());
            let at = 4500 + self.within(0, 5000);
            self.queue.at(at, Event::Member { client });
        }
    }

    /// Asks the controller, as an operator does; whether it is heard shows in the image.
    pub(crate) fn order(&mut self, request: Request) {
        let (id, now) = (self.number(), self.now);
        self.trace.tell(now, || format!("admin: {request:?}"));
        if let Some(controller) = self.quorum.leader {
            self.send(Peer::Admin, Peer::Node(controller), Message::Ask { id, request: Box::new(request) });
        }
    }

    /// Has every topic made that is to be there and is not.
    pub(crate) fn make_topics(&mut self) {
        for topic in 0..self.profile.topics {
            let name = format!("t{topic}");
            if self.quorum.image.topic_named(&name).is_some() {
                continue;
            }
            let id = Uuid::from_u128((1 << 64) + u128::from(self.random.bits()));
            let factor = [3, 3, 2, 1][self.draw(4)];
            let partitions = u32::try_from(1 + self.draw(3)).unwrap_or(1);
            let min = if factor >= 2 { 1 + self.draw(2) } else { 1 };
            let configs = [
                ("min.insync.replicas", min.to_string()),
                ("segment.bytes", self.profile.segment_bytes.to_string()),
                ("retention.ms", "-1".to_owned()),
                ("remote.storage.enable", "false".to_owned()),
                ("compression.type", "producer".to_owned()),
            ];
            let config = configs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let replicas = Assignment::Placed { partitions, replication_factor: factor };
            self.order(Request::CreateTopic(CreateTopic { id, name, replicas, config, validate_only: false }));
        }
        for kind in Kind::ALL {
            if self.profile.runs(kind) && self.quorum.image.topic_named(kind.topic()).is_none() {
                self.make_state_topic(kind.topic());
            }
        }
        if self.profile.group && self.quorum.image.topic_named(OFFSETS).is_none() {
            self.make_state_topic(OFFSETS);
        }
    }

    /// A topic that holds the program's own state.
    fn make_state_topic(&mut self, name: &str) {
        let id = Uuid::from_u128((2 << 64) + u128::from(self.random.bits()));
        let configs = [("min.insync.replicas", "2"), ("retention.ms", "-1"), ("remote.storage.enable", "false")];
        let configs = configs.into_iter().chain([("compression.type", "producer"), ("segment.bytes", "1000000")]);
        let config = configs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let replicas = Assignment::Placed { partitions: 1, replication_factor: 3 };
        let name = name.to_owned();
        self.order(Request::CreateTopic(CreateTopic { id, name, replicas, config, validate_only: false }));
    }
}
