//! Follows the log of a state topic: this node's own changes are applied from memory when it is their turn, others are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::{Appended, Partition, Ticket};
use forebay_log::{AppendError, Offset};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::page::{self, Damage, From};
use super::view::Taken;
use super::{Change, Shared};
use crate::log_limit::LogLimit;

/// Changes of this node that may be under way at once; they share group commits. More wait at their callers.
pub(super) const MAX_IN_FLIGHT: usize = 4096;
/// How long committed records may be ahead of the view before they are read: this node's own are usually about to be told.
const GRACE: Duration = Duration::from_millis(2);
/// How long durable changes of this node wait for the replica here to have what comes before them; then the leader is asked.
const BEFORE_LEADER: Duration = Duration::from_millis(25);
/// How long a change that was refused and is in the log all the same may take to be seen here.
const KEPT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for the partition to advance before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause after a failed read.
const RETRY: Duration = Duration::from_millis(500);

/// Changes that have been handed to the partition's leader.
pub(super) struct Own {
    pub(super) ticket: Ticket,
    pub(super) changes: Vec<Change>,
    pub(super) done: oneshot::Sender<Result<(), AppendError>>,
}

/// Durable, and not applied yet.
struct Durable {
    last: Offset,
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), AppendError>>,
}

/// In the log below `end`, though it was refused.
struct Kept {
    end: Offset,
    until: Instant,
    error: AppendError,
    done: oneshot::Sender<Result<(), AppendError>>,
}

type Settled = (Result<Appended, AppendError>, Vec<Change>, oneshot::Sender<Result<(), AppendError>>);

/// Owns the order in which a view takes its records.
pub(super) struct Follower {
    partition: Arc<Partition>,
    shared: Arc<Shared>,
    own: mpsc::Receiver<Own>,
    in_flight: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// By their first offsets.
    durable: BTreeMap<Offset, Durable>,
    kept: Vec<Kept>,
    damage: Damage,
    /// Since when the view is not where it could be, and where it was then.
    behind: Option<(Offset, Instant)>,
    rest_until: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        partition: Arc<Partition>,
        shared: Arc<Shared>,
        own: mpsc::Receiver<Own>,
        damage: Damage,
    ) -> Follower {
        Follower {
            partition,
            shared,
            own,
            in_flight: FuturesUnordered::new(),
            durable: BTreeMap::new(),
            kept: Vec::new(),
            damage,
            behind: None,
            rest_until: None,
        }
    }

    /// Until the state topic's last handle is gone.
    pub(super) async fn run(mut self) {
        let mut advanced = self.advanced();
        loop {
            self.settle();
            let read_at = self.read_at();
            let room = self.in_flight.len() + self.durable.len() + self.kept.len() < MAX_IN_FLIGHT;
            tokio::select! {
                biased;
                Some(settled) = self.in_flight.next() => self.settled(settled),
                own = self.own.recv(), if room => match own {
                    Some(own) => self.take(own),
                    None => return,
                },
                () = &mut advanced, if read_at.is_none() => advanced = self.advanced(),
                () = tokio::time::sleep_until(read_at.unwrap_or_else(Instant::now)), if read_at.is_some() => {
                    self.read().await;
                }
            }
        }
    }

    fn advanced(&self) -> BoxFuture<'static, ()> {
        let (partition, past) = (Arc::clone(&self.partition), self.shared.view().next());
        Box::pin(async move { partition.advanced(past, LOOK_AGAIN).await })
    }

    fn take(&mut self, own: Own) {
        let Own { ticket, changes, done } = own;
        self.in_flight.push(Box::pin(async move { (ticket.await, changes, done) }));
    }

    fn settled(&mut self, (result, changes, done): Settled) {
        match result {
            Ok(Appended { base_offset, last_offset, .. }) => {
                self.durable.insert(base_offset, Durable { last: last_offset, changes, done });
            }
            // In the log all the same: whoever is told so finds it here.
            Err(error @ AppendError::NotEnoughReplicasAfterAppend) => {
                let (end, until) = (self.partition.watermarks().high_watermark, Instant::now() + KEPT_PATIENCE);
                self.kept.push(Kept { end, until, error, done });
            }
            // Whoever asked may be gone; then nobody is to be told. Should the records be in the log all the same, which a lost
            // connection leaves open, they are read.
            Err(error) => drop(done.send(Err(error))),
        }
    }

    /// Applies what is durable and next in the log.
    fn settle(&mut self) {
        self.settle_durable();
        let next = self.shared.view().next();
        for kept in self.kept.extract_if(.., |kept| kept.end <= next || kept.until <= Instant::now()) {
            let _ = kept.done.send(Err(kept.error));
        }
    }

    fn settle_durable(&mut self) {
        while let Some(first) = self.durable.first_entry() {
            let taken = self.shared.view().take_own(*first.key(), first.get().last, &first.get().changes);
            if taken == Taken::Early {
                return;
            }
            let Durable { changes, done, .. } = first.remove();
            if taken == Taken::Applied {
                self.shared.observed(&changes);
            }
            let _ = done.send(Ok(()));
        }
    }

    /// When the log is to be read, if it is known to have more.
    fn read_at(&mut self) -> Option<Instant> {
        let next = self.shared.view().next();
        let readable = self.partition.watermarks().high_watermark > next;
        if !readable && self.durable.is_empty() {
            self.behind = None;
            return None;
        }
        let (at, since) = *self.behind.get_or_insert_with(|| (next, Instant::now()));
        if at != next {
            self.behind = Some((next, Instant::now()));
        }
        let since = if at == next { since } else { Instant::now() };
        let due = match (readable, self.in_flight.is_empty() && self.durable.is_empty()) {
            (true, true) => since,
            (true, false) => since + GRACE,
            (false, _) => since + BEFORE_LEADER,
        };
        Some(self.rest_until.map_or(due, |rest| rest.max(due)))
    }

    async fn read(&mut self) {
        let next = self.shared.view().next();
        let readable = self.partition.watermarks().high_watermark > next;
        let from = if readable { From::Nearest } else { From::Leader };
        self.rest_until = None;
        match page::read(&self.partition, from, next, &mut self.damage).await {
            Ok(page) => {
                if page.next == next {
                    self.rest_until = Some(Instant::now() + GRACE);
                }
                self.shared.view().apply(&page.changes, page.next);
                self.shared.observed(&page.changes);
            }
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new(1);
                if let Some(suppressed) = LIMIT.admit() {
                    tracing::warn!(topic = self.partition.topic(), %error, suppressed,
                        "the node's own state cannot be followed now, trying again");
                }
                self.rest_until = Some(Instant::now() + RETRY);
            }
        }
    }
}
