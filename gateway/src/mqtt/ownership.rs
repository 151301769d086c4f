//! Whose a client's session is: one connection's, on one node, as `_mqtt_sessions` says to all nodes.
//!
//! A connection that wants a session writes a claim. When the claim has its place in the log, the owner before it has lost: its node
//! closes that connection, settles what it was appending, and writes a release; then the claimant takes the state, and stores it
//! under keys of its own, so that nothing the loser may still write is ever looked at. What tells that it has taken the state is that
//! its session is stored: were it a record for all claimants, one that comes late, from behind a cut, would bring a loser's state back.
//!
//! The latest record of a claim says whose the session is, and each claim waits for the one right before it alone. So a node owes one
//! release whenever a claim of another node follows a record of its own, whatever it has of the session just then: a connection, one
//! that only opens or already parts, a parked session, or nothing. It pays when all of that is settled; one that is only opening
//! first waits for the release that it is owed itself. Once in the log, a claim cannot be let go without that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_cluster::{Cluster, Writer};
use forebay_log::{AppendError, NodeId};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::packet::Text;
use super::session::session_key;
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
    pub(crate) number: u64,
}

/// Whose the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) owner: Owner,
    /// Who had it, as the claimant knew.
    pub(crate) from: Option<Owner>,
    /// Whose keys held the session's state when it was claimed; none: those of a node that was alone. See [`Claim::settled_under`].
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

/// Whose keys have this scoped name.
#[must_use]
pub(crate) fn state_of(scoped: &str) -> Option<Owner> {
    let mut parts = scoped.split_once('\0')?.1.splitn(3, '.');
    let mut next = || parts.next();
    let (node, incarnation, number) = (next()?, next()?, next()?);
    Some(Owner {
        node: NodeId(node.parse().ok()?),
        incarnation: incarnation.parse().ok()?,
        number: number.parse().ok()?,
    })
}

/// The client of a scoped name.
#[must_use]
pub(crate) fn client_of(scoped: &str) -> &str {
    scoped.split_once('\0').map_or(scoped, |(client, _)| client)
}

impl From<Owner> for Writer {
    fn from(owner: Owner) -> Writer {
        Writer { node: owner.node, incarnation: owner.incarnation, number: owner.number }
    }
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
    /// Whose keys hold the session's state now: the claimant's own once it has settled in.
    pub(crate) fn settled_under(&self, sessions: &StateTopic, client: &str) -> Option<Owner> {
        let own = session_key(scoped(client, Some(self.owner)).as_str());
        if sessions.get(&own).is_some() { Some(self.owner) } else { self.state }
    }

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
    /// The claim right before it.
    pub(crate) former: Option<Claim>,
    /// Whose keys held the state then.
    pub(crate) state: Option<Owner>,
    /// This node had the session, and no other has had it since.
    pub(crate) was_here: bool,
}

/// A claim that has its place in the log.
pub(crate) struct Claimed<'a> {
    opening: Guard<'a>,
    taken: Taken,
    release: oneshot::Receiver<()>,
}

/// A claim that is under way.
struct Opening {
    me: Owner,
    /// The claims on the session since it began, in the order of the log.
    seen: Vec<Claim>,
    released: Option<oneshot::Sender<()>>,
}

/// The nodes that have clients.
pub(crate) trait Members: Send + Sync {
    /// This node and its start.
    fn here(&self) -> (NodeId, u64);

    fn has_others(&self) -> bool;

    /// Whether that start of a node is up, as far as is known here.
    fn is_up(&self, owner: Owner) -> bool;
}

impl Members for Cluster {
    fn here(&self) -> (NodeId, u64) {
        (self.node(), self.incarnation().0)
    }

    fn has_others(&self) -> bool {
        self.metadata().borrow().image.nodes().len() > 1
    }

    fn is_up(&self, owner: Owner) -> bool {
        let metadata = self.metadata();
        let image = &metadata.borrow().image;
        let incarnation = image.node(owner.node).and_then(|node| node.incarnation());
        image.is_active(owner.node) && incarnation.is_some_and(|now| now.0 == owner.incarnation)
    }
}

/// This node among the owners of sessions.
pub(crate) struct Owners {
    members: Option<Box<dyn Members>>,
    next: AtomicU64,
    opening: Mutex<HashMap<Text, Opening>>,
    /// The clients whose latest record is of this node.
    ours: Mutex<HashSet<Text>>,
}

/// Ends an opening.
struct Guard<'a>(&'a Owners, &'a Text);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.opening().remove(self.1);
    }
}

impl Owners {
    /// Without members there is one node, for ever.
    pub(crate) fn new(members: Option<Box<dyn Members>>) -> Owners {
        Owners { members, next: AtomicU64::new(1), opening: Mutex::default(), ours: Mutex::default() }
    }

