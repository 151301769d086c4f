//! Whether another node is there, as its control link shows it.

use std::sync::Arc;
use std::time::Instant;

/// What is known of a peer. Follows its control link; the other lanes come and go without being told here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerState {
    /// No attempt has ended yet.
    Connecting,
    Up {
        /// Of the process that answers; another one means that it was started anew.
        incarnation: u64,
    },
    Down {
        since: Instant,
        /// Its host answers and nobody listens: the process is gone, not just slow or cut off. A process that dies is
        /// told first with `false`, when its connections end, and with `true` as soon as the first attempt at a new one
        /// is refused.
        refused: bool,
        /// For a person.
        why: Arc<str>,
    },
}

impl PeerState {
    pub fn is_up(&self) -> bool {
        matches!(self, PeerState::Up { .. })
    }

    /// Down from now on, or still since it went down.
    pub(super) fn down(&self, refused: bool, why: &str) -> PeerState {
        let since = match self {
            PeerState::Down { since, .. } => *since,
            PeerState::Connecting | PeerState::Up { .. } => Instant::now(),
        };
        PeerState::Down { since, refused, why: why.into() }
    }
}
