//! One fetcher for each leader of which this node follows something.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_log::replication::PartitionId;
use forebay_log::{Epoch, NodeId};
use tokio::sync::mpsc;

use super::fetcher::{Command, Fetcher};
use super::limits::FETCHER_QUEUE;
use super::replicas::Replicas;
use crate::link::Links;

/// The fetchers, and which of them follows what. Owned by the task that assigns roles.
pub struct Fetchers {
    links: Arc<Links>,
    replicas: Arc<Replicas>,
    /// Sessions are numbered from here on.
    next_session: u64,
    running: HashMap<NodeId, mpsc::Sender<Command>>,
    leaders: HashMap<PartitionId, NodeId>,
}

impl Fetchers {
    /// `first_session`: a number such that this node has not used it nor the next 2^32 in an earlier life.
    pub fn new(links: Arc<Links>, replicas: Arc<Replicas>, first_session: u64) -> Fetchers {
        Fetchers { links, replicas, next_session: first_session, running: HashMap::new(), leaders: HashMap::new() }
    }

    /// Follows a partition of `leader`, in `epoch`, and of nobody else.
    pub async fn follow(&mut self, id: PartitionId, leader: NodeId, epoch: Epoch) {
        self.unfollow(id, Some(leader)).await;
        self.leaders.insert(id, leader);
        let (links, replicas) = (&self.links, &self.replicas);
        let next_session = &mut self.next_session;
        let running = self.running.entry(leader).or_insert_with(|| {
            let (commands, received) = mpsc::channel(FETCHER_QUEUE);
            *next_session += 1 << 32;
            let fetcher = Fetcher::new(leader, *next_session, Arc::clone(links), Arc::clone(replicas), received);
            tokio::spawn(fetcher.run());
            commands
        });
        // It ends only with this.
        let _ = running.send(Command::Follow(id, epoch)).await;
    }

    /// Follows the partition no more, unless of this leader.
    pub async fn unfollow(&mut self, id: PartitionId, unless: Option<NodeId>) {
        let Some(leader) = self.leaders.get(&id).copied().filter(|leader| Some(*leader) != unless) else { return };
        self.leaders.remove(&id);
        if let Some(running) = self.running.get(&leader) {
            let _ = running.send(Command::Unfollow(id)).await;
        }
        if !self.leaders.values().any(|other| *other == leader) {
            self.running.remove(&leader);
        }
    }
}
