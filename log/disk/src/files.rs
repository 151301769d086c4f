//! The only door to the disk: everything the log does to files goes through this trait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system. Paths are relative to the root it was opened at. The real one and the fault-injecting fake pass one
/// conformance suite.
pub trait Files: Send + Sync + 'static {
    /// Opens for reading and writing, creating the file if `create`.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file; positions are explicit, so readers and the writer share it.
pub trait File: Send + Sync + 'static {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of the slices, one after the other.
    fn write_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// fdatasync
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Last modification, milliseconds since the epoch.
    fn modified(&self) -> io::Result<i64>;
}
