//! Which session a client identifier has: a connected one, or a parked one that waits for its client to come back.
//!
//! A session has one owner at a time. A connection that claims an identifier in use asks its owner for the session; the owner
//! settles what it has appended, then hands the session over, so that the order of the device's records holds.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_log::Millis;
use tokio::sync::{Notify, oneshot};

use super::ownership::{Claim as Ownership, Owner};
use super::packet::{Text, Version, Will};
use super::session::Kept;

const SHARDS: usize = 64;

/// A session without a connection.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) kept: Kept,
    /// The name under which it is stored, and whose that is.
    pub(crate) scope: Text,
    pub(crate) owner: Option<Owner>,
    pub(crate) version: Version,
    /// When the session ends.
    pub(crate) expires_at: Millis,
    /// A delayed will and when it is due.
    pub(crate) will: Option<(Millis, Box<Will>)>,
}

impl Parked {
    fn deadline(&self) -> Millis {
        self.will.as_ref().map_or(self.expires_at, |(at, _)| self.expires_at.min(*at))
    }
}

/// A session with a connection, as others see it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) client_id: Text,
    pub(crate) transport: &'static str,
    pub(crate) address: String,
    pub(crate) version: Version,
    pub(crate) subscriptions: AtomicUsize,
    pub(crate) inflight: AtomicUsize,
    /// Somebody claims the session.
    pub(crate) claimed: Notify,
    heir: Mutex<Option<oneshot::Sender<Option<Box<Parked>>>>>,
    held: Mutex<Held>,
}

/// What a connection has of its session.
#[derive(Debug)]
struct Held {
    scope: Text,
    owner: Option<Owner>,
    /// It has the session; before, it only opens.
    begun: bool,
    lost: Option<Ownership>,
    /// Claims of other nodes that one of this node has followed since.
    overtaken: Vec<Owner>,
}

impl Live {
    pub(crate) fn new(client_id: Text, transport: &'static str, address: String, version: Version) -> Arc<Live> {
        let held = Held { scope: client_id.clone(), owner: None, begun: false, lost: None, overtaken: Vec::new() };
        Arc::new(Live {
            held: Mutex::new(held),
            client_id,
            transport,
            address,
            version,
            subscriptions: AtomicUsize::new(0),
            inflight: AtomicUsize::new(0),
            claimed: Notify::new(),
            heir: Mutex::new(None),
        })
    }

    /// The connection has its session.
    pub(crate) fn begin(&self, scope: Text, owner: Option<Owner>) {
        let mut held = lock(&self.held);
        (held.scope, held.owner, held.begun) = (scope, owner, true);
    }

    /// What is stored of the session goes now, and its claim with that.
    pub(crate) fn end(&self) {
        lock(&self.held).owner = None;
    }

    /// Claims of other nodes that are owed a release although one of this node has followed them.
    pub(crate) fn take_overtaken(&self) -> Vec<Owner> {
        std::mem::take(&mut lock(&self.held).overtaken)
    }

    /// The name under which the session is stored.
    pub(crate) fn scope(&self) -> Text {
        lock(&self.held).scope.clone()
    }

    /// Whose it is, as its claim says.
    pub(crate) fn owner(&self) -> Option<Owner> {
        lock(&self.held).owner
    }

    /// The claim of another node by which the session was lost.
    pub(crate) fn lost(&self) -> Option<Ownership> {
        lock(&self.held).lost
    }
}

enum Slot {
    Live(Arc<Live>),
    Parked(Box<Parked>),
}

/// What a claim finds.
pub(crate) enum Claim {
    Nothing,
    /// There is none, and no room for another.
    Full,
    Parked(Box<Parked>),
    /// The former owner hands the session over, or says that it ended.
    InUse(oneshot::Receiver<Option<Box<Parked>>>),
}

/// What a claim of another node has met here.
pub(crate) enum Met {
    /// A connection, which pays what is owed when it gives up the session.
    Live,
    Parked(Box<Parked>),
    Nothing,
}

/// What remains to be done of a session that was given up.
#[must_use]
pub(crate) struct Left {
    /// It is not to be kept here: it goes on where it was claimed, or ends there.
    pub(crate) lost: Option<(Box<Parked>, Ownership)>,
    /// Those that are owed a release.
    pub(crate) owed: Vec<Owner>,
}

/// What the sweep finds due.
pub(crate) enum Due {
    Will(Text, Box<Will>),
    /// The session ended; its will, if one was still to come, is due as well. The sweep owns it until its stored state is
    /// gone and it is released.
    Expired(Arc<Live>, Box<Parked>),
}

