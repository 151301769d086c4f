//! The keeper: a thread that writes the recovery points when they have moved, watches for the end of a full disk, and
//! tries again to open partitions that are offline.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use forebay_log::Offset;
use forebay_log::limits::{CHECKPOINT_INTERVAL_MS, TICK_MS};

use crate::files::Files;
use crate::log::Topics;
use crate::partition::Partition;
use crate::points::{self, Points};
use crate::space::Space;
use crate::unopened::UnopenedList;

/// The running keeper.
pub(crate) struct Keeper {
    work: Arc<Work>,
    stop: SyncSender<()>,
    thread: thread::JoinHandle<()>,
}

/// What the keeper looks after.
pub(crate) struct Care {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) space: Arc<Space>,
    pub(crate) topics: Arc<ArcSwap<Topics>>,
}

/// What the keeper does, without its thread.
pub(crate) struct Work {
    care: Care,
    unopened: Arc<UnopenedList>,
    written: Arc<Mutex<Points>>,
    /// That they are not written is told once.
    points_failed: AtomicBool,
}

impl Keeper {
    pub(crate) fn start(
        care: Care,
        unopened: Arc<UnopenedList>,
        written: Arc<Mutex<Points>>,
        fsync: bool,
    ) -> io::Result<Keeper> {
        let work = Arc::new(Work::new(care, unopened, written));
        let (stop, stopped) = sync_channel(1);
        let thread = thread::Builder::new().name("forebay-keeper".to_owned()).spawn({
            let work = Arc::clone(&work);
            move || work.run(&stopped, fsync)
        })?;
        Ok(Keeper { work, stop, thread })
    }

    /// Ends the thread and, after a clean flush, notes that all is on the disk.
    pub(crate) fn stop(self, clean: bool, fsync: bool) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the keeper of the log panicked");
        }
        self.work.checkpoint(clean || fsync);
    }
}

impl Work {
    pub(crate) fn new(care: Care, unopened: Arc<UnopenedList>, written: Arc<Mutex<Points>>) -> Work {
        Work { care, unopened, written, points_failed: AtomicBool::new(false) }
    }

    /// One round, the recovery points included.
    pub(crate) fn keep(&self, fsync: bool) {
        self.care.space.probe();
        self.unopened.retry();
        self.checkpoint(fsync);
    }

    fn run(&self, stopped: &Receiver<()>, fsync: bool) {
        let interval = Duration::from_millis(CHECKPOINT_INTERVAL_MS);
        let mut last = Instant::now();
        while stopped.recv_timeout(Duration::from_millis(TICK_MS.unsigned_abs())) == Err(RecvTimeoutError::Timeout) {
            self.care.space.probe();
            self.unopened.retry();
            if last.elapsed() >= interval {
                self.checkpoint(fsync);
                last = Instant::now();
            }
        }
    }

    /// Writes the recovery points if they have moved. `synced` tells whether everything published is on the disk;
    /// otherwise only closed segments are.
    fn checkpoint(&self, synced: bool) {
        // Before the topics are looked at: a partition that comes back meanwhile must not get its old point again.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut points = Points::new();
        for topic in self.care.topics.load().values() {
            for partition in &topic.partitions {
                // Not beyond the high watermark: what lies above may have to be cut, and would be missed then.
                let high_watermark = partition.watermarks().high_watermark;
                let point = if synced { high_watermark } else { active_base(partition).min(high_watermark) };
                points.insert((topic.id, partition.index()), point);
            }
        }
        if *written == points {
            return;
        }
        match self.care.space.reserved(|| points::save(self.care.files.as_ref(), &points)) {
            Ok(()) => {
                *written = points;
                self.points_failed.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                if !self.points_failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "recovery points not written, tried again each 3 s: the next start scans more");
                }
            }
        }
    }
}

fn active_base(partition: &Partition) -> Offset {
    // One that is not open keeps the point it had.
    partition.shared.segments.load().last().map_or(partition.watermarks().log_end, |segment| segment.base)
}
