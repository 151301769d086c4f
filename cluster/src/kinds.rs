//! The kinds of messages between nodes, and in which versions this release speaks them.

use crate::link::Kinds;

/// A message of the controller quorum.
pub const QUORUM: u16 = 1;
/// A request to the controller.
pub const CONTROLLER: u16 = 2;
/// A follower asks for what comes next.
pub const PULL: u16 = 3;
/// A follower tells what it has durably; one-way.
pub const ENDS: u16 = 4;
/// An append that the receiver leads the partition of.
pub const APPEND: u16 = 5;
/// A read of a partition that the receiver leads.
pub const READ: u16 = 6;
/// An append in the name of leaders of other partitions, or the question where all earlier ones have ended.
pub const CLAIMED: u16 = 7;

/// Writers that have successors are to write nothing more; [`APPEND`] names them from its version 2 on.
pub const FENCE: u16 = 8;

/// A node is asked what it knows of itself: its quorum, and the followers that are behind.
pub const REPORT: u16 = 16;
/// A node is to vote in the quorum, or not any more: for the quorum's leader.
pub const VOTER: u16 = 17;

/// What this release speaks.
#[must_use]
pub fn spoken() -> Kinds {
    Kinds::new([
        (QUORUM, 1, 1),
        (CONTROLLER, 1, 1),
        (PULL, 1, 1),
        (ENDS, 1, 1),
        (APPEND, 1, 2),
        (READ, 1, 1),
        (CLAIMED, 1, 1),
        (FENCE, 1, 1),
        (REPORT, 1, 1),
        (VOTER, 1, 1),
    ])
}
