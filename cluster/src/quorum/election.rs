//! When a voter asks to be elected: after the others have said that they would vote for it.
//!
//! openraft has no such question (Ongaro's thesis, 9.6), so its own election timer is off. Without asking, a node that
//! was cut off would return with a higher term and depose a leader that works. With it a hint that the leader is gone
//! can be acted upon at once: if it was wrong, the others say so, and nothing has changed.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Inner;
use super::limits;
use super::raft::LogId;
use super::transport::NodeId;
use super::wire::{self, Kind};

/// The question: would you vote for a node whose log ends here?
#[derive(Serialize, Deserialize)]
pub(super) struct PreVote {
    pub(super) last: Option<LogId>,
}

/// The answer to [`PreVote`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Would {
    Yes,
    /// Not before so many milliseconds: the leader is gone, but its lease is not over.
    Later(u64),
    No,
}

/// What a voter knows of its leader.
#[derive(Default)]
pub(super) struct Election {
    seen: Mutex<Seen>,
    hinted: Notify,
    heard: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// When a leader was last heard from that a majority answers.
    at: Option<Instant>,
    /// Since then somebody has said that it is gone.
    gone: bool,
    /// When any leader was last heard from: openraft's lease runs from here.
    lease: Option<Instant>,
    /// Until then a leader that is deaf is not listened to, so that its lease can end.
    shut: Option<Instant>,
}

impl Election {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `deaf`: it sends, but no majority's answers reach it. Waiting for it would be waiting for ever.
    pub(super) fn heard_from_leader(&self, deaf: bool) {
        let (mut seen, now) = (self.seen(), Instant::now());
        seen.lease = Some(now);
        if !deaf {
            *seen = Seen { at: Some(now), gone: false, lease: Some(now), shut: None };
            self.heard.notify_one();
        }
    }

    /// Returns when a leader was heard from.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }

    pub(super) fn heard_within(&self, time: Duration) -> bool {
        self.seen().at.is_some_and(|at| at.elapsed() <= time)
    }

    /// Whether a deaf leader is listened to: unless another one is about to be elected. If none can be, because the deaf
    /// one's log is needed, it has to be heard and answered to lead again.
    pub(super) fn listens_to_deaf(&self) -> bool {
        self.seen().shut.is_none_or(|until| until < Instant::now())
    }

    pub(super) fn leader_gone(&self) {
        self.seen().gone = true;
        self.hinted.notify_one();
    }
}

/// A random time from `from` on and below `to`.
fn between(from: Duration, to: Duration) -> Duration {
    let bits = RandomState::new().build_hasher().finish();
    let span = u64::try_from(to.saturating_sub(from).as_micros()).unwrap_or(u64::MAX).max(1);
    from + Duration::from_micros(bits % span)
}

impl Inner {
    /// Whether this node would vote for one whose log ends at `last`.
    pub(super) fn would_vote(&self, last: Option<LogId>) -> Would {
        if self.has_stopped() || last < self.log.memory().last() || self.leadership().leader == Some(self.options.node)
        {
            return Would::No;
        }
        let lease = self.options.timings.lease;
        let mut seen = self.election.seen();
        let left = |since: Option<Instant>| since.map_or(Duration::ZERO, |at| lease.saturating_sub(at.elapsed()));
        if !seen.gone && !left(seen.at).is_zero() {
            return Would::No;
        }
        let left = left(seen.lease);
        seen.shut = Some(Instant::now() + left + lease);
        if left.is_zero() { Would::Yes } else { Would::Later(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// Asks for elections when they are due; for ever.
    pub(super) async fn run_elections(self: Arc<Inner>) {
        let timings = self.options.timings;
        let timeout = || between(timings.election_min, timings.election_max);
        // A node that starts has no leader to wait for; whether the others have one they will say.
        let mut due = Instant::now() + between(timings.heartbeat * 2, timings.election_min);
        let mut patience = timeout();
        loop {
            let hinted = tokio::select! {
                () = tokio::time::sleep_until(due) => false,
                () = self.election.hinted.notified() => true,
            };
            let now = Instant::now();
            if !self.may_elect().await {
                due = now + patience;
                continue;
            }
            let Seen { at, gone, .. } = *self.election.seen();
            if hinted {
                due = now + between(Duration::ZERO, limits::HINT_JITTER);
            } else if let Some(at) = at.filter(|at| !gone && now < *at + patience) {
                due = at + patience;
            } else {
                let pause = match self.ask().await {
                    Would::Yes => {
                        tracing::debug!("asking to be elected");
                        let _ = self.raft().trigger().elect().await;
                        between(timings.lease / 2, timings.lease)
                    }
                    Would::Later(millis) => {
                        Duration::from_millis(millis + 1) + between(Duration::ZERO, limits::HINT_JITTER)
                    }
                    Would::No => between(timings.heartbeat, timings.heartbeat * 2),
                };
                patience = timeout();
                due = Instant::now() + pause;
            }
        }
    }

    /// Whether this node is a voter that does not lead. A node of a quorum that has not begun begins it.
    async fn may_elect(&self) -> bool {
        if self.has_stopped() {
            return false;
        }
        let (follows, voter) = {
            let running = self.running.load();
            let metrics = running.metrics.borrow();
            let voter = metrics.membership_config.voter_ids().any(|id| id == self.options.node);
            (metrics.state != ServerState::Leader, voter)
        };
        if !voter && self.options.voters.contains_key(&self.options.node) {
            self.running.load_full().begin(&self.options).await;
        }
        follows && voter
    }

    /// Asks all other voters at once.
    async fn ask(&self) -> Would {
        let last = self.log.memory().last();
        let Ok(request) = wire::request(Kind::PreVote, &PreVote { last }, &[]) else { return Would::No };
        let running = self.running.load_full();
        let configs: Vec<BTreeSet<NodeId>> =
            running.metrics.borrow().membership_config.membership().get_joint_config().clone();
        let me = self.options.node;
        let mut asked = JoinSet::new();
        for id in configs.iter().flatten().copied().filter(|id| *id != me).collect::<BTreeSet<_>>() {
            let (transport, request, timeout) =
                (Arc::clone(&running.peers.transport), request.clone(), self.options.timings.heartbeat * 2);
            asked.spawn(async move { (id, transport.call(id, request, timeout).await) });
        }
        let (mut yes, mut later, mut longest) = (BTreeSet::from([me]), BTreeSet::from([me]), 0);
        while let Some(answer) = asked.join_next().await {
            let Ok((id, Ok(answer))) = answer else { continue };
            match wire::open_answer(&answer) {
                Ok(Would::Yes) => yes.insert(id) && later.insert(id),
                Ok(Would::Later(millis)) => {
                    longest = longest.max(millis);
                    later.insert(id)
                }
                _ => false,
            };
            if is_majority(&configs, &yes) {
                return Would::Yes;
            }
        }
        if is_majority(&configs, &later) { Would::Later(longest) } else { Would::No }
    }
}

/// Whether `those` are more than half of each set of voters; there are two while the voters change.
fn is_majority(configs: &[BTreeSet<NodeId>], those: &BTreeSet<NodeId>) -> bool {
    configs.iter().all(|voters| voters.intersection(those).count() > voters.len() / 2)
}
