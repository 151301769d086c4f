//! The real file system under one data directory, locked against a second process.

use std::fs;
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use forebay_log::Millis;

use crate::LogError;
use crate::files::{File, Files};

/// Name of the lock file in the data directory (Kafka's name).
const LOCK_FILE: &str = ".lock";
/// Up to so many slices, one system call each is as good as a gathered write.
const MOST_SINGLE_WRITES: usize = 2;

/// Makes a directory and whatever is missing above it, so that power loss leaves none of their names out.
fn make_durably(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(&path)?;
    missing.iter().filter_map(|folder| folder.parent()).try_for_each(|parent| fs::File::open(parent)?.sync_all())
}

/// A directory of the real file system. Holds the lock on it until it is closed or dropped.
pub struct RealFiles {
    root: PathBuf,
    lock: Mutex<Option<fs::File>>,
}

impl RealFiles {
    /// Opens `root`, making it if it is missing, and locks it.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process has it, [`LogError::Io`] otherwise.
    pub fn open(root: impl Into<PathBuf>) -> Result<Arc<RealFiles>, LogError> {
        let root = root.into();
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |source| LogError::Io { path, source }
        };
        make_durably(&root).map_err(at(&root))?;
        let path = root.join(LOCK_FILE);
        let lock = fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Arc::new(RealFiles { root, lock: Mutex::new(Some(lock)) })),
            Err(fs::TryLockError::WouldBlock) => Err(LogError::Locked),
            Err(fs::TryLockError::Error(source)) => Err(at(&path)(source)),
        }
    }
}

impl Files for RealFiles {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        // What was published, and what users prove their passwords by, is nobody else's on this machine.
        let mut options = fs::File::options();
        let options = options.read(true).write(true).create(create).truncate(false).mode(0o600);
        let file = options.open(self.root.join(path))?;
        Ok(Arc::new(RealFile { file }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(self.root.join(path))
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(self.root.join(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(path))? {
            names.push(PathBuf::from(entry?.file_name()));
        }
        names.sort();
        Ok(names)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(self.root.join(path))?.sync_all()
    }
    fn close(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

struct RealFile {
    file: fs::File,
}

impl RealFile {
    /// Writes many slices with few system calls. It moves the file's own position, which nothing else uses: reads and
    /// single writes name theirs, and a file has one writer.
    fn write_vectored_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(io::SeekFrom::Start(position))?;
        let mut left = slices.to_vec();
        let mut left = left.as_mut_slice();
        io::IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(written) => io::IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl File for RealFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
    fn read_into(&self, position: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.file, rustix::buffer::spare_capacity(buffer), position)?)
    }
    fn write_at(&self, mut position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()> {
        if slices.len() > MOST_SINGLE_WRITES {
            return self.write_vectored_at(position, slices);
        }
        for slice in slices {
            self.file.write_all_at(slice, position)?;
            position += slice.len() as u64;
        }
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn modified(&self) -> io::Result<i64> {
        Ok(Millis::from_system(self.file.metadata()?.modified()?).0)
    }
    fn set_modified(&self, millis: i64) -> io::Result<()> {
        self.file.set_modified(UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default()))
    }
}
