//! Sessions as `_mqtt_sessions` has them: loaded at a start, taken over from other nodes, let go, and removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_log::partition::believable;
use forebay_log::{AppendError, Millis};
use tokio::time::Instant;

use super::Broker;
use super::SESSIONS_TOPIC;
use super::intents::{self, Mark, Receipts};
use super::limits::{ORPHANS_INTERVAL, SWEEP_BATCH};
use super::ownership::{Claim, NotTaken, Owner, claim_key, client_of, release_key, scoped};
use super::packet::Text;
use super::registry::{Live, Met, Parked};
use super::session::stored::EntryProblem;
use super::session::{Accepted, Cursors, Entry, Kept, cursor_key, intent_key, session_key};
use crate::state::Change;

/// Since when sessions are known to be nobody's that were connected when their node went.
#[derive(Default)]
pub(super) struct Orphans {
    looked: Option<Instant>,
    since: BTreeMap<Bytes, Millis>,
}

/// A session that was taken for a connection.
pub(super) struct TakenOver {
    pub(super) kept: Kept,
    pub(super) present: bool,
    pub(super) is_stored: bool,
}

impl Broker {
    fn claim_of(&self, client: &str) -> Option<Claim> {
        Claim::decode(self.sessions.get(&claim_key(client))?).ok()
    }

    /// Whether the session that is stored under this name was parked or connected here.
    fn is_mine(&self, name: &str) -> bool {
        match self.claim_of(client_of(name)) {
            Some(claim) => {
                self.owners.is_here(claim.owner.node) && scoped(client_of(name), claim.state).as_str() == name
            }
            None => client_of(name) == name && !self.owners.has_others(),
        }
    }

    /// Loads the sessions that this node had.
    ///
    /// # Errors
    /// When what became of exactly-once publishes could not be stored.
    pub(super) async fn load_sessions(&self) -> Result<(), AppendError> {
        let mut receipts =
            intents::resolve(&self.sessions, &self.log, &self.reader, "", |name| self.is_mine(name)).await?;
        for (key, value) in self.sessions.scan(b"s/") {
            let Some(name) = key.get(2..).and_then(|name| std::str::from_utf8(name).ok()) else { continue };
            if !self.is_mine(name) {
                continue;
            }
            let owner = self.claim_of(client_of(name)).map(|claim| claim.owner);
            if let Some(parked) = self.read_stored(name, owner, value, receipts.remove(name).unwrap_or_default()) {
                self.registry.restore(Text::from(client_of(name)), Box::new(parked));
            }
        }
        self.metrics.mqtt.sessions.set(self.registry.sessions() as i64);
        Ok(())
    }

    fn read_stored(&self, name: &str, owner: Option<Owner>, entry: Bytes, receipts: Receipts) -> Option<Parked> {
        let (now, client) = (self.clock.now(), client_of(name));
        let entry = match Entry::decode(entry) {
            Ok(entry) => entry,
            Err(problem) => {
                tracing::warn!(client, %problem, "cannot read a stored session");
                return None;
            }
        };
        let mut kept = Kept { subscriptions: entry.subscriptions, ..Kept::default() };
        match self.sessions.get(&cursor_key(name)).map(Cursors::decode) {
            Some(Ok(cursors)) => kept.cursors = cursors,
            Some(Err(problem @ EntryProblem::Format(_))) => {
                tracing::warn!(client, %problem,
                    "cannot read a stored session's cursors: it gets what comes from now on");
                kept.cursors = self.hub.ends();
            }
            Some(Err(problem)) => {
                tracing::warn!(client, %problem,
                    "cannot read a stored session's cursors: it gets all that the log still has");
            }
            None => {}
        }
        let Receipts { received, unsettled } = receipts;
        received.into_iter().for_each(|(stream, packet_id)| kept.inbound.restore(stream, packet_id));
        unsettled.into_iter().for_each(|(stream, packet_id)| kept.inbound.restore_unsettled(stream, packet_id));
        // One that was connected when the node stopped ages from now, and one whose time a wrong clock has given.
        let since = entry.disconnected_at.map_or(now, |at| believable(at, now).min(now));
        let expires_at = Millis(since.0 + i64::from(entry.expiry) * 1000);
        Some(Parked { kept, scope: Text::from(name), owner, version: entry.version, expires_at, will: None })
    }

