//! Fetches from one leader what this node follows of it: performs what the session's machine asks for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use forebay_disk::Partition;
use forebay_log::partition::{Truncation, agreement};
use forebay_log::replication::{Effect, End, Part, PartitionId, Pull, Puller, Tail};
use forebay_log::{AppendError, Epoch, Millis, NodeId};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::limits::{ENDS_TIMEOUT, PULL_SLACK, PULL_WAIT};
use super::replicas::Replicas;
use super::wire;
use crate::kinds;
use crate::link::{Lane, Links, Reports};

/// What a fetcher is told.
pub(super) enum Command {
    /// Follow this partition of the leader's, in which nothing of an earlier epoch is under way any more.
    Follow(PartitionId, Epoch),
    Unfollow(PartitionId),
}

/// What has come of something that was begun.
enum Done {
    Pulled(u64, Option<Vec<Part>>),
    Copied(PartitionId, Epoch, usize, bool),
    Cut(PartitionId, Epoch, bool),
    Told(bool),
}

pub(super) struct Fetcher {
    leader: NodeId,
    links: Arc<Links>,
    replicas: Arc<Replicas>,
    puller: Puller,
    commands: mpsc::Receiver<Command>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    started: Instant,
    reports: Arc<Reports>,
}

impl Fetcher {
    pub(super) fn new(
        leader: NodeId,
        session: u64,
        links: Arc<Links>,
        replicas: Arc<Replicas>,
        commands: mpsc::Receiver<Command>,
    ) -> Fetcher {
        Fetcher {
            leader,
            links,
            replicas,
            puller: Puller::new(session),
            commands,
            under_way: FuturesUnordered::new(),
            started: Instant::now(),
            reports: Arc::default(),
        }
    }

