//! The disk that the quorum writes to, with the room that is kept on it for such writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use forebay_disk::{Files, Log};

use super::limits::WRITE_PAUSES;

type Reserve = dyn Fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send + Sync;

/// Files, and what a write of metadata may use when the disk is full. Clones share it.
#[derive(Clone)]
pub struct Disk {
    pub(crate) files: Arc<dyn Files>,
    reserve: Arc<Reserve>,
    /// See [`WRITE_PAUSES`].
    pub(super) pauses: &'static [Duration],
}

impl Disk {
    /// `reserve` runs a write, and on a full disk runs it again with the room that is kept for it.
    pub fn new(
        files: Arc<dyn Files>,
        reserve: impl Fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Disk {
        Disk { files, reserve: Arc::new(reserve), pauses: &WRITE_PAUSES }
    }

    /// The disk that `log` is on, with the log's reserve.
    pub(crate) fn of(log: &Log, files: Arc<dyn Files>) -> Disk {
        let log = log.clone();
        Disk::new(files, move |write| log.reserved(write))
    }

    /// Runs a write that repeats as a whole, a few times if need be. Blocks.
    ///
    /// # Errors
    /// When that does not help.
    pub(crate) fn write(&self, what: &str, mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut pauses = self.pauses.iter();
        loop {
            let Err(error) = (self.reserve)(&mut write) else { return Ok(()) };
            let Some(pause) = pauses.next() else { return Err(error) };
            tracing::warn!(%error, "{what} was not written; trying again");
            std::thread::sleep(*pause);
        }
    }
}