    /// Follows who owns which session.
    pub(super) fn follow_owners(self: &Arc<Self>) {
        let broker = Arc::downgrade(self);
        self.sessions.observe(move |changes| {
            let Some(broker) = broker.upgrade() else { return };
            for (key, value) in changes {
                let kind = key.get(..2);
                let Some(client) = key.get(2..).and_then(|id| Text::new(Bytes::copy_from_slice(id))) else { continue };
                match (kind, value) {
                    (Some(b"o/"), Some(value)) => match Claim::decode(value.clone()) {
                        Ok(claim) => broker.claimed(client, claim),
                        Err(problem) => {
                            tracing::warn!(client = client.as_str(), %problem, "cannot read whose a session is");
                        }
                    },
                    (Some(b"o/"), None) => broker.claim_removed(client),
                    (Some(b"r/"), Some(value)) => broker.owners.released(&client, value.clone()),
                    _ => {}
                }
            }
        });
    }

    fn claimed(self: &Arc<Self>, client: Text, claim: Claim) {
        self.owners.applied(&client, &claim);
        // Connections of this node hand their sessions over by the registry.
        if self.owners.is_here(claim.owner.node) {
            return;
        }
        let met = self.registry.claimed_elsewhere(&client, &claim);
        let was_here = claim.from.is_some_and(|from| self.owners.is_here(from.node));
        let parked = match met {
            Met::Live => return,
            Met::Nothing if !was_here => return,
            Met::Nothing => None,
            Met::Parked(parked) => Some(parked),
        };
        self.metrics.mqtt.sessions.set(self.registry.sessions() as i64);
        let broker = self.clone();
        tokio::spawn(async move {
            if let Some(mut parked) = parked {
                broker.unpark(&parked.kept);
                // The session goes on elsewhere [MQTT-3.1.3-9], unless it was ended there.
                if let Some((_, will)) = parked.will.take().filter(|_| claim.clean) {
                    broker.publish_will(&client, *will).await;
                }
            }
            broker.release_to(&client, claim.owner).await;
        });
    }

    /// Whoever swept it away did not know of the connection that has it.
    fn claim_removed(self: &Arc<Self>, client: Text) {
        let Some(owner) = self.registry.owner_here(&client) else { return };
        let broker = self.clone();
        tokio::spawn(async move {
            if broker.claim_of(client.as_str()).is_none() && broker.registry.owner_here(&client) == Some(owner) {
                let claim = Claim { owner, from: None, state: Some(owner), clean: false };
                if let Err(error) = broker.sessions.put(claim_key(client.as_str()), Some(claim.encode())).await {
                    tracing::warn!(client = client.as_str(), %error, "the owner of a session is not stored");
                }
            }
        });
    }

    /// Tells the claimant that nothing more is on its way from here.
    pub(super) async fn release_to(&self, client: &Text, to: Owner) {
        if let Err(error) = self.sessions.put(release_key(client.as_str()), Some(to.encode())).await {
            tracing::warn!(client = client.as_str(), %error, "the new owner of a session is not told that it is settled");
        }
    }