    /// Until the commands end.
    pub(super) async fn run(mut self) {
        let mut effects = Vec::new();
        loop {
            let deadline = self.puller.next_deadline().map(|at| self.at(at));
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Follow(id, epoch)) => {
                        if let Some(tail) = self.tail(id) {
                            self.puller.follow(self.now(), id, epoch, tail, &mut effects);
                        }
                    }
                    Some(Command::Unfollow(id)) => self.puller.unfollow(id),
                },
                Some(done) = self.under_way.next() => self.done(done, &mut effects),
                () = sleep_until(deadline), if deadline.is_some() => self.puller.tick(self.now(), &mut effects),
            }
            self.perform(&mut effects).await;
        }
    }

    /// A clock of its own, which nobody sets.
    fn now(&self) -> Millis {
        Millis(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn at(&self, time: Millis) -> tokio::time::Instant {
        let after = std::time::Duration::from_millis(u64::try_from(time.0).unwrap_or(0));
        tokio::time::Instant::from_std(self.started + after)
    }

    fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.replicas.get(id).map(|replica| replica.partition)
    }

    fn tail(&self, id: PartitionId) -> Option<Tail> {
        self.partition(id).map(|partition| tail(&partition))
    }

    fn done(&mut self, done: Done, effects: &mut Vec<Effect>) {
        let now = self.now();
        match done {
            Done::Pulled(session, answer) => self.puller.pulled(now, session, answer, effects),
            Done::Copied(id, epoch, bytes, kept) => {
                self.puller.copied(now, (id, epoch), bytes, kept, self.tail(id), effects);
            }
            Done::Cut(id, epoch, cut) => {
                if let Some(tail) = self.tail(id) {
                    self.puller.cut(now, (id, epoch), cut, tail, effects);
                }
            }
            Done::Told(true) => {}
            Done::Told(false) => self.puller.lost(now, effects),
        }
    }

    async fn perform(&mut self, effects: &mut Vec<Effect>) {
        let mut effects: VecDeque<Effect> = std::mem::take(effects).into();
        let mut ends: Vec<End> = Vec::new();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Pull(pull) => self.pull(pull),
                Effect::Ends(more) => ends.extend(more),
                Effect::Copy { partition: id, epoch, from, marks, batches } => {
                    let bytes = batches.len();
                    let begun = match self.partition(id) {
                        Some(partition) => partition.copy(epoch, from, batches, marks).await,
                        None => Err(AppendError::Closed),
                    };
                    let reports = Arc::clone(&self.reports);
                    self.under_way.push(Box::pin(async move {
                        let kept = match begun {
                            Ok(copying) => copying.await,
                            Err(error) => Err(error),
                        };
                        if let Err(error) = &kept {
                            report(&reports, id, error);
                        }
                        Done::Copied(id, epoch, bytes, kept.is_ok())
                    }));
                }
                Effect::Agree { partition: id, epoch, leader } => {
                    let Some(partition) = self.partition(id) else { continue };
                    let to = agreement(&partition.epochs(), partition.watermarks().log_end, leader);
                    let (topic, index, log_end) =
                        (partition.topic(), partition.index(), partition.watermarks().log_end);
                    // A cut that fails is tried again.
                    if let Some(suppressed) = self.reports.admit(&format!("{topic}-{index} cut to {to}")) {
                        warn!(topic, partition = index, leader = self.leader.0, %to, %log_end, suppressed,
                            "cutting the log to where it agrees with its leader's");
                    }
                    self.cut(partition, id, Truncation { epoch, to, anew: None });
                }
                Effect::Anew { partition: id, epoch, at, anew } => {
                    let Some(partition) = self.partition(id) else { continue };
                    let (topic, index) = (partition.topic(), partition.index());
                    if let Some(suppressed) = self.reports.admit(&format!("{topic}-{index} anew at {at}")) {
                        warn!(topic, partition = index, leader = self.leader.0, %at, suppressed,
                            "the leader has what follows only in the cold tier: the log begins anew");
                    }
                    self.cut(partition, id, Truncation { epoch, to: at, anew: Some(anew) });
                }
            }
        }
        if !ends.is_empty() {
            self.tell(ends);
        }
    }

    fn pull(&self, pull: Pull) {
        let (links, leader, session) = (Arc::clone(&self.links), self.leader.0, pull.session);
        self.under_way.push(Box::pin(async move {
            let encode = move |_| wire::write_pull(&pull);
            let asked = links.call(leader, Lane::Data, kinds::PULL, encode, PULL_WAIT + PULL_SLACK).await;
            let answer = match asked.map(|(_, answer)| wire::read_answer(answer)) {
                Ok(Ok(answer)) => answer,
                Ok(Err(problem)) => {
                    error!(leader, %problem, "the leader's answer cannot be read");
                    None
                }
                Err(error) => {
                    debug!(leader, %error, "nothing pulled");
                    None
                }
            };
            Done::Pulled(session, answer)
        }));
    }

    fn tell(&self, ends: Vec<End>) {
        let (links, leader) = (Arc::clone(&self.links), self.leader.0);
        self.under_way.push(Box::pin(async move {
            let encode = move |_| wire::write_ends(&ends);
            Done::Told(links.send(leader, Lane::Data, kinds::ENDS, encode, ENDS_TIMEOUT).await.is_ok())
        }));
    }

    fn cut(&self, partition: Arc<Partition>, id: PartitionId, cut: Truncation) {
        let reports = Arc::clone(&self.reports);
        self.under_way.push(Box::pin(async move {
            let epoch = cut.epoch;
            let done = partition.truncate(cut).await;
            if let Err(error) = &done {
                report(&reports, id, error);
            }
            Done::Cut(id, epoch, done.is_ok())
        }));
    }
}

fn report(reports: &Reports, id: PartitionId, error: &AppendError) {
    // The epoch has moved on: nothing is wrong.
    if !matches!(error, AppendError::FencedLeaderEpoch | AppendError::Closed)
        && let Some(suppressed) = reports.admit(&format!("{id:?}: {error}"))
    {
        error!(topic = %id.topic, partition = id.index, %error, suppressed, "a follower's log does not go on");
    }
}

fn tail(partition: &Partition) -> Tail {
    Tail { end: partition.watermarks().log_end, epoch: partition.epochs().latest() }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
