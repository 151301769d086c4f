//! A partition's files from the writer's side: performs the machine's work, and undoes what failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_log::partition::{EpochCache, Placed, Repair, Restored, Truncation, Work, Write};
use forebay_log::segment::{FileKind, Indexes};
use forebay_log::{Millis, Offset};

use crate::files::{File, Files, remove_if_there, replace_file};
use crate::layout::{segment_path, swap_path};
use crate::recover::Recovered;
use crate::segment_file::SegmentFile;
use crate::shared::Shared;
use crate::space::Space;
use crate::starts;
use crate::swap::Swaps;
use crate::truncate::Cut;

/// A write that is in the file but not durable yet.
struct Pending {
    batches: Vec<Placed>,
    rolled: Option<Arc<SegmentFile>>,
}

/// The files of one partition. One shard owns it.
pub(crate) struct Store {
    files: Arc<dyn Files>,
    dir: PathBuf,
    space: Arc<Space>,
    shared: Arc<Shared>,
    active: Arc<SegmentFile>,
    pending: Option<Pending>,
    /// Segments that readers no longer see but whose files are not removed yet.
    doomed: Vec<Offset>,
    swaps: Swaps,
}

impl Store {
    pub(crate) fn new(
        files: Arc<dyn Files>,
        dir: PathBuf,
        space: Arc<Space>,
        shared: Arc<Shared>,
        active: Arc<SegmentFile>,
    ) -> Store {
        Store { files, dir, space, shared, active, pending: None, doomed: Vec::new(), swaps: Swaps::default() }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Does the work up to the sync; returns the file that has to be synced for it, if any.
    pub(crate) fn perform(&mut self, work: &Work) -> io::Result<Option<Arc<dyn File>>> {
        match work {
            Work::Starts(starts) => {
                self.space.reserved(|| starts::save(self.files.as_ref(), &self.dir, starts))?;
                Ok(None)
            }
            Work::Compact(compacted) => {
                self.swaps.begin(&self.files, &self.dir, compacted)?;
                Ok(None)
            }
            Work::Write(write) => self.write(write).map(Some),
        }
    }

    fn write(&mut self, write: &Write) -> io::Result<Arc<dyn File>> {
        if let Some(epochs) = &write.epochs {
            self.space.reserved(|| save_epochs(self.files.as_ref(), &self.dir, epochs))?;
        }
        let rolled = if write.roll { Some(self.roll(write.segment)?) } else { None };
        let file = rolled.as_ref().unwrap_or(&self.active).file()?;
        let slices: Vec<io::IoSlice<'_>> = write.slices.iter().map(|slice| io::IoSlice::new(slice)).collect();
        if self.shared.internal {
            // The program's own state may use the reserve: the same bytes go to the same place again.
            self.space.reserved_for_state(|| file.write_at(write.position, &slices))?;
        } else {
            file.write_at(write.position, &slices)?;
        }
        self.pending = Some(Pending { batches: write.batches.clone(), rolled });
        Ok(file)
    }

    /// Seals the active segment's files and begins the next one's.
    fn roll(&self, base: Offset) -> io::Result<Arc<SegmentFile>> {
        let make = || {
            self.active.file()?.sync()?;
            self.active.write_indexes()?;
            let file = self.files.open(&segment_path(&self.dir, base, FileKind::Log), true)?;
            file.set_len(0)?;
            self.files.sync_dir(&self.dir)?;
            Ok(file)
        };
        let file = if self.shared.internal { self.space.reserved_for_state(make) } else { make() }?;
        let indexes = Indexes::new(base);
        Ok(Arc::new(SegmentFile::active(Arc::clone(&self.files), &self.dir, base, 0, file, indexes)))
    }

    /// The pending write is durable: readers may see it.
    pub(crate) fn commit(&mut self) {
        if let Some(gone) = self.swaps.show(&self.shared) {
            self.doomed.extend(gone);
            self.sweep();
        }
        let Some(Pending { batches, rolled }) = self.pending.take() else { return };
        self.shared.stats.appended(batches.iter().map(|placed| placed.header.size as u64).sum());
        if let Some(new) = rolled {
            new.grow(&batches);
            let mut segments = Vec::clone(&self.shared.segments.load());
            segments.push(Arc::clone(&new));
            self.shared.segments.store(Arc::new(segments));
            self.active.close();
            self.active = new;
        } else {
            self.active.grow(&batches);
        }
    }

    /// The pending write failed; the machine asks for a repair next.
    pub(crate) fn abandon(&mut self) {
        self.swaps.abandon(self.files.as_ref(), &self.dir);
        self.pending = None;
    }

    /// Cuts everything off that is not durable, and makes the cut durable.
    pub(crate) fn repair(&mut self, repair: &Repair) -> io::Result<()> {
        let file = self.active.file()?;
        file.set_len(repair.len)?;
        file.sync()?;
        if let Some(base) = repair.remove {
            remove_if_there(self.files.as_ref(), &segment_path(&self.dir, base, FileKind::Log))?;
            self.files.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Cuts the log and opens what is left of it; may be done again after a failure.
    pub(crate) fn truncate(&mut self, cut: &Truncation, now: Millis) -> io::Result<Restored> {
        self.swaps.finish(self.files.as_ref(), &self.dir);
        let high_watermark = self.shared.marks.borrow().high_watermark;
        let (space, stats) = (self.space.as_ref(), self.shared.stats.as_ref());
        let segments = self.shared.segments.load_full();
        let (files, dir) = (&self.files, self.dir.as_path());
        let run = Cut { files, dir, space, stats, segments: &segments, high_watermark, now }.run(cut);
        let Recovered { restored, segments } = run?;
        self.active = segments.last().cloned().ok_or_else(|| io::Error::other("recovery made no segment"))?;
        self.shared.segments.store(Arc::new(segments));
        Ok(restored)
    }

    /// Sets when the segments' files were modified: what a restart takes for their times of append.
    pub(crate) fn stamp(&self, stamps: &[(Offset, Millis)]) {
        for &(base, appended) in stamps {
            let path = segment_path(&self.dir, base, FileKind::Log);
            let stamped = self.files.open(&path, false).and_then(|file| file.set_modified(appended.0));
            if let Err(error) = stamped {
                tracing::warn!(%error, file = %path.display(), "the age of a segment is not right after a restart");
            }
        }
    }

    /// Takes segments away from readers, then removes their files.
    pub(crate) fn delete(&mut self, bases: &[Offset]) {
        let mut segments = Vec::clone(&self.shared.segments.load());
        segments.retain(|segment| !bases.contains(&segment.base));
        self.shared.segments.store(Arc::new(segments));
        self.swaps.forget(bases);
        self.doomed.extend_from_slice(bases);
        self.sweep();
    }

    /// Removes the files of deleted segments; what fails is tried again at the next tick.
    pub(crate) fn sweep(&mut self) {
        if self.doomed.is_empty() {
            return self.swaps.finish(self.files.as_ref(), &self.dir);
        }
        let (files, dir) = (self.files.as_ref(), &self.dir);
        self.doomed.retain(|&base| match remove_segment(files, dir, base) {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), base = base.0, "cannot remove a deleted segment");
                true
            }
        });
        if let Err(error) = files.sync_dir(dir) {
            tracing::warn!(%error, dir = %dir.display(), "cannot sync a directory after deletion");
        } else if self.doomed.is_empty() {
            self.swaps.finish(files, dir);
        }
    }

    /// Makes everything durable for a stop: the active segment and its indexes.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.active.file()?.sync()?;
        self.active.write_indexes()
    }
}

/// Removes a segment's files, the log last: while it is there, the segment is found again.
pub(crate) fn remove_segment(files: &dyn Files, dir: &std::path::Path, base: Offset) -> io::Result<()> {
    remove_if_there(files, &swap_path(dir, base))?;
    for kind in [FileKind::Index, FileKind::TimeIndex, FileKind::Log] {
        remove_if_there(files, &segment_path(dir, base, kind))?;
    }
    Ok(())
}

/// Kafka's name for the file of leader epochs.
pub(crate) const EPOCHS_FILE: &str = "leader-epoch-checkpoint";

pub(crate) fn save_epochs(files: &dyn Files, dir: &std::path::Path, epochs: &EpochCache) -> io::Result<()> {
    replace_file(files, &dir.join(EPOCHS_FILE), epochs.to_text().as_bytes())
}