    /// Takes a client's session for a connection: from this node, from another, or from one that is gone. `parked` is what was here.
    ///
    /// # Errors
    /// Why there is none. The connection gives up its place in the registry.
    pub(super) async fn take_over(
        &self,
        live: &Arc<Live>,
        wanted: &Accepted,
        parked: Option<Box<Parked>>,
    ) -> Result<TakenOver, AppendError> {
        let client = &wanted.client_id;
        let elsewhere = || AppendError::Offline("another connection has the session by now".to_owned());
        let taken = match self.owners.take(&self.sessions, client, wanted.clean_start).await {
            Ok(taken) => taken,
            Err(NotTaken::Refused(error)) => {
                self.registry.release(live, parked);
                return Err(error);
            }
            Err(NotTaken::Lost(to)) => {
                self.let_go(live, parked.as_deref(), client, to).await;
                return Err(elsewhere());
            }
        };
        if let Some(to) = self.claimed_after(client, taken.me) {
            self.let_go(live, parked.as_deref(), client, to).await;
            return Err(elsewhere());
        }
        let former = scoped(client.as_str(), taken.state);
        let here = parked.as_ref().filter(|_| taken.was_here).is_some();
        if let Some(parked) = &parked {
            self.unpark(&parked.kept);
        }
        let found = if here { Ok(parked) } else { self.load_one(&former).await };
        let stored = match found {
            Ok(found) => self.settle_in(wanted, taken.me, &former, found).await,
            Err(error) => Err(error),
        };
        let taken_over = match stored {
            Ok(taken_over) => taken_over,
            Err(error) => {
                self.registry.release(live, None);
                return Err(error);
            }
        };
        live.begin(scoped(client.as_str(), Some(taken.me)), Some(taken.me));
        match self.claimed_after(client, taken.me) {
            Some(to) => {
                self.let_go(live, None, client, to).await;
                Err(elsewhere())
            }
            None => Ok(taken_over),
        }
    }

    /// The owner of a later claim than this one.
    fn claimed_after(&self, client: &Text, me: Owner) -> Option<Owner> {
        self.claim_of(client.as_str()).map(|claim| claim.owner).filter(|owner| *owner != me)
    }

    async fn let_go(&self, live: &Arc<Live>, parked: Option<&Parked>, client: &Text, to: Owner) {
        if let Some(parked) = parked {
            self.unpark(&parked.kept);
        }
        self.registry.release(live, None);
        self.release_to(client, to).await;
    }

    async fn load_one(&self, name: &Text) -> Result<Option<Box<Parked>>, AppendError> {
        let Some(entry) = self.sessions.get(&session_key(name.as_str())) else { return Ok(None) };
        let mut receipts =
            intents::resolve(&self.sessions, &self.log, &self.reader, name.as_str(), |found| found == name.as_str())
                .await?;
        let receipts = receipts.remove(name.as_str()).unwrap_or_default();
        Ok(self.read_stored(name.as_str(), None, entry, receipts).map(Box::new))
    }

    /// Stores what the new owner begins with under its own keys, and removes the former one's, in one batch.
    async fn settle_in(
        &self,
        wanted: &Accepted,
        me: Owner,
        former: &Text,
        found: Option<Box<Parked>>,
    ) -> Result<TakenOver, AppendError> {
        let client = wanted.client_id.as_str();
        let present = !wanted.clean_start && found.as_ref().is_some_and(|found| self.clock.now() < found.expires_at);
        let (kept, will) = found.map_or_else(Default::default, |found| (found.kept, found.will));
        let kept = if present { kept } else { Kept::default() };
        let mut changes = self.removals(former.as_str());
        let is_stored = wanted.expiry > 0;
        if is_stored {
            let name = scoped(client, Some(me));
            let subscriptions = kept.subscriptions.clone();
            let entry = Entry { version: wanted.version, expiry: wanted.expiry, disconnected_at: None, subscriptions };
            changes.push((session_key(name.as_str()), Some(entry.encode())));
            if !kept.subscriptions.is_empty() {
                let mut cursors = kept.cursors.clone();
                self.hub.hold_back(&mut cursors, kept.outbound.unacknowledged());
                changes.push((cursor_key(name.as_str()), Some(cursors.encode())));
            }
            let received: Vec<_> = kept.inbound.received().collect();
            for (stream, packet_id) in kept.inbound.marked() {
                let mark = if received.contains(&(stream, packet_id)) {
                    Some(Mark::Received.encode())
                } else {
                    self.sessions.get(&intent_key(former.as_str(), stream, packet_id))
                };
                changes.extend(mark.map(|mark| (intent_key(name.as_str(), stream, packet_id), Some(mark))));
            }
        }
        let claim = Claim { owner: me, from: None, state: Some(me), clean: false };
        changes.push((claim_key(client), Some(claim.encode())));
        changes.push((release_key(client), None));
        self.sessions.put_all(changes).await?;
        if let Some((_, will)) = will.filter(|_| !present) {
            // The session has ended, so a will that was delayed is due [MQTT-3.1.2-8].
            self.publish_will(&wanted.client_id, *will).await;
        }
        Ok(TakenOver { kept, present, is_stored })
    }

