//! Sessions as `_mqtt_sessions` has them: loaded at a start, taken over from other nodes, let go, and removed.

use std::sync::Arc;

use bytes::Bytes;
use forebay_log::partition::believable;
use forebay_log::{AppendError, Millis};

use super::Broker;
use super::intents::{self, Mark, Receipts};
use super::ownership::{Claim, Owner, Taken, claim_key, client_of, release_key, scoped, state_of};
use super::packet::Text;
use super::registry::{Left, Live, Met, Parked};
use super::session::stored::EntryProblem;
use super::session::{Accepted, Cursors, Entry, Kept, cursor_key, intent_key, session_key};
use crate::state::Change;

/// A session that was taken for a connection.
pub(super) struct TakenOver {
    pub(super) kept: Kept,
    pub(super) present: bool,
    pub(super) is_stored: bool,
}

impl Broker {
    pub(super) fn claim_of(&self, client: &str) -> Option<Claim> {
        Claim::decode(self.sessions.get(&claim_key(client))?).ok()
    }

    /// Whether the session that is stored under this name was parked or connected here.
    fn is_mine(&self, name: &str) -> bool {
        match self.claim_of(client_of(name)) {
            Some(claim) => {
                let state = claim.settled_under(&self.sessions, client_of(name));
                self.owners.is_here(claim.owner.node) && scoped(client_of(name), state).as_str() == name
            }
            None => client_of(name) == name && !self.owners.has_others(),
        }
    }

    /// Loads the sessions that this node had.
    pub(super) async fn load_sessions(&self) {
        let wanted = |name: &str| self.is_mine(name);
        let mut receipts = intents::resolve(&self.sessions, &self.log, &self.reader, "", wanted).await;
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
        let owed = self.owners.applied(&client, &claim);
        if self.owners.is_here(claim.owner.node) {
            // Connections of this node hand their sessions over by the registry.
            return self.registry.claimed_here(&client);
        }
        let lost = match self.registry.claimed_elsewhere(&client, &claim, owed) {
            Met::Live => return,
            Met::Nothing if !owed => return,
            Met::Nothing => None,
            Met::Parked(parked) => Some((parked, claim)),
        };
        let (broker, left) = (self.clone(), Left { lost, owed: vec![claim.owner] });
        tokio::spawn(async move { broker.leave(&client, left).await });
    }

    /// Whoever swept it away did not know of the connection that has it, or has left it here.
    fn claim_removed(self: &Arc<Self>, client: Text) {
        self.owners.removed(&client);
        let Some(has) = self.registry.owner_here(&client) else { return };
        let broker = self.clone();
        tokio::spawn(async move {
            if broker.claim_of(client.as_str()).is_none() && broker.registry.owner_here(&client).as_ref() == Some(&has)
            {
                broker.claim_again(&client, &has.1, has.0).await;
            }
        });
    }

    async fn claim_again(&self, client: &Text, scope: &Text, owner: Owner) {
        let claim = Claim { owner, from: None, state: state_of(scope.as_str()), clean: false };
        if let Err(error) = self.sessions.put(claim_key(client.as_str()), Some(claim.encode())).await {
            tracing::warn!(client = client.as_str(), %error, "the owner of a session is not stored");
        }
    }

    /// Gives up a connection's session: it is parked, handed to the next connection here, or ends (`None`); if another node has
    /// claimed it, that one is told once nothing of it is on its way from here.
    pub(super) async fn let_go(&self, live: &Arc<Live>, session: Option<Box<Parked>>) {
        let left = self.registry.release(live, session);
        self.leave(&live.client_id, left).await;
    }

    async fn leave(&self, client: &Text, left: Left) {
        self.metrics.mqtt.sessions.set(self.registry.sessions() as i64);
        if let Some((mut parked, claim)) = left.lost {
            self.unpark(&parked.kept);
            // The session goes on elsewhere [MQTT-3.1.3-9], unless it was ended there.
            if let Some((_, will)) = parked.will.take().filter(|_| claim.clean) {
                self.publish_will(client, *will).await;
            }
        }
        for owner in left.owed {
            self.release_to(client, owner).await;
        }
    }

    /// Tells the claimant that nothing more is on its way from here.
    async fn release_to(&self, client: &Text, to: Owner) {
        if let Err(error) = self.sessions.put(release_key(client.as_str()), Some(to.encode())).await {
            tracing::warn!(client = client.as_str(), %error, "the new owner of a session is not told that it is settled");
        }
    }

