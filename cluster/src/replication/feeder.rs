//! Feeds the partitions that this node leads to their followers: answers pulls, at once or when there is something new.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay_disk::{Observer, Watermarks};
use forebay_log::partition::{Anew, EpochCache, Starts};
use forebay_log::replication::{Answer, End, Feed, Part, PartBody, PartitionId, Pull, Source, View};
use forebay_log::{Incarnation, NodeId, Offset, ReadError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::{PULL_BYTES, PULL_WAIT};
use super::replicas::{Replica, Replicas};
use super::wire;
use crate::codec::Malformed;
use crate::link::Body;
use crate::throttle::Throttle;

/// The sessions of all followers.
pub struct Feeder {
    replicas: Arc<Replicas>,
    sessions: Mutex<HashMap<NodeId, Arc<Session>>>,
    /// Of what goes to followers that are not in sync.
    catch_up: Throttle,
}

/// One follower's session.
struct Session {
    follower: NodeId,
    incarnation: Incarnation,
    feed: Mutex<State>,
    /// Partitions with something new. Apart from the feed, which is locked while the log is read: who rings must not wait for that.
    moved: Mutex<HashSet<PartitionId>>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    feed: Feed,
    /// Counts the pulls: an earlier one is answered when a later one comes.
    pulls: u64,
}

/// Rings when a partition has something new.
struct Bell {
    id: PartitionId,
    feeder: Arc<Feeder>,
}

impl Observer for Bell {
    fn moved(&self, _: &str, _: u32, _: &Watermarks) {
        self.feeder.moved(self.id);
    }
}

impl Feeder {
    /// `catch_up`: bytes a second for followers that are not in sync; `None` is no limit.
    pub fn new(replicas: Arc<Replicas>, catch_up: Option<u64>) -> Arc<Feeder> {
        Arc::new(Feeder { replicas, sessions: Mutex::default(), catch_up: Throttle::new(catch_up) })
    }

    /// Has followers told when this partition, which is new here, has something new.
    pub fn watch(self: &Arc<Self>, id: PartitionId, replica: &Replica) {
        replica.partition.observe(Arc::new(Bell { id, feeder: Arc::clone(self) }));
    }

    /// Its role or its followers have changed.
    pub fn moved(&self, id: PartitionId) {
        for session in lock(&self.sessions).values() {
            lock(&session.moved).insert(id);
            session.changed.notify_waiters();
        }
    }

    /// Takes a pull in, in the order of arrival; what it returns waits until there is an answer.
    ///
    /// # Errors
    /// The message cannot be read.
    pub fn begin_pull(
        self: &Arc<Self>,
        follower: NodeId,
        incarnation: Incarnation,
        message: Bytes,
    ) -> Result<impl Future<Output = Body> + Send + 'static, Malformed> {
        let pull = wire::read_pull(message)?;
        let feeder = Arc::clone(self);
        let session = self.session(follower, incarnation);
        let taken = take(&session, &pull);
        Ok(async move {
            let Some(number) = taken else { return wire::write_answer(None) };
            let answer = feeder.answer(&session, number).await;
            wire::write_answer(Some(&answer.parts))
        })
    }

    /// Followers have told how far they are.
    ///
    /// # Errors
    /// The message cannot be read.
    pub async fn ends(&self, follower: NodeId, incarnation: Incarnation, message: Bytes) -> Result<(), Malformed> {
        let ends = wire::read_ends(message)?;
        self.replicated(follower, incarnation, &ends).await;
        Ok(())
    }

    fn session(&self, follower: NodeId, incarnation: Incarnation) -> Arc<Session> {
        let mut sessions = lock(&self.sessions);
        let known = sessions.get(&follower).filter(|known| known.incarnation == incarnation);
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let session = Arc::new(Session {
            follower,
            incarnation,
            feed: Mutex::default(),
            moved: Mutex::default(),
            changed: Notify::new(),
        });
        sessions.insert(follower, Arc::clone(&session));
        session
    }

    async fn answer(&self, session: &Session, number: u64) -> Answer {
        let until = Instant::now() + PULL_WAIT;
        loop {
            let changed = session.changed.notified();
            tokio::pin!(changed);
            // From here on no ring is missed.
            changed.as_mut().enable();
            let source = Leader { replicas: &self.replicas, follower: session.follower };
            let (answer, superseded, throttled) = {
                let mut state = lock(&session.feed);
                let moved = std::mem::take(&mut *lock(&session.moved));
                moved.into_iter().for_each(|id| state.feed.moved(id));
                let room = self.catch_up.room(PULL_BYTES);
                let answer = state.feed.answer(&source, PULL_BYTES, room);
                (answer, state.pulls != number, state.feed.is_ready())
            };
            self.catch_up.take(caught_up(&source, &answer));
            self.replicated(session.follower, session.incarnation, &answer.agreed).await;
            if !answer.parts.is_empty() || superseded || Instant::now() >= until {
                return answer;
            }
            let pause = if throttled { until.min(Instant::now() + Duration::from_millis(20)) } else { until };
            let _ = tokio::time::timeout_at(pause, changed).await;
        }
    }

    async fn replicated(&self, follower: NodeId, incarnation: Incarnation, ends: &[End]) {
        for End { partition, epoch, end } in ends {
            if let Some(replica) = self.replicas.get(*partition) {
                // A log that shuts down needs it no more.
                let _ = replica.partition.replicated(*epoch, follower, incarnation, *end).await;
            }
        }
    }
}

