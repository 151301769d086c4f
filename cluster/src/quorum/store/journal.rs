//! The journal's writer: each change is one frame, synced before anybody is told.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_disk::{File, Files};

use super::format::{self, Kind, State};
use super::{at, damage};
use crate::quorum::disk::Disk;

/// A file before the one that is written.
pub(super) struct Older {
    pub(super) number: u64,
    /// The highest index that was ever in it.
    pub(super) highest: Option<u64>,
}

/// The journal's files. Every method blocks.
pub(super) struct Journal {
    pub(super) disk: Disk,
    pub(super) folder: PathBuf,
    pub(super) older: VecDeque<Older>,
    pub(super) file: Arc<dyn File>,
    pub(super) number: u64,
    pub(super) highest: Option<u64>,
    /// The durable length of the file; it ends in a whole frame.
    pub(super) len: u64,
    /// Why nothing can be written any more: the file could not be cut back to its durable length.
    pub(super) broken: Option<String>,
    /// See [`limits::LOG_FILE_BYTES`].
    pub(super) file_bytes: u64,
}

impl Journal {
    /// Writes one frame and syncs it; `state` is what a new file begins with, if this frame comes to be in one.
    ///
    /// After a failure the file is cut back and the write tried again a few times.
    ///
    /// # Errors
    /// When that does not help: then the frame is not there, unless a cut back failed as well, which ends the journal.
    pub(super) fn write(&mut self, kind: Kind, body: &[u8], state: &State) -> io::Result<()> {
        if self.len >= self.file_bytes {
            self.roll(state)?;
        }
        let disk = self.disk.clone();
        disk.write("the quorum's log", || {
            self.try_write(kind, body).or_else(|error| {
                self.cut_back()?;
                Err(error)
            })
        })
    }

    fn try_write(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        self.check()?;
        let path = format::path(&self.folder, self.number);
        let bytes = format::frame(self.number, self.len, kind, body).map_err(io::Error::other)?;
        self.file.write_at(self.len, &[io::IoSlice::new(&bytes)]).map_err(at("writing", &path))?;
        self.file.sync().map_err(at("syncing", &path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        self.broken.as_ref().map_or(Ok(()), |why| Err(io::Error::other(why.clone())))
    }

    /// What a failed write or sync may have left behind the durable end is not trusted: it goes, durably.
    fn cut_back(&mut self) -> io::Result<()> {
        self.check()?;
        let path = format::path(&self.folder, self.number);
        let cut = self.file.set_len(self.len).and_then(|()| self.file.sync());
        cut.map_err(at("cutting back after a failed write", &path)).inspect_err(|error| {
            self.broken = Some(error.to_string());
        })
    }

    /// What failed for good is tried again: no file behind the one that is written to, and that one as long as it is known to be
    /// durable. What lies behind was never acknowledged, and may not be on the disk even if it can be read.
    ///
    /// # Errors
    /// IO errors: nothing can be written yet.
    pub(super) fn repair(&mut self) -> io::Result<()> {
        let files = &self.disk.files;
        let (path, next) = (format::path(&self.folder, self.number), format::path(&self.folder, self.number + 1));
        match files.remove(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("removing a half-made", &next)(error));
            }
            _ => files.sync_dir(&self.folder).map_err(at("syncing the folder of", &path))?,
        }
        let file = files.open(&path, false).map_err(at("opening", &path))?;
        if file.len().map_err(at("reading", &path))? < self.len {
            return Err(damage(&path, "it is shorter than what was written to it"));
        }
        (self.file, self.broken) = (file, None);
        self.cut_back()
    }

    /// Goes on in a new file.
    fn roll(&mut self, state: &State) -> io::Result<()> {
        self.check()?;
        let next = self.number + 1;
        match create(self.disk.files.as_ref(), &self.folder, next, state) {
            Ok((file, len)) => {
                self.older.push_back(Older { number: self.number, highest: self.highest.take() });
                (self.file, self.number, self.len) = (file, next, len);
                Ok(())
            }
            Err(error) => {
                // A half-made file must not be found behind one that is still written to.
                let path = format::path(&self.folder, next);
                let gone = match self.disk.files.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => self.disk.files.sync_dir(&self.folder),
                };
                gone.map_err(at("removing a half-made", &path)).inspect_err(|error| {
                    self.broken = Some(error.to_string());
                })?;
                tracing::warn!(%error, "no new file for the quorum's log; the last one grows on");
                Ok(())
            }
        }
    }

    /// Removes the files whose entries are all purged, from the oldest on. One that cannot be removed is tried again with
    /// the next purge.
    pub(super) fn remove_purged(&mut self, upto: u64) {
        while let Some(oldest) = self.older.front().filter(|older| older.highest.is_none_or(|index| index <= upto)) {
            let path = format::path(&self.folder, oldest.number);
            // Synced one by one: a crash must not leave a hole in the row of files.
            let files = &self.disk.files;
            let removed = files.remove(&path).and_then(|()| files.sync_dir(&self.folder));
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "a purged file of the quorum's log was not removed");
                    return;
                }
                _ => self.older.pop_front(),
            };
        }
    }
}

/// Makes a file with its header and first frame, all durable; returns it with its length.
pub(super) fn create(
    files: &dyn Files,
    folder: &std::path::Path,
    number: u64,
    state: &State,
) -> io::Result<(Arc<dyn File>, u64)> {
    let path = format::path(folder, number);
    let mut bytes = format::header(number);
    let state = serde_json::to_vec(state)?;
    let frame = format::frame(number, bytes.len() as u64, Kind::State, &state).map_err(io::Error::other)?;
    bytes.extend(frame);
    let make = || {
        let file = files.open(&path, true)?;
        file.set_len(0)?;
        file.write_at(0, &[io::IoSlice::new(&bytes)])?;
        file.sync()?;
        files.sync_dir(folder)?;
        Ok(file)
    };
    Ok((make().map_err(at("making", &path))?, bytes.len() as u64))
}
