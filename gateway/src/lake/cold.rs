//! Reads of the cold tier: few at a time, each with an end, so that a store that does not answer takes nothing from others.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_log::ReadError;
use forebay_tiering::manifest::Entry;
use forebay_tiering::parquet::{ColdReader, ObjectError};
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::told::Told;
use crate::metrics::Metrics;

/// Reads at the same time in one node: each takes a thread.
const READS: usize = 8;
/// Reads that may wait for others.
const WAITING: usize = 256;
/// How long a read waits for others.
const WAIT: Duration = Duration::from_secs(10);
/// How long one object may take.
const READ_TIME: Duration = Duration::from_secs(60);

/// Reads objects for all who ask.
pub(super) struct ColdReads {
    reader: Arc<ColdReader>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    queue: Semaphore,
    told: Mutex<Told>,
}

impl ColdReads {
    pub(super) fn new(reader: Arc<ColdReader>, metrics: Arc<Metrics>) -> ColdReads {
        let (places, queue) = (Arc::new(Semaphore::new(READS)), Semaphore::new(WAITING));
        ColdReads { reader, metrics, places, queue, told: Mutex::default() }
    }

    /// Does `work` on an object in a thread that no connection waits for. Work that has begun goes on when whoever asked has
    /// gone, so that the next try finds in the cache what this one has fetched.
    ///
    /// # Errors
    /// The object cannot be read now, or too many others are being read.
    pub(super) async fn run<T, F>(
        &self,
        entry: &Entry,
        work: impl FnOnce(Arc<ColdReader>, Path) -> F + Send + 'static,
    ) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ObjectError>>,
    {
        let Some(place) = self.place().await else {
            return Err(self.failed(entry, &"too many reads wait for the object store; try again"));
        };
        let (reader, path, runtime) = (self.reader.clone(), Path::from(entry.path.as_str()), Handle::current());
        let work = move || {
            let _place = place;
            runtime.block_on(async { timeout(READ_TIME, work(reader, path)).await })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(self.failed(entry, &error)),
            Ok(Err(_)) => Err(self.failed(entry, &format!("no answer in {} s", READ_TIME.as_secs()))),
            Err(error) => Err(self.failed(entry, &error)),
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = self.queue.try_acquire().ok()?;
        timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()
    }

    fn failed(&self, entry: &Entry, why: &dyn Display) -> ReadError {
        self.metrics.lake.cold_read_failed();
        let error = format!("cold tier, object {}: {why}", entry.path);
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).is_news(&error, Instant::now()) {
            tracing::warn!(error, "records that are only in the lake cannot be read now");
        }
        ReadError::Storage(error)
    }
}
