//! Limits and intervals of the alert service.

use std::time::Duration;

/// Bytes of source batches that are read and evaluated at once.
pub(super) const READ_BYTES: usize = 1 << 20;
/// Bytes of transitions that are appended as one chunk; those of one source record stay together.
pub(super) const JOURNAL_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a checkpoint that one record of `_alert_state` holds.
pub(super) const CHECKPOINT_PART_BYTES: usize = 256 << 10;
/// Time between two checkpoints of a partition's state.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// A checkpoint of this many bytes doubles the time to the next one, of twice as many triples it, and so on.
pub(super) const CHECKPOINT_STRETCH_BYTES: usize = 1 << 20;
/// The longest time between two checkpoints.
pub(super) const CHECKPOINT_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Time between two saves of a receiver's cursor while it is busy.
pub(super) const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is checked that every follower still runs.
pub(super) const FOLLOWER_CHECK: Duration = Duration::from_secs(1);
/// Time between two posts of all alerts that fire to Alertmanager, which ends those that are not posted again.
pub(super) const REMIND_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// As [`REMIND_INTERVAL`], after the start and after a post that failed.
pub(super) const REMIND_SOON: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Failed attempts after which it is worth a line that a delivery succeeded.
pub(super) const TOLD_FAILURES: u32 = 8;
/// Time between two measurements of how far rules and receivers are behind.
pub(super) const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a new leader waits for what the one before it has recorded to be readable.
pub(super) const CATCH_UP: Duration = Duration::from_secs(5);
/// Pause before `_alerts` is asked again that has not heard of a leadership yet.
pub(super) const HEAR_AGAIN: Duration = Duration::from_millis(20);
/// Transitions by whose ids a receiver's task knows that it has seen one before.
pub(super) const RECENT_TRANSITIONS: usize = 4096;
/// Pause after a failed read or append before the next attempt.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Most bytes of the rule files and tables that the controller keeps for the cluster: names and texts.
pub(super) const MAX_KEPT_BYTES: usize = 1 << 20;
/// Most rule files and tables that the controller keeps for the cluster.
pub(super) const MAX_KEPT_FILES: usize = 256;

// They go into one change, where a line end takes two bytes, and each file has a key and a place in the list.
const _: () = assert!(2 * MAX_KEPT_BYTES + 1024 * MAX_KEPT_FILES <= forebay_log::limits::MAX_SETTINGS_CHANGE_BYTES);
// Room for two posts that fail.
const _: () = assert!(REMIND_INTERVAL.as_millis() as i64 * 3 <= forebay_sinks::limits::ALERTMANAGER_HOLD_MS);
const _: () = assert!(JOURNAL_CHUNK_BYTES < forebay_log::limits::GATHER_BATCH_BYTES);
const _: () = assert!(CHECKPOINT_PART_BYTES < forebay_log::limits::GATHER_BATCH_BYTES);
