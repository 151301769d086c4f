//! Whose a client's session is: one connection's, on one node, as `_mqtt_sessions` says to all nodes.
//!
//! A connection that wants a session writes a claim. When the claim has its place in the log, the owner before it has lost: its node
//! closes that connection, settles what it was appending, and writes a release; then the claimant takes the state, and stores it
//! under keys of its own, so that nothing the loser may still write is ever looked at.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_cluster::Cluster;
use forebay_log::{AppendError, NodeId};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::packet::Text;
use super::session::stored::{EntryProblem, FORMAT, expect_format, put_format};
use crate::state::StateTopic;

/// How long a claimant waits for the node that had the session, as long as that one is up.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether that one still is.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A connection of a client, or what it has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) node: NodeId,
    /// Of the node's start.
    pub(crate) incarnation: u64,
    number: u64,
}

/// Whose the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) owner: Owner,
    /// Who had it, as the claimant knew.
    pub(crate) from: Option<Owner>,
    /// Whose keys hold the session's state; none: those of a node that was alone.
    pub(crate) state: Option<Owner>,
    /// The former session ends (Clean Start).
    pub(crate) clean: bool,
}

/// The key of a client's claim.
#[must_use]
pub(crate) fn claim_key(client: &str) -> Bytes {
    Bytes::from(format!("o/{client}"))
}

/// The key of the release that a claimant waits for.
#[must_use]
pub(crate) fn release_key(client: &str) -> Bytes {
    Bytes::from(format!("r/{client}"))
}

/// The name under which a session's state is stored. Client identifiers hold no zero byte [MQTT-1.5.4-2].
#[must_use]
pub(crate) fn scoped(client: &str, state: Option<Owner>) -> Text {
    match state {
        None => Text::from(client),
        Some(Owner { node, incarnation, number }) => {
            Text::from(format!("{client}\0{}.{incarnation}.{number}", node.0).as_str())
        }
    }
}

/// The client of a scoped name.
#[must_use]
pub(crate) fn client_of(scoped: &str) -> &str {
    scoped.split_once('\0').map_or(scoped, |(client, _)| client)
}

impl Owner {
    fn put(self, out: &mut BytesMut) {
        out.put_i32(self.node.0);
        out.put_u64(self.incarnation);
        out.put_u64(self.number);
    }

    fn take(value: &mut Bytes) -> Result<Owner, EntryProblem> {
        if value.len() < 20 {
            return Err(EntryProblem::Damaged);
        }
        Ok(Owner { node: NodeId(value.get_i32()), incarnation: value.get_u64(), number: value.get_u64() })
    }

    /// The value of a release for this claimant.
    #[must_use]
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        put_format(FORMAT, &mut out);
        self.put(&mut out);
        out.freeze()
    }

    fn decode(mut value: Bytes) -> Result<Owner, EntryProblem> {
        expect_format(FORMAT, &mut value)?;
        Owner::take(&mut value)
    }
}

impl Claim {
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_format(FORMAT, &mut out);
        out.put_u8(u8::from(self.clean));
        self.owner.put(&mut out);
        for other in [self.from, self.state] {
            out.put_u8(u8::from(other.is_some()));
            if let Some(other) = other {
                other.put(&mut out);
            }
        }
        out.freeze()
    }

    /// # Errors
    /// When the value was written by a later version or is damaged.
    pub(crate) fn decode(mut value: Bytes) -> Result<Claim, EntryProblem> {
        expect_format(FORMAT, &mut value)?;
        let damaged = |_| EntryProblem::Damaged;
        let clean = value.try_get_u8().map_err(damaged)? != 0;
        let owner = Owner::take(&mut value)?;
        let mut other = || match value.try_get_u8().map_err(damaged)? {
            0 => Ok(None),
            _ => Owner::take(&mut value).map(Some),
        };
        Ok(Claim { owner, from: other()?, state: other()?, clean })
    }
}

/// What a claim has brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) me: Owner,
    /// Whose keys hold the state.
    pub(crate) state: Option<Owner>,
    /// This node had the session, and no other has had it since.
    pub(crate) was_here: bool,
}

/// Why a claim has brought nothing.
#[derive(Debug)]
pub(crate) enum NotTaken {
    Refused(AppendError),
    /// Another connection claimed the session meanwhile: it is owed a release.
    Lost(Owner),
}

/// A claim that is under way.
struct Opening {
    me: Owner,
    /// The claims on the session since it began, in the order of the log.
    seen: Vec<Claim>,
    released: Option<oneshot::Sender<()>>,
}

/// This node among the owners of sessions.
pub(crate) struct Owners {
    cluster: Option<Cluster>,
    next: AtomicU64,
    opening: Mutex<HashMap<Text, Opening>>,
}

/// Ends an opening.
struct Guard<'a>(&'a Owners, &'a Text);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.opening().remove(self.1);
    }
}

