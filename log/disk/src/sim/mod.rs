//! A file system in memory that fails on purpose: seeded, deterministic, for tests and simulations.
//!
//! It is as unkind as POSIX allows. A crash loses what was not synced, sector by sector, so that writes tear; names in a
//! directory are lost unless that directory was synced. A failed sync may have written anything, and what it did
//! not write is not written by a later sync either, as Linux does it. A full disk takes the first part of a write.

mod disk;
mod hooked;
mod random;
mod stepped;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use disk::{Disk, NodeId};
pub use hooked::{Hook, HookedFiles, Step};
pub use random::Random;
pub use stepped::Steps;

use crate::files::{File, Files};

/// What goes wrong, and how often. Rates are chances in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Writes that fail with EIO.
    pub write_per_mille: u32,
    /// Syncs that fail with EIO.
    pub sync_per_mille: u32,
    /// Bytes that the disk holds; more is ENOSPC.
    pub capacity: Option<u64>,
    /// Operations until everything fails, as if the machine had stopped; [`SimFiles::crash`] starts it again.
    pub stop_after: Option<u64>,
}

/// The simulated file system. Clones share it.
#[derive(Clone)]
pub struct SimFiles {
    disk: Arc<Mutex<Disk>>,
}

impl SimFiles {
    #[must_use]
    pub fn new(seed: u64) -> SimFiles {
        SimFiles { disk: Arc::new(Mutex::new(Disk::new(seed))) }
    }

    /// From now on these faults happen.
    pub fn set_faults(&self, faults: Faults) {
        self.with(|disk| disk.faults = faults);
    }

    /// The machine loses power: what was not synced is lost or torn, open files are gone, faults end.
    pub fn crash(&self) {
        self.with(Disk::crash);
    }

    /// Successful syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.with(|disk| disk.syncs)
    }

    /// Sets the clock from which files take their modification times, in milliseconds since the epoch.
    pub fn set_clock(&self, millis: i64) {
        self.with(|disk| disk.clock = millis);
    }

    /// Flips the bits of `mask` in a stored byte, behind everyone's back.
    ///
    /// # Errors
    /// When there is no such file or byte.
    pub fn flip(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        self.with(|disk| disk.flip(path, position, mask))
    }

    /// Every file with its bytes, to compare two runs.
    #[must_use]
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.with(|disk| disk.contents())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.disk.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Files for SimFiles {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let (node, boot) = self.with(|disk| disk.open(path, create))?;
        Ok(Arc::new(SimFile { disk: Arc::clone(&self.disk), node, boot }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| disk.remove(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|disk| disk.rename(from, to))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| disk.create_dir_all(path))
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| disk.remove_dir_all(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.with(|disk| disk.list(path))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| disk.sync_dir(path))
    }
}

/// An open file of the simulation; a crash invalidates it.
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    node: NodeId,
    boot: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.check_boot(self.boot)?;
        act(&mut disk)
    }
}

impl File for SimFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|disk| disk.read(self.node, position, buffer))
    }
    fn write_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()> {
        let bytes = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        self.with(|disk| disk.write(self.node, position, &bytes))
    }
    fn sync(&self) -> io::Result<()> {
        self.with(|disk| disk.sync(self.node))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|disk| disk.set_len(self.node, len))
    }
    fn len(&self) -> io::Result<u64> {
        self.with(|disk| disk.len(self.node))
    }
    fn modified(&self) -> io::Result<i64> {
        self.with(|disk| disk.modified(self.node))
    }
    fn set_modified(&self, millis: i64) -> io::Result<()> {
        self.with(|disk| disk.set_modified(self.node, millis))
    }
}
