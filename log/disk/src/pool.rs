//! A few threads that sync files for all shards, so that the partitions of one commit are synced side by side.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use forebay_log::limits::SYNC_THREADS;

use crate::files::File;

struct Job {
    index: usize,
    file: Arc<dyn File>,
    done: SyncSender<(usize, io::Result<()>)>,
}

/// Syncs files, several at a time. The threads end when the last pool handle is dropped.
#[derive(Clone)]
pub(crate) struct SyncPool {
    jobs: Option<SyncSender<Job>>,
}

impl SyncPool {
    /// A pool with its threads; the caller of [`SyncPool::sync_all`] works too.
    pub(crate) fn start() -> io::Result<SyncPool> {
        let (jobs, waiting) = sync_channel::<Job>(SYNC_THREADS);
        let waiting = Arc::new(Mutex::new(waiting));
        for n in 0..SYNC_THREADS {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(format!("forebay-sync-{n}")).spawn(move || work(&waiting))?;
        }
        Ok(SyncPool { jobs: Some(jobs) })
    }

    /// A pool without threads, for a deterministic simulation: everything on the caller's thread, in order.
    pub(crate) fn inline() -> SyncPool {
        SyncPool { jobs: None }
    }

    /// Syncs all files and returns each one's result, in order.
    pub(crate) fn sync_all(&self, files: &[Arc<dyn File>]) -> Vec<io::Result<()>> {
        let (Some(jobs), true) = (&self.jobs, files.len() > 1) else {
            return files.iter().map(|file| file.sync()).collect();
        };
        let (done, results) = sync_channel(files.len());
        let mut synced: Vec<Option<io::Result<()>>> = Vec::new();
        synced.resize_with(files.len(), || None);
        for (index, file) in files.iter().enumerate().skip(1) {
            let job = Job { index, file: Arc::clone(file), done: done.clone() };
            // A pool that takes nothing more leaves the work to the caller.
            if let Err(refused) = jobs.try_send(job) {
                let (std::sync::mpsc::TrySendError::Full(job) | std::sync::mpsc::TrySendError::Disconnected(job)) =
                    refused;
                synced[index] = Some(job.file.sync());
            }
        }
        drop(done);
        synced[0] = Some(files[0].sync());
        for (index, result) in results {
            synced[index] = Some(result);
        }
        let lost = || Err(io::Error::other("a sync thread ended before its work"));
        synced.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { index, file, done }) = job else { return };
        let result = file.sync();
        drop(file);
        // The caller waits for every result, so it is there.
        drop(done.send((index, result)));
    }
}
