//! Any file system, made to fail now and then: for tests of a whole node on real files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Random;
use crate::files::{File, Files};

/// Fails a share of the writes and syncs of another [`Files`] with EIO.
pub struct FlakyFiles {
    inner: Arc<dyn Files>,
    chances: Arc<Chances>,
    below: PathBuf,
}

struct Chances {
    random: Mutex<Random>,
    per_mille: u32,
}

impl Chances {
    fn broken(&self) -> bool {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).chance(self.per_mille)
    }

    fn error() -> io::Error {
        io::Error::other("injected IO error")
    }
}

impl FlakyFiles {
    /// Fails `per_mille` of a thousand writes and syncs, chosen by `seed`. A failed write has written its first slice.
    #[must_use]
    pub fn new(inner: Arc<dyn Files>, per_mille: u32, seed: u64) -> FlakyFiles {
        FlakyFiles {
            inner,
            chances: Arc::new(Chances { random: Mutex::new(Random::new(seed)), per_mille }),
            below: PathBuf::new(),
        }
    }

    /// Only what lies below this path fails.
    #[must_use]
    pub fn only_below(self, path: &str) -> FlakyFiles {
        FlakyFiles { below: path.into(), ..self }
    }
}

impl Files for FlakyFiles {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, create)?;
        if !path.starts_with(&self.below) {
            return Ok(inner);
        }
        Ok(Arc::new(FlakyFile { inner, chances: Arc::clone(&self.chances) }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if path.starts_with(&self.below) && self.chances.broken() {
            return Err(Chances::error());
        }
        self.inner.sync_dir(path)
    }
    fn close(&self) {
        self.inner.close();
    }
}

struct FlakyFile {
    inner: Arc<dyn File>,
    chances: Arc<Chances>,
}

impl File for FlakyFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(position, buffer)
    }
    fn write_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()> {
        if self.chances.broken() {
            self.inner.write_at(position, slices.get(..1).unwrap_or_default())?;
            return Err(Chances::error());
        }
        self.inner.write_at(position, slices)
    }
    fn sync(&self) -> io::Result<()> {
        if self.chances.broken() { Err(Chances::error()) } else { self.inner.sync() }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn modified(&self) -> io::Result<i64> {
        self.inner.modified()
    }
    fn set_modified(&self, millis: i64) -> io::Result<()> {
        self.inner.set_modified(millis)
    }
}