    fn opening(&self) -> MutexGuard<'_, HashMap<Text, Opening>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ours(&self) -> MutexGuard<'_, HashSet<Text>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other nodes have clients, too.
    pub(crate) fn has_others(&self) -> bool {
        self.members.as_ref().is_some_and(|members| members.has_others())
    }

    /// Whether a session is to be claimed. A node that is alone decides for itself, until others have come.
    pub(crate) fn must_claim(&self, sessions: &StateTopic, client: &str) -> bool {
        self.members.is_some() && (self.has_others() || sessions.get(&claim_key(client)).is_some())
    }

    pub(crate) fn is_here(&self, node: NodeId) -> bool {
        self.members.as_ref().is_some_and(|members| members.here().0 == node)
    }

    /// Whether that start of a node is up, as far as is known here.
    pub(crate) fn is_up(&self, owner: Owner) -> bool {
        self.members.as_ref().is_some_and(|members| members.is_up(owner))
    }

    /// A claim was applied: whether this node owes it a release. Called in the order of the log.
    pub(crate) fn applied(&self, client: &Text, claim: &Claim) -> bool {
        if let Some(opening) = self.opening().get_mut(client) {
            opening.seen.push(*claim);
        }
        if self.is_here(claim.owner.node) {
            self.ours().insert(client.clone());
            return false;
        }
        self.ours().remove(client)
    }

    /// A claim was removed.
    pub(crate) fn removed(&self, client: &Text) {
        self.ours().remove(client);
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

    /// Claims a client's session for a connection of this node. Of one client, one connection of this node at a time.
    ///
    /// # Errors
    /// The claim was not stored, as far as is known.
    pub(crate) async fn claim<'a>(
        &'a self,
        sessions: &StateTopic,
        client: &'a Text,
        clean: bool,
    ) -> Result<Claimed<'a>, AppendError> {
        let members = self.members.as_ref().ok_or(AppendError::Invalid("the node is not in a cluster"))?;
        let (node, incarnation) = members.here();
        let me = Owner { node, incarnation, number: self.next.fetch_add(1, Ordering::Relaxed) };
        let (released, release) = oneshot::channel();
        self.opening().insert(client.clone(), Opening { me, seen: Vec::new(), released: Some(released) });
        let opening = Guard(self, client);
        let key = claim_key(client.as_str());
        let before = sessions.get(&key).and_then(|value| Claim::decode(value).ok());
        let state_of = |claim: Option<Claim>| claim.and_then(|claim| claim.settled_under(sessions, client.as_str()));
        let (from, state) = (before.map(|claim| claim.owner), state_of(before));
        let claim = Claim { owner: me, from, state, clean };
        sessions.put(key.clone(), Some(claim.encode())).await?;
        let seen = self.opening().get(client).map(|opening| opening.seen.clone()).unwrap_or_default();
        let at = seen.iter().position(|claim| claim.owner == me).ok_or(AppendError::Closed)?;
        let former = at.checked_sub(1).and_then(|at| seen.get(at)).copied().or(before);
        let was_here = at == 0 && former.is_some_and(|former| former.owner.node == me.node);
        let state = state_of(former);
        if state != claim.state {
            // What came in between has moved the state. Whoever comes next has to find it.
            let claim = Claim { from: former.map(|former| former.owner), state, ..claim };
            sessions.put(key, Some(claim.encode())).await?;
        }
        Ok(Claimed { opening, taken: Taken { me, former, state, was_here }, release })
    }

    /// Waits until who had the session before has settled it, as long as that one is up and for a few seconds at most.
    pub(crate) async fn settled(&self, sessions: &StateTopic, claimed: Claimed<'_>) -> Taken {
        let Claimed { opening, taken, mut release } = claimed;
        let Some(former) = taken.former.filter(|former| former.owner.node != taken.me.node) else { return taken };
        let deadline = Instant::now() + RELEASE_PATIENCE;
        while (self.is_up(former.owner) || self.settles_for(sessions, opening.1, taken.me, &former))
            && Instant::now() < deadline
        {
            if timeout(LOOK_AGAIN, &mut release).await.is_ok() {
                break;
            }
        }
        taken
    }

    /// Whether the owner before one that has gone may still be settling: that one had claimed the session and not taken it.
    fn settles_for(&self, sessions: &StateTopic, client: &Text, me: Owner, gone: &Claim) -> bool {
        let has_settled = gone.settled_under(sessions, client.as_str()) == Some(gone.owner);
        let Some(from) = gone.from.filter(|from| !has_settled && from.node != me.node) else { return false };
        let released = sessions.get(&release_key(client.as_str())).and_then(|to| Owner::decode(to).ok());
        self.is_up(from) && released != Some(gone.owner)
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
        assert_eq!(names.map(|name| state_of(name.as_str())), [None, owner(1), owner(2)]);
    }
}
