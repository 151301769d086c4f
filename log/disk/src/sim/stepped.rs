//! A log without threads, for simulations: its shards work when they are told to, by the time that they are told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use forebay_log::Millis;
use forebay_log::limits::SHARD_QUEUE;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::dirs::kafka_id;
use crate::engine::Engine;
use crate::files::Files;
use crate::keeper::{Care, Work};
use crate::layout::LOG_DIR;
use crate::log::{Inner, Log, LogError, LogOptions};
use crate::meta::Metadata;
use crate::pool::SyncPool;
use crate::shard::{Core, Mailbox, Mailboxes};
use crate::space::Space;
use crate::stats::Stats;
use crate::unopened::Clock;

/// Bytes of the reserve for a full disk, and of the headroom beyond it, on a simulated disk.
const RESERVE: (u64, u64) = (16 << 10, 2 << 10);

/// What the log's threads would do.
pub struct Steps {
    shards: Vec<Core>,
    keeper: Work,
    clock: Arc<AtomicI64>,
}

impl Log {
    /// Opens `files` as [`Log::open_as`] does, without any thread: nothing happens but in [`Steps::step`]. What the log asks of
    /// its shards and waits for cannot be waited for on the same thread: poll it between the steps.
    ///
    /// # Errors
    /// As `open_as`.
    pub fn open_stepped(
        node_id: u32,
        files: Arc<dyn Files>,
        options: LogOptions,
        now: Millis,
    ) -> Result<(Log, Steps), LogError> {
        begin(node_id, files.as_ref())?;
        let space = Arc::new(Space::with_reserve(Arc::clone(&files), RESERVE.0, RESERVE.1));
        let stats = Arc::new(Stats::default());
        let clock = Arc::new(AtomicI64::new(now.0));
        let mut shards = Vec::new();
        let mut mailboxes = Vec::new();
        for _ in 0..options.shards.max(1) {
            let engine = Engine::new(SyncPool::inline(), Arc::clone(&space), Arc::clone(&stats), options.fsync);
            let (requests, waiting) = mpsc::channel(SHARD_QUEUE);
            mailboxes.push(Mailbox::to(requests));
            shards.push(Core::new(engine, waiting));
        }
        let mailboxes: Mailboxes = mailboxes.into();
        let clock_of_opens = Clock::Stepped(Arc::clone(&clock));
        let inner = Inner::open(node_id, Arc::clone(&files), options, space, stats, mailboxes, clock_of_opens)?;
        let topics = Arc::clone(&inner.topics);
        let care = Care { files, space: Arc::clone(&inner.space), topics };
        let keeper = Work::new(care, Arc::clone(&inner.unopened), Arc::clone(&inner.points));
        Ok((Log::stepped(inner), Steps { shards, keeper, clock }))
    }
}

/// An empty directory gets a cluster id that is not drawn: the same run is to leave the same bytes.
fn begin(node_id: u32, files: &dyn Files) -> Result<(), LogError> {
    files.create_dir_all(Path::new(LOG_DIR)).map_err(LogError::io(LOG_DIR))?;
    let is_new = files.list(Path::new(LOG_DIR)).map_err(LogError::io(LOG_DIR))?.is_empty();
    if is_new && Metadata::load(files)?.is_none() {
        let cluster_id = kafka_id(Uuid::from_u128(u128::from(node_id)));
        let fresh = Metadata { cluster_id, topics: BTreeMap::new() };
        fresh.save(files).map_err(LogError::io("metadata"))?;
    }
    Ok(())
}

impl Steps {
    /// One turn of every shard, with all that was sent to it. Returns whether any had something to do.
    pub fn step(&mut self, now: Millis) -> bool {
        self.clock.store(now.0, Ordering::Release);
        self.shards.iter_mut().map(|shard| shard.step(now)).fold(false, |any, one| any | one)
    }

    /// Lets every partition see that time has passed.
    pub fn tick(&mut self, now: Millis) {
        self.clock.store(now.0, Ordering::Release);
        self.shards.iter_mut().for_each(|shard| shard.engine.tick(now));
    }

    /// The clock was set by `by` milliseconds, to `now`.
    pub fn clock_stepped(&mut self, now: Millis, by: i64) {
        self.clock.store(now.0, Ordering::Release);
        self.shards.iter_mut().for_each(|shard| shard.engine.clock_stepped(now, by));
    }

    /// What the keeper does now and then: looks for space, opens what could not be opened, writes the recovery points.
    pub fn keep(&mut self) {
        self.keeper.keep(true);
    }

    /// Makes everything durable for a clean stop.
    ///
    /// # Errors
    /// The disk fails.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.shards.iter_mut().try_for_each(|shard| shard.engine.flush())
    }
}