    /// The changes that remove all that is stored under a name.
    fn removals(&self, name: &str) -> Vec<Change> {
        let mut changes = vec![(session_key(name), None), (cursor_key(name), None)];
        let marks = self.sessions.scan(format!("q2/{name}/").as_bytes());
        let own = marks
            .into_iter()
            .filter(|(key, _)| super::session::parse_intent_key(key).is_some_and(|(found, _, _)| found == name));
        changes.extend(own.map(|(key, _)| (key, None)));
        changes
    }

    /// Removes all that is stored of a session, at once or not at all.
    pub(super) async fn remove_stored(
        &self,
        client_id: &Text,
        scope: &Text,
        owner: Option<Owner>,
    ) -> Result<(), AppendError> {
        let mut changes = self.removals(scope.as_str());
        if owner.is_some() {
            changes.push((claim_key(client_id.as_str()), None));
        }
        self.sessions.put_all(changes).await
    }

    /// Removes all that is stored of a session that has ended. Should that fail, a restart finds it and ends it again.
    pub(super) async fn forget_session(&self, client_id: &Text, scope: &Text, owner: Option<Owner>) {
        if let Err(error) = self.remove_stored(client_id, scope, owner).await {
            tracing::warn!(client = client_id.as_str(), %error, "stored state of an ended session not removed");
        }
    }

    /// Ends sessions whose node is gone when their time is over, and removes what losers have left. One node does: the leader.
    pub(super) async fn sweep_orphans(&self, orphans: &mut Orphans) {
        let leads = || self.log.topic(SESSIONS_TOPIC).is_some_and(|topic| topic.partitions.iter().all(|p| p.leads()));
        let rested = orphans.looked.is_none_or(|looked| looked.elapsed() >= ORPHANS_INTERVAL);
        if !rested || !self.owners.has_others() || !leads() {
            return;
        }
        orphans.looked = Some(Instant::now());
        let now = self.clock.now();
        let mut seen = BTreeMap::new();
        let mut ended: Vec<Vec<Change>> = Vec::new();
        for (key, value) in self.sessions.scan(b"s/") {
            let Some(name) = key.get(2..).and_then(|name| std::str::from_utf8(name).ok()) else { continue };
            let client = client_of(name);
            let claim = self.claim_of(client);
            match claim {
                Some(claim) if scoped(client, claim.state).as_str() != name => ended.push(self.removals(name)),
                Some(claim) if self.owners.is_up(claim.owner) || self.owners.is_here(claim.owner.node) => {}
                _ => {
                    let Ok(entry) = Entry::decode(value) else { continue };
                    let known = orphans.since.get(&key).copied().unwrap_or(now);
                    let since = entry.disconnected_at.map_or(known, |at| believable(at, now).min(now));
                    if since.0 + i64::from(entry.expiry) * 1000 <= now.0 {
                        let mut changes = self.removals(name);
                        changes.push((claim_key(client), None));
                        ended.push(changes);
                    } else if seen.len() < self.config.max_sessions {
                        seen.insert(key.clone(), known);
                    }
                }
            }
        }
        orphans.since = seen;
        for (key, value) in self.sessions.scan(b"o/") {
            let Some(client) = key.get(2..).and_then(|id| std::str::from_utf8(id).ok()) else { continue };
            let Ok(claim) = Claim::decode(value) else { continue };
            let stored = self.sessions.get(&session_key(scoped(client, claim.state).as_str())).is_some();
            if !stored && !self.owners.is_up(claim.owner) && !self.owners.is_here(claim.owner.node) {
                ended.push(vec![(key, None)]);
            }
        }
        for changes in ended.into_iter().take(SWEEP_BATCH) {
            if let Err(error) = self.sessions.put_all(changes).await {
                tracing::debug!(%error, "sessions of nodes that are gone are ended later");
                return;
            }
        }
    }
}
