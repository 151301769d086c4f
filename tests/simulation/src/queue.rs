//! What happens when: events in the order of their times, and of their making where those are the same.

use std::collections::BTreeMap;

use crate::message::{Message, Peer};
use crate::services::store::{Asker, Work};

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A message arrives, if its receiver is still the process that it was sent to.
    Deliver {
        from: Peer,
        to: Peer,
        life: u64,
        message: Message,
    },
    /// A node's disk and shards do a turn.
    Turn {
        node: usize,
        life: u64,
    },
    /// A node looks at its timers.
    Tick {
        node: usize,
        life: u64,
    },
    /// A node's process starts.
    Start {
        node: usize,
    },
    /// The quorum looks after itself.
    Quorum,
    /// A proposal has come to the quorum.
    Commit {
        node: usize,
        term: u64,
    },
    /// A producer goes on.
    Producer {
        client: usize,
    },
    /// A consumer goes on.
    Consumer {
        client: usize,
    },
    /// A member of a group goes on.
    Member {
        client: usize,
    },
    /// Something comes to the object store, and its answer comes back.
    Store {
        asker: Asker,
        work: Box<Work>,
    },
    Stored {
        asker: Asker,
        work: Box<Work>,
        result: Result<(), String>,
    },
    /// Something goes wrong, or somebody changes the cluster.
    Trouble,
    /// A fault ends.
    Mend(Mend),
}

/// What comes to an end.
#[derive(Debug, Clone)]
pub enum Mend {
    Cut(u64),
    Disk(usize),
    Drain(i32),
}

/// Events to come.
#[derive(Default)]
pub struct Queue {
    events: BTreeMap<(i64, u64), Event>,
    made: u64,
}

impl Queue {
    pub fn at(&mut self, time: i64, event: Event) {
        self.made += 1;
        self.events.insert((time, self.made), event);
    }

    pub fn pop(&mut self) -> Option<(i64, Event)> {
        self.events.pop_first().map(|((time, _), event)| (time, event))
    }
}
