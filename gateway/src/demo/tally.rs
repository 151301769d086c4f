//! What the fleet has done so far, counted by all its meters at once.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How a meter reaches the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    Tcp,
    Quic,
}

/// Running counts; exact once the fleet has come to rest.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent_tcp: AtomicU64,
    sent_quic: AtomicU64,
    acked: AtomicU64,
    refused: AtomicU64,
    /// How far the replay is, in milliseconds of the meters' time.
    clock: AtomicI64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent_tcp: u64,
    pub(super) sent_quic: u64,
    pub(super) acked: u64,
    pub(super) refused: u64,
    pub(super) clock: i64,
}

impl Counts {
    pub(super) fn sent(&self) -> u64 {
        self.sent_tcp + self.sent_quic
    }
}

impl Tally {
    pub(super) fn sent(&self, road: Road, clock: i64) {
        let counter = match road {
            Road::Tcp => &self.sent_tcp,
            Road::Quic => &self.sent_quic,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.clock.fetch_max(clock, Ordering::Relaxed);
    }

    pub(super) fn acked(&self) {
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    /// A negative acknowledgement.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent_tcp: get(&self.sent_tcp),
            sent_quic: get(&self.sent_quic),
            acked: get(&self.acked),
            refused: get(&self.refused),
            clock: self.clock.load(Ordering::Relaxed),
        }
    }
}
