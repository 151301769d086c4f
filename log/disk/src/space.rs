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
/// The share of the reserve that only metadata may use.
const METADATA_SHARE: u64 = 4;
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

    /// Notes an error of a write: on a full disk appends are refused from now on. The reserve stays for those who need it: given
    /// up now, any other program could take it.
    pub(crate) fn note(&self, error: &io::Error) {
        if is_disk_full(error) && !self.full.swap(true, Ordering::AcqRel) {
            warn!("disk full: appends are refused until space returns; metadata uses the reserve");
        }
    }

    /// Runs a write of metadata, which repeats as a whole: after an error it is tried again, on a full disk with the reserve
    /// released.
    pub(crate) fn reserved<T>(&self, write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.retried(write, 0)
    }

    /// As [`Space::reserved`] for the program's own state: a part of the reserve is left to the metadata, without which nothing
    /// can be deleted.
    pub(crate) fn reserved_for_state<T>(&self, write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.retried(write, self.size.0 / METADATA_SHARE)
    }

    fn retried<T>(&self, mut write: impl FnMut() -> io::Result<T>, keep: u64) -> io::Result<T> {
        for _ in 1..METADATA_TRIES {
            match write() {
                Ok(done) => return Ok(done),
                Err(error) => {
                    self.note(&error);
                    if is_disk_full(&error) {
                        self.release(keep);
                    }
                }
            }
        }
        write()
    }

    /// Gives the reserve up, down to `keep` bytes.
    fn release(&self, keep: u64) {
        let _guard = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let path = Path::new(RESERVE_FILE);
        let released = match self.files.open(path, false) {
            Ok(file) if keep > 0 => file.len().and_then(|len| if len > keep { file.set_len(keep) } else { Ok(()) }),
            Ok(_) => remove_if_there(self.files.as_ref(), path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = released {
            warn!(%error, "cannot release the reserve");
        }
    }

    /// On a full disk, tries whether the reserve can be made again; then appends resume.
    pub(crate) fn probe(&self) {
        if self.is_full() && self.make_reserve().is_ok() {
            self.full.store(false, Ordering::Release);
            info!("disk space has returned: appends are accepted again");
        }
    }

    /// Writes what is missing of the reserve and some headroom, so that a disk at its limit does not flap; keeps the reserve
    /// only.
    fn make_reserve(&self) -> io::Result<()> {
        let _guard = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let path = Path::new(RESERVE_FILE);
        let mut held = 0;
        let written = self.files.open(path, true).and_then(|file| {
            let (reserve, headroom) = self.size;
            let zeros = vec![0; BLOCK];
            held = file.len()?.min(reserve);
            let mut position = held;
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
            // More of a reserve than there was would only take the last free bytes from the metadata.
            self.files.open(path, false)?.set_len(held)?;
        }
        written
    }
}
