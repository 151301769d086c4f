//! Limits of the controller's driver.

use std::time::Duration;

/// Requests that wait for the controller of this node.
pub(crate) const QUEUE: usize = 1024;
/// Requests that are decided on together.
pub(crate) const BATCH: usize = 256;
/// Most bytes of the records in one entry of the quorum's log.
pub(crate) const ENTRY_BYTES: usize = 3 << 20;
/// Before a node that leads the quorum tries again to be the active controller.
pub(crate) const LEAD_AGAIN: Duration = Duration::from_millis(20);
/// Between two tries to find the active controller.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long one try waits for an answer.
pub(crate) const TRY: Duration = Duration::from_secs(3);
