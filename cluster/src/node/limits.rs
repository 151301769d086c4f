//! Limits of what a node tells of itself.

use std::time::Duration;

/// Followers that a report names; the furthest behind come first.
pub(super) const BEHIND: usize = 1000;
/// Partitions that are asked for their followers at a time.
pub(super) const ASKED_AT_ONCE: usize = 256;
/// How long a report of another node is waited for.
pub(super) const REPORT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether a snapshot has been taken.
pub(super) const REMEMBER_AGAIN: Duration = Duration::from_millis(200);
/// Between two tries to change who votes.
pub(super) const VOTER_AGAIN: Duration = Duration::from_millis(100);
