//! One member of a group, and what is stored of it.

use bytes::Bytes;

use crate::Millis;
use crate::group::Name;

/// A protocol that a member offers (an assignor), and what it says to the leader about itself.
pub type Protocol = (Name, Bytes);

/// A member. `T` is where the answers to its waiting requests go.
#[derive(Debug)]
pub(super) struct Member<T> {
    /// `group.instance.id` of a static member (KIP-345).
    pub(super) instance: Option<Name>,
    pub(super) client_id: Name,
    pub(super) client_host: Name,
    /// Milliseconds without a heartbeat after which it is gone.
    pub(super) session_timeout: i64,
    /// Milliseconds that it may take to join again.
    pub(super) rebalance_timeout: i64,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// When its session ends. A member whose request waits here is alive whatever the time.
    pub(super) session_ends: Millis,
    /// Its JoinGroup that waits for the other members.
    pub(super) joining: Option<T>,
    /// Its SyncGroup that waits for the leader's assignment.
    pub(super) syncing: Option<T>,
}

/// What a member takes beside its names, what it says about itself and what is assigned to it: times, entries of maps.
pub(super) const MEMBER_BYTES: usize = 512;
/// In how many places a member's id and instance id may stand.
pub(super) const NAME_COPIES: usize = 3;

pub(super) fn protocol_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}

impl<T> Member<T> {
    /// About how much memory it takes, in bytes.
    pub(super) fn bytes(&self, id: &Name) -> usize {
        let names = NAME_COPIES * (id.len() + self.instance.as_deref().map_or(0, str::len));
        MEMBER_BYTES + names + self.client_id.len() + protocol_bytes(&self.protocols) + self.assignment.len()
    }

    pub(super) fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    pub(super) fn beat(&mut self, now: Millis) {
        self.session_ends = now.after(self.session_timeout);
    }

    pub(super) fn offers(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| &**name == protocol)
    }

    /// What it says about itself under `protocol`.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| &**name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn record(&self, id: &Name, protocol: &str, assignment: Bytes) -> MemberRecord {
        MemberRecord {
            id: id.clone(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout: self.session_timeout,
            rebalance_timeout: self.rebalance_timeout,
            metadata: self.metadata(protocol),
            assignment,
        }
    }

    /// A member as it was stored. It offers the one protocol that the group had chosen, until it joins again.
    pub(super) fn restore(record: &MemberRecord, protocol: &Name, now: Millis) -> Member<T> {
        Member {
            instance: record.instance.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            session_timeout: record.session_timeout,
            rebalance_timeout: record.rebalance_timeout,
            protocols: vec![(protocol.clone(), record.metadata.clone())],
            assignment: record.assignment.clone(),
            session_ends: now.after(record.session_timeout),
            joining: None,
            syncing: None,
        }
    }
}

/// What is stored of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    pub id: Name,
    pub instance: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    /// Milliseconds.
    pub session_timeout: i64,
    /// Milliseconds.
    pub rebalance_timeout: i64,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// What is stored of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// `consumer`, or what else the members call their kind; `None` for a group that had no member yet.
    pub protocol_type: Option<Name>,
    pub generation: i32,
    pub protocol: Option<Name>,
    pub leader: Option<Name>,
    pub members: Vec<MemberRecord>,
}
