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
    /// Nothing is written any more: another process may have the root, even while handles for reading are left.
    fn close(&self) {}
}

/// An open file; positions are explicit, so readers and the writer share it.
pub trait File: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Reads into the spare capacity of `buffer`, which grows by what was read; 0 at the end.
    fn read_into(&self, position: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (before, whole) = (buffer.len(), buffer.capacity());
        buffer.resize(whole, 0);
        let got = self.read_at(position, &mut buffer[before..]);
        buffer.truncate(before + *got.as_ref().unwrap_or(&0));
        got
    }
    /// Writes all of the slices, one after the other.
    fn write_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// fdatasync
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Last modification, milliseconds since the epoch.
    fn modified(&self) -> io::Result<i64>;
    /// Sets the last modification: recovery keeps a segment's day of append when it cuts a torn tail.
    fn set_modified(&self, millis: i64) -> io::Result<()>;
}

/// Whether an error means that no space is left: ENOSPC or EDQUOT.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads until `buffer` is full or the file ends; returns the bytes read.
pub(crate) fn read_full(file: &dyn File, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(position + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// `size` bytes from `position` on, less only at the file's end, into memory that nothing clears before.
///
/// # Errors
/// IO errors.
pub fn read_bytes(file: &dyn File, position: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(size);
    while buffer.len() < size {
        match file.read_into(position + buffer.len() as u64, &mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(size);
    Ok(buffer)
}

/// The whole of a small file; `None` when there is no such file.
///
/// # Errors
/// IO errors.
pub fn read_file(files: &dyn Files, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.len()?).map_err(io::Error::other)?;
    read_bytes(file.as_ref(), 0, size).map(Some)
}

/// Replaces a small file by new content so that a crash leaves the old or the new, whole.
///
/// # Errors
/// IO errors; the old content is still there, unless only syncing the directory failed.
pub fn replace_file(files: &dyn Files, path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("tmp");
    let file = files.open(&new, true)?;
    file.set_len(0)?;
    file.write_at(0, &[io::IoSlice::new(content)])?;
    file.sync()?;
    drop(file);
    files.rename(&new, path)?;
    files.sync_dir(path.parent().unwrap_or(Path::new("")))
}

/// Removes a file; one that is not there is as good.
pub(crate) fn remove_if_there(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