    /// Takes a client's session for a connection: from this node, from another, or from one that is gone. `parked` is what was here.
    ///
    /// # Errors
    /// Why there is none. The connection has given up its place in the registry.
    pub(super) async fn take_over(
        &self,
        live: &Arc<Live>,
        wanted: &Accepted,
        parked: Option<Box<Parked>>,
    ) -> Result<TakenOver, AppendError> {
        let client = &wanted.client_id;
        let elsewhere = || AppendError::Offline("another connection has the session by now".to_owned());
        if live.lost().is_some() {
            // While the connection before this one was settling.
            self.let_go(live, parked).await;
            return Err(elsewhere());
        }
        let claimed = match self.owners.claim(&self.sessions, client, wanted.clean_start).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.let_go(live, parked).await;
                return Err(error);
            }
        };
        self.release_overtaken(live).await;
        let taken = self.owners.settled(&self.sessions, claimed).await;
        if live.lost().is_some() {
            self.let_go(live, parked).await;
            return Err(elsewhere());
        }
        let former = self.stored_under(client, &taken);
        let found = match parked {
            Some(mut parked) if taken.was_here => {
                self.look_for_unsettled(&mut parked).await;
                Some(parked)
            }
            parked => {
                parked.iter().for_each(|parked| self.unpark(&parked.kept));
                self.load_one(&former).await
            }
        };
        let taken_over = match self.settle_in(wanted, taken.me, &former, found).await {
            Ok(taken_over) => taken_over,
            Err((error, found)) => {
                // It is stored where it was, and the claim says that this node has it.
                let has = |found: Box<Parked>| Box::new(Parked { scope: former, owner: Some(taken.me), ..*found });
                self.let_go(live, found.map(has)).await;
                return Err(error);
            }
        };
        let scope = scoped(client.as_str(), Some(taken.me));
        live.begin(scope.clone(), Some(taken.me));
        self.release_overtaken(live).await;
        if live.lost().is_some() {
            self.let_go(live, None).await;
            return Err(elsewhere());
        }
        if self.claim_of(client.as_str()).is_none() {
            // Swept away, before it could be seen that somebody has the session.
            self.claim_again(client, &scope, taken.me).await;
        }
        Ok(taken_over)
    }

    async fn release_overtaken(&self, live: &Live) {
        for owner in live.take_overtaken() {
            self.release_to(&live.client_id, owner).await;
        }
    }

    /// The name under which a client's session lies: that of who had it right before, or where that one has not settled in, what it
    /// knew. It may have known what was long ago: then it is the name of the one before, or whichever there is.
    fn stored_under(&self, client: &Text, taken: &Taken) -> Text {
        let is_stored = |name: &Text| self.sessions.get(&session_key(name.as_str())).is_some();
        let told = scoped(client.as_str(), taken.state);
        let before = taken.former.and_then(|former| former.from);
        let owners = [taken.former.map(|former| former.owner), before];
        let [last, before] = owners.map(|owner| owner.map(|owner| scoped(client.as_str(), Some(owner))));
        let known = [last, Some(told.clone()), before].into_iter().flatten().find(is_stored);
        known.or_else(|| self.names_of(client.as_str()).into_iter().next()).unwrap_or(told)
    }

    /// The names under which sessions of this client are stored.
    fn names_of(&self, client: &str) -> Vec<Text> {
        let scoped = self.sessions.scan(&session_key(&format!("{client}\0"))).into_iter().map(|(key, _)| key);
        let plain = Some(session_key(client)).filter(|key| self.sessions.get(key).is_some());
        let name = |key: Bytes| std::str::from_utf8(key.get(2..)?).ok().map(Text::from);
        scoped.chain(plain).filter_map(name).collect()
    }

    async fn load_one(&self, name: &Text) -> Option<Box<Parked>> {
        let entry = self.sessions.get(&session_key(name.as_str()))?;
        let receipts = self.receipts_of(name).await;
        self.read_stored(name.as_str(), None, entry, receipts).map(Box::new)
    }

    async fn receipts_of(&self, name: &Text) -> Receipts {
        let wanted = |found: &str| found == name.as_str();
        let all = intents::resolve(&self.sessions, &self.log, &self.reader, name.as_str(), wanted).await;
        all.into_values().next().unwrap_or_default()
    }

    /// What could not be found out before about exactly-once publishes may be known now.
    pub(super) async fn look_for_unsettled(&self, parked: &mut Parked) {
        let inbound = &mut parked.kept.inbound;
        if inbound.forget_unsettled() {
            let Receipts { received, unsettled } = self.receipts_of(&parked.scope).await;
            received.into_iter().for_each(|(stream, packet_id)| inbound.restore(stream, packet_id));
            unsettled.into_iter().for_each(|(stream, packet_id)| inbound.restore_unsettled(stream, packet_id));
        }
    }

    /// Stores what the new owner begins with under its own keys, and removes the former one's, in one batch. On failure the
    /// session is given back.
    async fn settle_in(
        &self,
        wanted: &Accepted,
        me: Owner,
        former: &Text,
        found: Option<Box<Parked>>,
    ) -> Result<TakenOver, (AppendError, Option<Box<Parked>>)> {
        let claim = self.claim_of(wanted.client_id.as_str());
        if claim.is_some_and(|claim| claim.owner != me) {
            // What that one has stored since is not to be removed.
            return Err((AppendError::Offline("another connection has the session by now".to_owned()), found));
        }
        let (is_stored, present) = (wanted.expiry > 0, self.is_present(wanted, found.as_deref()));
        let changes = self.settling(wanted, me, former, found.as_deref());
        if let Err(error) = self.sessions.put_all(changes).await {
            return Err((error, found));
        }
        let Some(Parked { kept, will, .. }) = found.map(|found| *found) else {
            return Ok(TakenOver { kept: Kept::default(), present, is_stored });
        };
        self.unpark(&kept);
        if present {
            return Ok(TakenOver { kept, present, is_stored });
        }
        if let Some((_, will)) = will {
            // The session has ended, so a will that was delayed is due [MQTT-3.1.2-8].
            self.publish_will(&wanted.client_id, *will).await;
        }
        Ok(TakenOver { kept: Kept::default(), present, is_stored })
    }

    fn is_present(&self, wanted: &Accepted, found: Option<&Parked>) -> bool {
        !wanted.clean_start && found.is_some_and(|found| self.clock.now() < found.expires_at)
    }

    /// What is stored of a session that its new owner has taken.
    pub(super) fn settling(&self, wanted: &Accepted, me: Owner, former: &Text, found: Option<&Parked>) -> Vec<Change> {
        let client = wanted.client_id.as_str();
        let mut changes = self.removals(former.as_str());
        // What losers have left: nobody may take it for the session when this one has ended.
        let left = self.names_of(client).into_iter().filter(|name| name != former);
        changes.extend(left.flat_map(|name| self.removals(name.as_str())));
        changes.push((release_key(client), None));
        if wanted.expiry > 0 {
            let none = Kept::default();
            let kept = found.filter(|_| self.is_present(wanted, found)).map_or(&none, |found| &found.kept);
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
        } else {
            // Nothing under its name tells that it has settled in.
            let claim = Claim { owner: me, from: None, state: Some(me), clean: false };
            changes.push((claim_key(client), Some(claim.encode())));
        }
        changes
    }

    /// The changes that remove all that is stored under a name.
    pub(super) fn removals(&self, name: &str) -> Vec<Change> {
        let mut changes = vec![(session_key(name), None), (cursor_key(name), None)];
        let marks = self.sessions.scan(format!("q2/{name}/").as_bytes());
        let own = marks
            .into_iter()
            .filter(|(key, _)| super::session::parse_intent_key(key).is_some_and(|(found, _, _)| found == name));
        changes.extend(own.map(|(key, _)| (key, None)));
        changes
    }

    /// Removes all that is stored of a session, at once or not at all. What another node has claimed by now stays for that one.
    pub(super) async fn remove_stored(&self, client_id: &Text, scope: &Text) -> Result<(), AppendError> {
        let claim = self.claim_of(client_id.as_str());
        if claim.is_some_and(|claim| !self.owners.is_here(claim.owner.node)) {
            return Ok(());
        }
        let mut changes = self.removals(scope.as_str());
        changes.extend(claim.map(|_| (claim_key(client_id.as_str()), None)));
        self.sessions.put_all(changes).await
    }

    /// Removes all that is stored of a session that has ended. Should that fail, a restart finds it and ends it again.
    pub(super) async fn forget_session(&self, client_id: &Text, scope: &Text) {
        if let Err(error) = self.remove_stored(client_id, scope).await {
            tracing::warn!(client = client_id.as_str(), %error, "stored state of an ended session not removed");
        }
    }
}