/// All sessions of a node by client identifier.
pub(crate) struct Registry {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<Text, Slot>>>,
    deadlines: Mutex<BTreeSet<(Millis, Text)>>,
    sessions: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            deadlines: Mutex::default(),
            sessions: AtomicUsize::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn shard(&self, client_id: &Text) -> MutexGuard<'_, HashMap<Text, Slot>> {
        lock(&self.shards[self.hasher.hash_one(client_id) as usize % SHARDS])
    }

    /// Sessions, connected or not.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Makes `live` the owner of its client identifier's session; `maximum`: of a session that would be new.
    pub(crate) fn claim(&self, live: &Arc<Live>, maximum: usize) -> Claim {
        let mut shard = self.shard(&live.client_id);
        match shard.insert(live.client_id.clone(), Slot::Live(live.clone())) {
            None => {
                if self.sessions.fetch_add(1, Ordering::Relaxed) < maximum {
                    return Claim::Nothing;
                }
                self.sessions.fetch_sub(1, Ordering::Relaxed);
                shard.remove(&live.client_id);
                Claim::Full
            }
            Some(Slot::Parked(parked)) => {
                lock(&self.deadlines).remove(&(parked.deadline(), live.client_id.clone()));
                Claim::Parked(parked)
            }
            Some(Slot::Live(owner)) => {
                let (heir, session) = oneshot::channel();
                *lock(&owner.heir) = Some(heir);
                owner.claimed.notify_one();
                Claim::InUse(session)
            }
        }
    }

    /// Gives up a session: hands it to the connection that claimed it, or parks it, unless another node has claimed it by now.
    /// `None`: the session has ended.
    pub(crate) fn release(&self, live: &Arc<Live>, session: Option<Box<Parked>>) -> Left {
        let mut shard = self.shard(&live.client_id);
        let (lost, mut owed) = {
            let mut held = lock(&live.held);
            (held.lost.take(), std::mem::take(&mut held.overtaken))
        };
        owed.extend(lost.map(|claim| claim.owner));
        let (stays, lost) = match lost {
            Some(claim) => (None, session.map(|session| (session, claim))),
            None => (session, None),
        };
        if matches!(shard.get(&live.client_id), Some(Slot::Live(owner)) if Arc::ptr_eq(owner, live)) {
            match stays {
                Some(parked) => self.park(&mut shard, live.client_id.clone(), parked),
                None => {
                    shard.remove(&live.client_id);
                    self.sessions.fetch_sub(1, Ordering::Relaxed);
                }
            }
        } else if let Some(heir) = lock(&live.heir).take() {
            // The heir waits for this; should it be gone, so is its session.
            let _ = heir.send(stays);
        }
        Left { lost, owed }
    }

    fn park(&self, shard: &mut HashMap<Text, Slot>, client_id: Text, parked: Box<Parked>) {
        lock(&self.deadlines).insert((parked.deadline(), client_id.clone()));
        shard.insert(client_id, Slot::Parked(parked));
    }

    /// Another node's connection has claimed the session; `owed`: right after this node.
    pub(crate) fn claimed_elsewhere(&self, client_id: &Text, claim: &Ownership, owed: bool) -> Met {
        let mut shard = self.shard(client_id);
        match shard.get(client_id) {
            Some(Slot::Live(live)) => {
                let mut held = lock(&live.held);
                // Later claims than the first are their predecessor's to release.
                if held.lost.is_none() && (held.begun || owed) {
                    held.lost = Some(*claim);
                    if held.begun {
                        live.claimed.notify_one();
                    }
                }
                Met::Live
            }
            Some(Slot::Parked(parked)) => {
                lock(&self.deadlines).remove(&(parked.deadline(), client_id.clone()));
                self.sessions.fetch_sub(1, Ordering::Relaxed);
                match shard.remove(client_id) {
                    Some(Slot::Parked(parked)) => Met::Parked(parked),
                    _ => Met::Nothing,
                }
            }
            None => Met::Nothing,
        }
    }

    /// A record of a connection of this node has followed: what had claimed the session before has lost it. A connection that
    /// has closed or closes for that one stays closed.
    pub(crate) fn claimed_here(&self, client_id: &Text) {
        if let Some(Slot::Live(live)) = self.shard(client_id).get(client_id) {
            let mut held = lock(&live.held);
            if !held.begun
                && let Some(claim) = held.lost.take()
            {
                held.overtaken.push(claim.owner);
            }
        }
    }

    /// Whose the session is that is here, and under which name it is stored.
    pub(crate) fn owner_here(&self, client_id: &Text) -> Option<(Owner, Text)> {
        match self.shard(client_id).get(client_id)? {
            Slot::Live(live) => {
                let held = lock(&live.held);
                held.owner.map(|owner| (owner, held.scope.clone()))
            }
            Slot::Parked(parked) => parked.owner.map(|owner| (owner, parked.scope.clone())),
        }
    }

    /// A session found in the stored state at start.
    pub(crate) fn restore(&self, client_id: Text, parked: Box<Parked>) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.park(&mut self.shard(&client_id), client_id.clone(), parked);
    }

    /// Delayed wills and expired sessions that are due, at most `limit`.
    pub(crate) fn due(&self, now: Millis, limit: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < limit {
            // Not locked across the shard: `claim` takes them in the other order.
            let client_id = {
                let mut deadlines = lock(&self.deadlines);
                match deadlines.first() {
                    Some((at, _)) if *at <= now => deadlines.pop_first().map(|(_, client_id)| client_id),
                    _ => None,
                }
            };
            let Some(client_id) = client_id else { break };
            let mut shard = self.shard(&client_id);
            match shard.remove(&client_id) {
                Some(Slot::Parked(parked)) if parked.expires_at <= now => {
                    let live = Live::new(client_id.clone(), "none", String::new(), parked.version);
                    shard.insert(client_id, Slot::Live(live.clone()));
                    due.push(Due::Expired(live, parked));
                }
                Some(Slot::Parked(mut parked)) => {
                    if parked.will.as_ref().is_some_and(|(at, _)| *at <= now)
                        && let Some((_, will)) = parked.will.take()
                    {
                        due.push(Due::Will(client_id.clone(), will));
                    }
                    self.park(&mut shard, client_id, parked);
                }
                // Claimed in between.
                Some(live @ Slot::Live(_)) => {
                    shard.insert(client_id, live);
                }
                None => {}
            }
        }
        due
    }

    /// Calls `visit` for up to `limit` sessions, connected ones with their `Live`.
    pub(crate) fn visit(&self, limit: usize, mut visit: impl FnMut(&Text, Result<&Live, &Parked>)) {
        let mut left = limit;
        for shard in &self.shards {
            for (client_id, slot) in lock(shard).iter().take(left) {
                left -= 1;
                match slot {
                    Slot::Live(live) => visit(client_id, Ok(live)),
                    Slot::Parked(parked) => visit(client_id, Err(parked)),
                }
            }
        }
    }
}
