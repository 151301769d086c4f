//! Sessions whose node is gone end when their time is over; what the losers of sessions have left is removed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_log::Millis;
use forebay_log::partition::believable;
use tokio::time::Instant;

use super::limits::{ORPHANS_INTERVAL, SWEEP_BATCH};
use super::ownership::{Claim, Owner, claim_key, client_of, scoped, state_of};
use super::session::{Entry, parse_intent_key, session_key};
use super::{Broker, SESSIONS_TOPIC};
use crate::state::Change;

/// Since when sessions are known to be nobody's that were connected when their node went.
#[derive(Default)]
pub(super) struct Orphans {
    looked: Option<Instant>,
    since: BTreeMap<String, Millis>,
}

/// What is to be done about what is stored under a name.
enum Fate {
    Stays,
    /// It is nobody's, and its time is not over.
    Waits,
    Goes(Vec<Change>),
}

impl Broker {
    fn is_gone(&self, owner: Owner) -> bool {
        !self.owners.is_up(owner) && !self.owners.is_here(owner.node)
    }

    /// `since`: when it was first seen to be nobody's.
    fn fate(&self, name: &str, since: Millis, now: Millis) -> Fate {
        let client = client_of(name);
        let claim = self.claim_of(client);
        if let Some(claim) = claim {
            let state = claim.settled_under(&self.sessions, client);
            if scoped(client, state).as_str() != name {
                // What a loser wrote late. A claimant that has not settled in may still have to read it.
                return if state == Some(claim.owner) { Fate::Goes(self.removals(name)) } else { Fate::Stays };
            }
            if !self.is_gone(claim.owner) {
                return Fate::Stays;
            }
        }
        let Some(entry) = self.sessions.get(&session_key(name)) else {
            let left = claim.is_some() || state_of(name).is_some_and(|owner| self.is_gone(owner));
            return if left { Fate::Goes(self.removals(name)) } else { Fate::Stays };
        };
        let Ok(entry) = Entry::decode(entry) else { return Fate::Stays };
        let since = entry.disconnected_at.map_or(since, |at| believable(at, now).min(now));
        if since.0 + i64::from(entry.expiry) * 1000 > now.0 {
            return Fate::Waits;
        }
        let mut changes = self.removals(name);
        changes.push((claim_key(client), None));
        Fate::Goes(changes)
    }

    /// A claim without a session, of a node that is gone.
    fn is_left(&self, client: &str, claim: &Claim) -> bool {
        let state = claim.settled_under(&self.sessions, client);
        let stored = self.sessions.get(&session_key(scoped(client, state).as_str())).is_some();
        !stored && self.is_gone(claim.owner)
    }

    /// All names that something is stored under.
    fn stored_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for kind in ["s/", "c/"] {
            let found = self.sessions.scan(kind.as_bytes());
            names.extend(found.iter().filter_map(|(key, _)| Some(std::str::from_utf8(key.get(2..)?).ok()?.to_owned())));
        }
        let marks = self.sessions.scan(b"q2/");
        names.extend(marks.iter().filter_map(|(key, _)| Some(parse_intent_key(key)?.0.to_owned())));
        names
    }

    /// Ends sessions whose node is gone when their time is over, and removes what losers have left. One node does: the leader.
    /// Whether it still is so is looked at right before each change, since clients come back at any time; a claim that goes all
    /// the same is written again by the node that has made it.
    pub(super) async fn sweep_orphans(&self, orphans: &mut Orphans) {
        let leads = || self.log.topic(SESSIONS_TOPIC).is_some_and(|topic| topic.partitions.iter().all(|p| p.leads()));
        let rested = orphans.looked.is_none_or(|looked| looked.elapsed() >= ORPHANS_INTERVAL);
        if !rested || !self.owners.has_others() || !leads() {
            return;
        }
        orphans.looked = Some(Instant::now());
        let now = self.clock.now();
        let mut seen = BTreeMap::new();
        let mut ended = Vec::new();
        for name in self.stored_names() {
            let since = orphans.since.get(&name).copied().unwrap_or(now);
            match self.fate(&name, since, now) {
                Fate::Waits if seen.len() < self.config.max_sessions => drop(seen.insert(name, since)),
                Fate::Goes(_) if ended.len() < SWEEP_BATCH => ended.push((name, since)),
                _ => {}
            }
        }
        orphans.since = seen;
        for (name, since) in ended {
            if let Fate::Goes(changes) = self.fate(&name, since, now)
                && !self.sweep_away(changes).await
            {
                return;
            }
        }
        let left = self.sessions.scan(b"o/").into_iter().filter_map(|(key, value)| {
            let client = std::str::from_utf8(key.get(2..)?).ok()?.to_owned();
            Claim::decode(value).is_ok_and(|claim| self.is_left(&client, &claim)).then_some((key, client))
        });
        for (key, client) in left.take(SWEEP_BATCH).collect::<Vec<(Bytes, String)>>() {
            if self.claim_of(&client).is_some_and(|claim| self.is_left(&client, &claim))
                && !self.sweep_away(vec![(key, None)]).await
            {
                return;
            }
        }
    }

    async fn sweep_away(&self, changes: Vec<Change>) -> bool {
        let result = self.sessions.put_all(changes).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "sessions of nodes that are gone are ended later");
        }
        result.is_ok()
    }
}
