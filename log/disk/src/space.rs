//! Life on a full disk: a reserve that keeps metadata writable, and the probe that notices when space has returned.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_log::limits::{DISK_FULL_HEADROOM_BYTES, RESERVE_BYTES};
use tracing::{info, warn};

use crate::files::{Files, is_disk_full, remove_if_there};

const RESERVE_FILE: &str = "reserve";
/// How often a write of metadata is tried before it has failed.
const METADATA_TRIES: usize = 3;
const BLOCK: usize = 1 << 20;

/// Whether the disk is full, and the reserve for that time.
pub(crate) struct Space {
    files: Arc<dyn Files>,
    full: AtomicBool,
    /// Serialises making and releasing the reserve file.
    reserve: Mutex<()>,
    /// Bytes of the reserve, and those that must be free beyond it before a full disk counts as free again.
    size: (u64, u64),
}

impl Space {
    /// Makes the reserve; a disk already too full for it starts as full.
    pub(crate) fn open(files: Arc<dyn Files>) -> Space {
        Space::with_reserve(files, RESERVE_BYTES, DISK_FULL_HEADROOM_BYTES)
    }

    pub(crate) fn with_reserve(files: Arc<dyn Files>, bytes: u64, headroom: u64) -> Space {
        let size = (bytes, headroom);
        let space = Space { files, full: AtomicBool::new(false), reserve: Mutex::new(()), size };
        let held = space.files.open(Path::new(RESERVE_FILE), false).and_then(|file| file.len());
        if !held.is_ok_and(|len| len >= bytes)
            && let Err(error) = space.make_reserve()
        {
            space.full.store(is_disk_full(&error), Ordering::Release);
            warn!(%error, "cannot hold a reserve for a full disk");
        }
        space
    }

    /// Whether appends of users' records are refused now.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Notes an error of a write; a full disk gives up the reserve.
    pub(crate) fn note(&self, error: &io::Error) {
        if is_disk_full(error) {
            let _guard = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.full.swap(true, Ordering::AcqRel) {
                warn!("disk full: appends are refused until space returns; metadata uses the reserve");
            }
            if let Err(error) = remove_if_there(self.files.as_ref(), Path::new(RESERVE_FILE)) {
                warn!(%error, "cannot release the reserve");
            }
        }
    }

    /// Runs a write of metadata or of the program's own state, which repeats as a whole: after an error it is tried again,
    /// on a full disk with the reserve released.
    pub(crate) fn reserved<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        for _ in 1..METADATA_TRIES {
            match write() {
                Ok(done) => return Ok(done),
                Err(error) => self.note(&error),
            }
        }
        write()
    }

    /// On a full disk, tries whether the reserve can be made again; then appends resume.
    pub(crate) fn probe(&self) {
        if self.is_full() && self.make_reserve().is_ok() {
            self.full.store(false, Ordering::Release);
            info!("disk space has returned: appends are accepted again");
        }
    }

    /// Writes the reserve and some headroom, so that a disk at its limit does not flap; keeps the reserve only.
    fn make_reserve(&self) -> io::Result<()> {
        let _guard = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let path = Path::new(RESERVE_FILE);
        let written = self.files.open(path, true).and_then(|file| {
            let (reserve, headroom) = self.size;
            let zeros = vec![0; BLOCK];
            let mut position = 0;
            while position < reserve + headroom {
                let left = usize::try_from(reserve + headroom - position).unwrap_or(BLOCK);
                file.write_at(position, &[io::IoSlice::new(&zeros[..left.min(BLOCK)])])?;
                position += left.min(BLOCK) as u64;
            }
            file.sync()?;
            file.set_len(reserve)?;
            self.files.sync_dir(Path::new(""))
        });
        if written.is_err() {
            // A part of a reserve would only take the last free bytes from the metadata.
            remove_if_there(self.files.as_ref(), path)?;
        }
        written
    }
}