/// The pull's number, or `None` when it is not the next one of its session.
fn take(session: &Session, pull: &Pull) -> Option<u64> {
    let mut state = lock(&session.feed);
    state.feed.pull(pull).ok()?;
    state.pulls += 1;
    let number = state.pulls;
    drop(state);
    session.changed.notify_waiters();
    Some(number)
}

/// Bytes that went to partitions of which the follower is not in sync.
fn caught_up(source: &Leader<'_>, answer: &Answer) -> usize {
    let bytes = |part: &Part| match &part.body {
        PartBody::Batches { batches, .. } => batches.len(),
        _ => 0,
    };
    let lags = |part: &&Part| source.view(part.partition).is_some_and(|view| !view.in_sync);
    answer.parts.iter().filter(|part| bytes(part) > 0).filter(lags).map(bytes).sum()
}

/// This node's partitions as one follower is to see them.
struct Leader<'a> {
    replicas: &'a Replicas,
    follower: NodeId,
}

impl Source for Leader<'_> {
    fn view(&self, id: PartitionId) -> Option<View> {
        let Replica { partition, in_sync } = self.replicas.get(id)?;
        Some(View {
            leads: partition.leads(),
            epoch: partition.leader_epoch(),
            marks: partition.watermarks(),
            tiered: partition.starts().tiered,
            in_sync: in_sync.contains(&self.follower),
        })
    }

    fn epochs(&self, id: PartitionId) -> EpochCache {
        self.replicas.get(id).map(|replica| EpochCache::clone(&replica.partition.epochs())).unwrap_or_default()
    }

    fn anew(&self, id: PartitionId) -> Anew {
        let Some(Replica { partition, .. }) = self.replicas.get(id) else { return Anew::default() };
        let mut starts = Starts::clone(&partition.starts());
        // The follower begins where this log begins here.
        starts.tiered = partition.watermarks().local_start;
        starts.compacted = Offset::ZERO;
        Anew { starts, epochs: EpochCache::clone(&partition.epochs()) }
    }

    fn read(&self, id: PartitionId, from: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        let replica = self.replicas.get(id).ok_or_else(|| ReadError::Offline("not on this node".to_owned()))?;
        replica.partition.read_to_end(from, max_bytes).map(|fetched| fetched.batches)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
