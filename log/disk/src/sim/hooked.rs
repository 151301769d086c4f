//! Any file system with a say in what it does: for tests in which it fails, waits or is watched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Random;
use crate::files::{File, Files};

/// What is about to be done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Open,
    Read,
    Write,
    Sync,
    SyncDir,
}

/// Asked before each [`Step`]: may wait, look, or have it fail.
pub type Hook = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

/// Another [`Files`] whose steps ask a hook first. A write that fails has written its first slice.
#[derive(Clone)]
pub struct HookedFiles {
    inner: Arc<dyn Files>,
    hook: Arc<Hook>,
}

impl HookedFiles {
    #[must_use]
    pub fn new(
        inner: Arc<dyn Files>,
        hook: impl Fn(Step, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> HookedFiles {
        HookedFiles { inner, hook: Arc::new(hook) }
    }

    /// Fails `per_mille` of a thousand writes and syncs below `path` with EIO, chosen by `seed`.
    #[must_use]
    pub fn flaky(inner: Arc<dyn Files>, path: &str, per_mille: u32, seed: u64) -> HookedFiles {
        let (random, below) = (Mutex::new(Random::new(seed)), PathBuf::from(path));
        HookedFiles::new(inner, move |step, path| {
            let counts = matches!(step, Step::Write | Step::Sync | Step::SyncDir) && path.starts_with(&below);
            if counts && random.lock().unwrap_or_else(PoisonError::into_inner).chance(per_mille) {
                return Err(io::Error::other("injected IO error"));
            }
            Ok(())
        })
    }
}

impl Files for HookedFiles {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        (self.hook)(Step::Open, path)?;
        let inner = self.inner.open(path, create)?;
        Ok(Arc::new(HookedFile { inner, path: path.to_owned(), hook: Arc::clone(&self.hook) }))
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
        (self.hook)(Step::SyncDir, path)?;
        self.inner.sync_dir(path)
    }
    fn close(&self) {
        self.inner.close();
    }
}

struct HookedFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    hook: Arc<Hook>,
}

impl File for HookedFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (self.hook)(Step::Read, &self.path)?;
        self.inner.read_at(position, buffer)
    }
    fn write_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()> {
        if let Err(error) = (self.hook)(Step::Write, &self.path) {
            self.inner.write_at(position, slices.get(..1).unwrap_or_default())?;
            return Err(error);
        }
        self.inner.write_at(position, slices)
    }
    fn sync(&self) -> io::Result<()> {
        (self.hook)(Step::Sync, &self.path)?;
        self.inner.sync()
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
