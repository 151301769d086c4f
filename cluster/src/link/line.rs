//! One lane to one peer: dials, keeps the link while it is up, and dials again.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::dial::{DialError, Dialled, Dialler};
use super::error::LinkError;
use super::identity::{Lane, NodeId};
use super::limits::{Options, STABLE_LINK};
use super::live::Link;
use super::state::PeerState;

/// A link, or why there is none.
type Current = Result<Link, Arc<str>>;

/// The lane as requests see it.
#[derive(Clone)]
pub(super) struct Line {
    node: NodeId,
    current: watch::Receiver<Current>,
    wanted: Arc<Notify>,
}

/// The task that keeps it.
pub(super) struct Keeper {
    pub(super) dialler: Arc<Dialler>,
    pub(super) node: NodeId,
    pub(super) lane: Lane,
    pub(super) address: watch::Receiver<String>,
    /// Told by the control lane only.
    pub(super) state: Option<watch::Sender<PeerState>>,
    pub(super) stop: CancellationToken,
}

/// What a lane does after a link or an attempt at one.
enum Next {
    /// Again at once.
    Dial,
    Pause,
    /// It will not be better soon.
    LongPause,
    Stop,
}

impl Line {
    /// The link that is up, or the next one that will be.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Link, LinkError> {
        self.wanted.notify_one();
        let mut current = self.current.clone();
        let up = current.wait_for(|current| current.as_ref().is_ok_and(|link| !link.is_ended()));
        match timeout_at(deadline, up).await {
            Ok(Ok(current)) => current.clone().map_err(|why| self.none(&why)),
            Ok(Err(_)) => Err(self.none("it is a peer no longer")),
            Err(_) => {
                let why = self.current.borrow().as_ref().map_or_else(Arc::clone, |link| link.why());
                Err(self.none(&why))
            }
        }
    }

    fn none(&self, why: &str) -> LinkError {
        LinkError::NotSent(format!("no link to node {}: {why}", self.node))
    }
}

impl Keeper {
    /// Starts the task. The control lane dials at once, the others when they are first wanted.
    pub(super) fn start(self) -> Line {
        let (sender, current) = watch::channel(Err(Arc::from("not connected yet")));
        let line = Line { node: self.node, current, wanted: Arc::default() };
        let wanted = line.wanted.clone();
        tokio::spawn(async move {
            let stop = self.stop.clone();
            stop.run_until_cancelled(Box::pin(self.run(sender, wanted))).await;
        });
        line
    }

    async fn run(mut self, current: watch::Sender<Current>, wanted: Arc<Notify>) {
        if self.lane != Lane::Control {
            wanted.notified().await;
        }
        let mut backoff = Backoff::new(&self.dialler.options);
        loop {
            let address = self.address.borrow_and_update().clone();
            let attempt = tokio::select! {
                attempt = Box::pin(self.dialler.dial(self.node, self.lane, &address)) => attempt,
                changed = self.address.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let next = match attempt {
                Ok(dialled) => self.keep(dialled, &current).await,
                Err(error) => self.failed(&error, &address, &current),
            };
            let pause = match next {
                Next::Dial => {
                    backoff = Backoff::new(&self.dialler.options);
                    continue;
                }
                Next::Pause => backoff.next(),
                Next::LongPause => backoff.longest(),
                Next::Stop => return,
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.address.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Has a link until it ends.
    async fn keep(&mut self, dialled: Dialled, current: &watch::Sender<Current>) -> Next {
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let removed = stop.clone().drop_guard();
        let incarnation = dialled.peer.identity.incarnation;
        debug!(node = self.node, lane = ?self.lane, incarnation, "link up");
        let (link, driver) = Link::start(self.dialler.local.clone(), dialled, &self.dialler.options, stop);
        // A task of its own: answers may still come while the next link is made.
        tokio::spawn(driver);
        drop(current.send_replace(Ok(link.clone())));
        if let Some(state) = &self.state {
            state.send_replace(PeerState::Up { incarnation });
        }
        let moved = tokio::select! {
            () = link.ended() => None,
            moved = self.address.changed() => Some(moved),
        };
        let (why, next) = match moved {
            None => {
                // Answers may still come.
                removed.disarm();
                (link.why(), if began.elapsed() >= STABLE_LINK { Next::Dial } else { Next::Pause })
            }
            Some(Ok(())) => (Arc::from("its address has changed"), Next::Dial),
            Some(Err(_)) => return Next::Stop,
        };
        debug!(node = self.node, lane = ?self.lane, why = &*why, "link down");
        self.down(false, &why, current);
        next
    }

    fn failed(&self, error: &DialError, address: &str, current: &watch::Sender<Current>) -> Next {
        let (node, why) = (self.node, &error.why);
        if let Some(suppressed) = self.dialler.local.dials.admit(&format!("{node} {address} {why}")) {
            warn!(node, address, suppressed, "no link to this node: {why}");
        }
        self.down(error.nobody, why, current);
        if error.refusal.is_some() { Next::LongPause } else { Next::Pause }
    }

    fn down(&self, refused: bool, why: &str, current: &watch::Sender<Current>) {
        drop(current.send_replace(Err(why.into())));
        if let Some(state) = &self.state {
            state.send_if_modified(|state| {
                let down = state.down(refused, why);
                let news = *state != down;
                *state = down;
                news
            });
        }
    }
}

/// Pauses that grow, each somewhere between half of its length and all of it, so that nodes do not dial in step.
struct Backoff {
    pause: Duration,
    max: Duration,
}

impl Backoff {
    fn new(options: &Options) -> Backoff {
        Backoff { pause: options.backoff_min, max: options.backoff_max }
    }

    fn next(&mut self) -> Duration {
        let pause = self.pause.min(self.max);
        self.pause = pause.saturating_mul(2);
        jittered(pause)
    }

    fn longest(&self) -> Duration {
        jittered(self.max)
    }
}

fn jittered(pause: Duration) -> Duration {
    // The keys of the standard library's hasher are random.
    let part = (RandomState::new().hash_one(0_u8) % 1000) as u32;
    pause / 2 + pause / 2000 * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let options = Options { backoff_min: min, backoff_max: max, ..Options::default() };
        let mut backoff = Backoff::new(&options);
        for most in [50, 100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let pause = backoff.next();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
        }
        let some: std::collections::HashSet<_> = (0..50).map(|_| backoff.longest()).collect();
        assert!(some.len() > 10, "no jitter");
    }
}
