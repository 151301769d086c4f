//! Who is alive, as far as this controller has heard: in memory only, so a new controller begins anew.

use std::collections::BTreeMap;

use super::Limits;
use crate::cluster::image::Image;
use crate::cluster::node::Liveness;
use crate::limits::HEARTBEAT_INTERVAL_MS;
use crate::units::{MetadataVersion, Millis, NodeId};

/// The sessions of all nodes that are not fenced.
#[derive(Debug)]
pub(super) struct Sessions(BTreeMap<NodeId, Session>);

#[derive(Debug)]
struct Session {
    heard: Millis,
    /// From when on silence is held against a suspected node.
    awaited: Millis,
    /// Another node had its connection refused or reset since.
    suspected: bool,
    /// The metadata that the node said it has.
    applied: MetadataVersion,
    /// The metadata in which the leaderships of a node that wants to end are with others.
    handed_over: Option<MetadataVersion>,
    /// Its disk has no room for more records.
    full: bool,
}

impl Session {
    fn expiry(&self, limits: &Limits) -> Millis {
        let session = self.heard.after(limits.session_timeout);
        if self.suspected { session.min(self.awaited.after(limits.suspicion_grace)) } else { session }
    }
}

impl Sessions {
    /// A whole session for each node that is not fenced. One that others find gone is not waited for as long: whoever is there tells a
    /// new controller at once, or with its next heartbeat.
    pub(super) fn of(image: &Image, now: Millis) -> Sessions {
        let mut sessions = Sessions(BTreeMap::new());
        for (id, _) in image.nodes().filter(|(_, node)| node.liveness != Liveness::Fenced) {
            sessions.begin(id, now, MetadataVersion::default());
        }
        sessions.0.values_mut().for_each(|session| session.awaited = now.after(-HEARTBEAT_INTERVAL_MS));
        sessions
    }

    pub(super) fn begin(&mut self, id: NodeId, now: Millis, applied: MetadataVersion) {
        self.0.insert(
            id,
            Session { heard: now, awaited: now, suspected: false, applied, handed_over: None, full: false },
        );
    }

    pub(super) fn end(&mut self, id: NodeId) {
        self.0.remove(&id);
    }

    pub(super) fn heard(&mut self, id: NodeId, now: Millis, version: MetadataVersion) {
        if let Some(session) = self.0.get_mut(&id) {
            session.heard = session.heard.max(now);
            session.awaited = session.heard;
            session.suspected = false;
            session.applied = session.applied.max(version);
        }
    }

    pub(super) fn set_full(&mut self, id: NodeId, full: bool) {
        if let Some(session) = self.0.get_mut(&id) {
            session.full = full;
        }
    }

    pub(super) fn is_full(&self, id: NodeId) -> bool {
        self.0.get(&id).is_some_and(|session| session.full)
    }

    /// Somebody could not reach the node: it has less time to be heard of.
    pub(super) fn suspect(&mut self, id: NodeId) {
        if let Some(session) = self.0.get_mut(&id) {
            session.suspected = true;
        }
    }

    /// Whether every other node knows that the node's leaderships are with others. The first call says that they are so
    /// in `version`.
    pub(super) fn is_handed_over(&mut self, id: NodeId, version: MetadataVersion) -> bool {
        let Some(session) = self.0.get_mut(&id) else { return true };
        let version = *session.handed_over.get_or_insert(version);
        self.0.iter().all(|(other, session)| *other == id || session.applied >= version)
    }

    pub(super) fn expired(&self, now: Millis, limits: &Limits) -> Vec<NodeId> {
        self.0.iter().filter(|(_, session)| session.expiry(limits) <= now).map(|(id, _)| *id).collect()
    }

    pub(super) fn next_expiry(&self, limits: &Limits) -> Option<Millis> {
        self.0.values().map(|session| session.expiry(limits)).min()
    }
}