impl Owners {
    pub(crate) fn new(cluster: Option<Cluster>) -> Owners {
        Owners { cluster, next: AtomicU64::new(1), opening: Mutex::default() }
    }

    fn opening(&self) -> MutexGuard<'_, HashMap<Text, Opening>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other nodes have clients, too.
    pub(crate) fn has_others(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.metadata().borrow().image.nodes().len() > 1)
    }

    /// Whether a session is to be claimed. A node that is alone decides for itself, until others have come.
    pub(crate) fn must_claim(&self, sessions: &StateTopic, client: &str) -> bool {
        self.cluster.is_some() && (self.has_others() || sessions.get(&claim_key(client)).is_some())
    }

    pub(crate) fn is_here(&self, node: NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.node() == node)
    }

    /// Whether that start of a node is up, as far as is known here.
    pub(crate) fn is_up(&self, owner: Owner) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| {
            let metadata = cluster.metadata();
            let image = &metadata.borrow().image;
            let incarnation = image.node(owner.node).and_then(|node| node.incarnation());
            image.is_active(owner.node) && incarnation.is_some_and(|now| now.0 == owner.incarnation)
        })
    }

    /// A change of a claim or a release was applied. Called in the order of the log.
    pub(crate) fn applied(&self, client: &Text, claim: &Claim) {
        if let Some(opening) = self.opening().get_mut(client) {
            opening.seen.push(*claim);
        }
    }

    /// A release was applied.
    pub(crate) fn released(&self, client: &Text, value: Bytes) {
        if let (Ok(to), Some(opening)) = (Owner::decode(value), self.opening().get_mut(client))
            && opening.me == to
            && let Some(released) = opening.released.take()
        {
            // The claimant may have given up.
            let _ = released.send(());
        }
    }

    /// Claims a client's session for a connection of this node, and waits until who had it has settled it. Of one client, one
    /// connection of this node at a time.
    pub(crate) async fn take(&self, sessions: &StateTopic, client: &Text, clean: bool) -> Result<Taken, NotTaken> {
        let Some(cluster) = &self.cluster else {
            return Err(NotTaken::Refused(AppendError::Invalid("the node is not in a cluster")));
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let me = Owner { node: cluster.node(), incarnation: cluster.incarnation().0, number };
        let (released, release) = oneshot::channel();
        self.opening().insert(client.clone(), Opening { me, seen: Vec::new(), released: Some(released) });
        let guard = Guard(self, client);
        let key = claim_key(client.as_str());
        let before = sessions.get(&key).and_then(|value| Claim::decode(value).ok());
        let (from, state) = (before.map(|claim| claim.owner), before.and_then(|claim| claim.state));
        let claim = Claim { owner: me, from, state, clean };
        sessions.put(key, Some(claim.encode())).await.map_err(NotTaken::Refused)?;
        let seen = self.opening().get(client).map(|opening| opening.seen.clone()).unwrap_or_default();
        let Some(at) = seen.iter().position(|claim| claim.owner == me) else {
            return Err(NotTaken::Refused(AppendError::Closed));
        };
        if let Some(later) = seen.get(at + 1) {
            return Err(NotTaken::Lost(later.owner));
        }
        let former = at.checked_sub(1).and_then(|at| seen.get(at)).copied().or(before);
        let was_here = at == 0 && former.is_some_and(|former| former.owner.node == me.node);
        if let Some(former) = former.map(|former| former.owner).filter(|former| former.node != me.node) {
            self.await_release(former, release).await;
        }
        drop(guard);
        Ok(Taken { me, state: former.and_then(|former| former.state), was_here })
    }

    async fn await_release(&self, former: Owner, mut release: oneshot::Receiver<()>) {
        let deadline = Instant::now() + RELEASE_PATIENCE;
        while self.is_up(former) && Instant::now() < deadline {
            if timeout(LOOK_AGAIN, &mut release).await.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_back_and_damage_is_refused() {
        let owner = |node| Owner { node: NodeId(node), incarnation: 1 << 40, number: 7 };
        for (from, state) in [(None, None), (Some(owner(2)), None), (Some(owner(2)), Some(owner(3)))] {
            let claim = Claim { owner: owner(1), from, state, clean: state.is_none() };
            let value = claim.encode();
            assert_eq!(Claim::decode(value.clone()), Ok(claim));
            for cut in 0..value.len() {
                assert!(Claim::decode(value.slice(..cut)).is_err());
            }
        }
        assert_eq!(Owner::decode(owner(4).encode()), Ok(owner(4)));
    }

    #[test]
    fn each_owner_has_keys_of_its_own_and_they_name_the_client() {
        let owner = |number| Some(Owner { node: NodeId(1), incarnation: 2, number });
        let names = [None, owner(1), owner(2)].map(|state| scoped("a/b", state));
        assert!(names[0] != names[1] && names[1] != names[2]);
        assert!(names.iter().all(|name| client_of(name.as_str()) == "a/b"));
    }
}
