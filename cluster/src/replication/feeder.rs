//! Feeds the partitions that this node leads to their followers: answers pulls, at once or when there is something new.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay_disk::{Observer, Watermarks};
use forebay_log::partition::{Anew, EpochCache, Starts};
use forebay_log::replication::{Answer, End, Feed, Part, PartBody, PartitionId, Pull, Source, View};
use forebay_log::{Incarnation, NodeId, Offset, ReadError};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use super::limits::{AT_HAND_BYTES, LOST_PULLS, PULL_BYTES, PULL_WAIT};
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
    /// Locked while the log is read: who brings a pull, or rings, must not wait for that.
    feed: Arc<tokio::sync::Mutex<State>>,
    arrived: Mutex<Arrived>,
    /// Partitions with something new.
    moved: Mutex<HashSet<PartitionId>>,
    changed: Notify,
}

/// Pulls in the order of their arrival that the feed has not seen yet.
#[derive(Default)]
struct Arrived {
    count: u64,
    pulls: Vec<(u64, Pull)>,
}

#[derive(Default)]
struct State {
    feed: Feed,
    /// Of the last pull that was taken in.
    session: u64,
    /// Its number: an earlier one is answered when a later one comes.
    pulls: u64,
    /// Pulls that were not the next of their session.
    lost: BTreeSet<u64>,
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
        let id = pull.session;
        let number = session.arrive(pull);
        Ok(async move {
            let answer = feeder.answer(&session, id, number).await;
            wire::write_answer(answer.as_ref().map(|answer| answer.parts.as_slice()))
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
            feed: Arc::default(),
            arrived: Mutex::default(),
            moved: Mutex::default(),
            changed: Notify::new(),
        });
        sessions.insert(follower, Arc::clone(&session));
        session
    }

    /// `None`: the pull is not the next one of its session, or another session has begun.
    async fn answer(&self, session: &Session, id: u64, number: u64) -> Option<Answer> {
        let until = Instant::now() + PULL_WAIT;
        loop {
            let changed = session.changed.notified();
            tokio::pin!(changed);
            // From here on no ring is missed.
            changed.as_mut().enable();
            let mut state = Arc::clone(&session.feed).lock_owned().await;
            state.take_in(session);
            if state.lost.remove(&number) || state.session != id {
                return None;
            }
            let source = Leader::of(&self.replicas, session.follower, false);
            let room = self.catch_up.room(PULL_BYTES);
            let mut answer = state.feed.answer(&source, PULL_BYTES, room);
            self.catch_up.take(caught_up(&source, &answer));
            if source.put_off.load(Ordering::Relaxed) {
                // Partitions that are written to all the time leave room for those that catch up.
                let left = PULL_BYTES.saturating_sub(answer.parts.iter().map(bytes).sum()).max(PULL_BYTES / 4);
                let patient = Leader::of(&self.replicas, session.follower, true);
                let more;
                (state, more) = read_from_disk(state, patient, left, self.catch_up.room(left)).await?;
                self.catch_up.take(caught_up(&source, &more));
                answer.parts.extend(more.parts);
                answer.agreed.extend(more.agreed);
            }
            let (superseded, throttled) = (state.pulls != number, state.feed.is_ready());
            drop(state);
            self.replicated(session.follower, session.incarnation, &answer.agreed).await;
            if !answer.parts.is_empty() || superseded || Instant::now() >= until {
                return Some(answer);
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

impl Session {
    /// Returns the pull's number.
    fn arrive(&self, pull: Pull) -> u64 {
        let mut arrived = lock(&self.arrived);
        arrived.count += 1;
        let number = arrived.count;
        arrived.pulls.push((number, pull));
        drop(arrived);
        self.changed.notify_waiters();
        number
    }
}

impl State {
    /// Takes in what has come since.
    fn take_in(&mut self, session: &Session) {
        let pulls = std::mem::take(&mut lock(&session.arrived).pulls);
        for (number, pull) in pulls {
            if self.feed.pull(&pull).is_ok() {
                (self.session, self.pulls) = (pull.session, number);
            } else {
                self.lost.insert(number);
            }
            // Whoever waited for those is gone with the connection.
            self.lost = self.lost.split_off(&number.saturating_sub(LOST_PULLS));
        }
        let moved = std::mem::take(&mut *lock(&session.moved));
        moved.into_iter().for_each(|id| self.feed.moved(id));
    }
}

/// Answers where waiting for the disk does no harm.
async fn read_from_disk(
    mut state: OwnedMutexGuard<State>,
    source: Leader,
    max_bytes: usize,
    room: usize,
) -> Option<(OwnedMutexGuard<State>, Answer)> {
    let read = move || {
        let answer = state.feed.answer(&source, max_bytes, room);
        (state, answer)
    };
    tokio::task::spawn_blocking(read).await.ok()
}

fn bytes(part: &Part) -> usize {
    match &part.body {
        PartBody::Batches { batches, .. } => batches.len(),
        _ => 0,
    }
}

/// Bytes that went to partitions of which the follower is not in sync.
fn caught_up(source: &Leader, answer: &Answer) -> usize {
    let lags = |part: &&Part| source.view(part.partition).is_some_and(|view| !view.in_sync);
    answer.parts.iter().filter(|part| bytes(part) > 0).filter(lags).map(bytes).sum()
}

/// This node's partitions as one follower is to see them.
struct Leader {
    replicas: Arc<Replicas>,
    follower: NodeId,
    may_block: bool,
    /// Something was not at hand.
    put_off: AtomicBool,
}

impl Leader {
    fn of(replicas: &Arc<Replicas>, follower: NodeId, may_block: bool) -> Leader {
        Leader { replicas: Arc::clone(replicas), follower, may_block, put_off: AtomicBool::new(false) }
    }
}

impl Source for Leader {
    fn view(&self, id: PartitionId) -> Option<View> {
        let Replica { partition, replicas, in_sync } = self.replicas.get(id)?;
        // What a follower says that the partition has not been told of would go unheard: it asks again in a moment.
        if !replicas.contains(&self.follower) {
            return None;
        }
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

    fn is_at_hand(&self, id: PartitionId, from: Offset) -> bool {
        let behind = || self.replicas.get(id).map_or(0, |replica| replica.partition.bytes_from(from));
        let is = self.may_block || behind() <= AT_HAND_BYTES;
        if !is {
            self.put_off.store(true, Ordering::Relaxed);
        }
        is
    }

    fn read(&self, id: PartitionId, from: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        let replica = self.replicas.get(id).ok_or_else(|| ReadError::Offline("not on this node".to_owned()))?;
        replica.partition.read_to_end(from, max_bytes).map(|fetched| fetched.batches)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
