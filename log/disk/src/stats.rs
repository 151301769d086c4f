//! Counters of the log since it was opened, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A reading of the log's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Commits: one each time that what had gathered was written and synced.
    pub commits: u64,
    /// Files synced by those commits.
    pub synced_files: u64,
    /// Nanoseconds spent in the syncs of commits.
    pub sync_nanos: u64,
    /// Bytes of batches made durable.
    pub appended_bytes: u64,
    /// Writes and syncs that failed; their appends were refused.
    pub failed_writes: u64,
    /// Times that damaged batches were found, at a start or by a read.
    pub corrupt_batches: u64,
    /// Records that compaction has removed.
    pub compacted_records: u64,
    /// Bytes by which compaction has made the log smaller.
    pub compacted_bytes: u64,
}

/// The counters themselves.
#[derive(Default)]
pub(crate) struct Stats {
    commits: AtomicU64,
    synced_files: AtomicU64,
    sync_nanos: AtomicU64,
    appended_bytes: AtomicU64,
    failed_writes: AtomicU64,
    corrupt_batches: AtomicU64,
    compacted_records: AtomicU64,
    compacted_bytes: AtomicU64,
    /// One for each shard.
    sync_clocks: Mutex<Vec<Arc<SyncClock>>>,
}

/// Since when a shard's sync goes on.
#[derive(Default)]
pub(crate) struct SyncClock(Mutex<Option<Instant>>);

impl SyncClock {
    pub(crate) fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
    pub(crate) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    fn lasts(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |began| began.elapsed())
    }
}

impl Stats {
    /// A clock for the syncs of one more shard.
    pub(crate) fn sync_clock(&self) -> Arc<SyncClock> {
        let clock = Arc::<SyncClock>::default();
        self.sync_clocks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&clock));
        clock
    }
    /// How long the longest sync that goes on now has taken.
    pub(crate) fn longest_sync(&self) -> Duration {
        let clocks = self.sync_clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.iter().map(|clock| clock.lasts()).max().unwrap_or_default()
    }
    pub(crate) fn committed(&self, files: usize, sync: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.synced_files.fetch_add(files as u64, Ordering::Relaxed);
        self.sync_nanos.fetch_add(u64::try_from(sync.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    pub(crate) fn appended(&self, bytes: u64) {
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(crate) fn failed_write(&self) {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn corrupt_batch(&self) {
        self.corrupt_batches.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn compacted(&self, records: u64, bytes: u64) {
        self.compacted_records.fetch_add(records, Ordering::Relaxed);
        self.compacted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(crate) fn read(&self) -> LogStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            commits: get(&self.commits),
            synced_files: get(&self.synced_files),
            sync_nanos: get(&self.sync_nanos),
            appended_bytes: get(&self.appended_bytes),
            failed_writes: get(&self.failed_writes),
            corrupt_batches: get(&self.corrupt_batches),
            compacted_records: get(&self.compacted_records),
            compacted_bytes: get(&self.compacted_bytes),
        }
    }
}
