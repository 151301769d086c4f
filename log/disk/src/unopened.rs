//! Partitions that could not be opened: offline, and tried again until they can be or their topic is deleted.

use std::num::NonZero;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use forebay_log::Millis;
use tracing::{error, info};

use crate::LogError;
use crate::engine::PartitionKey;
use crate::open::OpenPartition;
use crate::shard::{Mailbox, Request};

/// A partition on its way to its shard.
pub(crate) struct Unopened {
    pub(crate) key: PartitionKey,
    pub(crate) mailbox: Mailbox,
    pub(crate) open: OpenPartition,
}

/// Those that wait for another try.
pub(crate) struct UnopenedList {
    waiting: Mutex<Vec<(Unopened, Again)>>,
    clock: Clock,
}

/// The time of an opening.
pub(crate) enum Clock {
    System,
    /// As the steps of a simulation say, in milliseconds: one after the other on the caller's thread.
    Stepped(Arc<AtomicI64>),
}

impl Clock {
    fn now(&self) -> Millis {
        match self {
            Clock::System => Millis::from_system(SystemTime::now()),
            Clock::Stepped(now) => Millis(now.load(Ordering::Acquire)),
        }
    }
}

/// When a partition is tried again: its recovery may read much, so the waits grow.
struct Again {
    at: Instant,
    wait: Duration,
}

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Again {
    fn after(wait: Duration) -> Again {
        Again { at: Instant::now() + wait, wait }
    }
}

impl UnopenedList {
    pub(crate) fn new(clock: Clock) -> UnopenedList {
        UnopenedList { waiting: Mutex::default(), clock }
    }

    /// Opens a partition and gives it to its shard; one that fails is kept here.
    ///
    /// # Errors
    /// [`LogError::Closed`] when the shard has stopped.
    pub(crate) fn open(&self, unopened: Unopened) -> Result<(), LogError> {
        let Unopened { key, mailbox, open } = &unopened;
        match open.run(self.clock.now()) {
            Ok(driver) => mailbox.send_blocking(Request::Add(*key, Box::new(driver))).map_err(|_| LogError::Closed),
            Err(cause) => {
                let (topic, partition) = (&open.shared.topic, open.shared.index);
                error!(topic, partition, %cause, "partition is offline: it cannot be opened; tried again after 1 to 60 s");
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push((unopened, Again::after(FIRST_WAIT)));
                Ok(())
            }
        }
    }

    /// Opens partitions side by side: each is mostly a scan of its active segment.
    ///
    /// # Errors
    /// As [`UnopenedList::open`].
    pub(crate) fn open_all(&self, partitions: Vec<Unopened>) -> Result<(), LogError> {
        if matches!(self.clock, Clock::Stepped(_)) {
            return partitions.into_iter().try_for_each(|partition| self.open(partition));
        }
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(partitions.len());
        let left = Mutex::new(partitions);
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || -> Result<(), LogError> {
            while let Some(partition) = next() {
                self.open(partition)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            workers.into_iter().map(|worker| worker.join().unwrap_or(Err(LogError::Closed))).fold(mine, Result::and)
        })
    }

    /// Tries all of them again.
    pub(crate) fn retry(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain_mut(|(Unopened { key, mailbox, open }, again)| {
            if open.shared.removed.load(Ordering::Acquire) {
                return false;
            }
            if again.at > Instant::now() && matches!(self.clock, Clock::System) {
                return true;
            }
            let Ok(driver) = open.run(self.clock.now()) else {
                *again = Again::after((again.wait * 2).min(LONGEST_WAIT));
                return true;
            };
            info!(topic = %open.shared.topic, partition = open.shared.index, "partition is online again");
            // A shard that has stopped needs it no more.
            let _ = mailbox.send_blocking(Request::Add(*key, Box::new(driver)));
            false
        });
    }
}
