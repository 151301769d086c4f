//! A compacted segment takes the places of those that it was made of, in steps that a crash may come between.
//!
//! 1. The cleaner has written and synced `BASE.log.cleaned`.
//! 2. It is renamed to `BASE.log.swap`: from here on the swap will be, whatever happens.
//! 3. Readers get the new segment. The files of the replaced ones are removed, those of the first one last:
//! 4. `BASE.log.swap` is renamed to `BASE.log`.
//!
//! A start finds either a `.cleaned`, which is nothing, or a `.swap`, and then goes on with step 3.

use std::io;
use std::path::Path;
use std::sync::Arc;

use forebay_log::Offset;
use forebay_log::partition::Compacted;
use forebay_log::segment::{FileKind, parse_file_name, scan};

use crate::files::{Files, read_full, remove_if_there};
use crate::layout::{CLEANED, SWAP, cleaned_path, segment_path, swap_path};
use crate::segment_file::SegmentFile;
use crate::shared::Shared;
use crate::store::remove_segment;

/// The swaps of one partition.
#[derive(Default)]
pub(crate) struct Swaps {
    /// Begun, and not yet seen by readers.
    pending: Option<(Arc<SegmentFile>, Vec<Offset>)>,
    /// Seen by readers, but still under the other name.
    shown: Vec<Arc<SegmentFile>>,
}

impl Swaps {
    /// Step 2.
    pub(crate) fn begin(&mut self, files: &Arc<dyn Files>, dir: &Path, compacted: &Compacted) -> io::Result<()> {
        let Some(&base) = compacted.replaces.first() else { return Ok(()) };
        let swap = swap_path(dir, base);
        files.rename(&cleaned_path(dir, base), &swap)?;
        let durable = files.sync_dir(dir).and_then(|()| files.open(&swap, false));
        let file = match durable {
            Ok(file) => file,
            Err(error) => {
                // Its appends go on: a later start must not find it.
                let _ = files.remove(&swap);
                return Err(error);
            }
        };
        let indexes = compacted.indexes.clone();
        // With its file open, which has another name for a while.
        let segment = SegmentFile::active(Arc::clone(files), dir, base, compacted.bytes, file, indexes);
        self.pending = Some((Arc::new(segment), compacted.replaces.clone()));
        Ok(())
    }

    pub(crate) fn abandon(&mut self, files: &dyn Files, dir: &Path) {
        if let Some((segment, _)) = self.pending.take() {
            let _ = files.remove(&swap_path(dir, segment.base));
        }
    }

    /// Shows readers the new segment; returns the replaced ones whose files are to go.
    pub(crate) fn show(&mut self, shared: &Shared) -> Option<Vec<Offset>> {
        let (segment, replaces) = self.pending.take()?;
        let mut segments = Vec::clone(&shared.segments.load());
        let at = segments.iter().position(|old| old.base == segment.base)?;
        segments.iter().filter(|old| replaces.contains(&old.base)).for_each(|old| old.pin());
        segments.retain(|old| !replaces.contains(&old.base));
        segments.insert(at, Arc::clone(&segment));
        shared.segments.store(Arc::new(segments));
        // One that was compacted again before it had its name.
        self.shown.retain(|earlier| !replaces.contains(&earlier.base));
        self.shown.push(segment);
        Some(replaces.into_iter().skip(1).collect())
    }

    /// Retention lets these segments go.
    pub(crate) fn forget(&mut self, bases: &[Offset]) {
        self.shown.retain(|segment| !bases.contains(&segment.base));
    }

    /// Gives shown segments their names; what fails is tried again at the next tick. Only when no replaced segment is left.
    pub(crate) fn finish(&mut self, files: &dyn Files, dir: &Path) {
        self.shown.retain(|segment| {
            let finished = rename(files, dir, segment.base).and_then(|()| segment.write_indexes());
            match finished {
                Ok(()) => segment.close(),
                Err(error) => {
                    tracing::warn!(%error, dir = %dir.display(), base = segment.base.0, "a compacted segment has not its name yet");
                    return true;
                }
            }
            false
        });
    }
}

/// Step 4. The indexes are those of the old file: without them, the new ones are made from the log.
fn rename(files: &dyn Files, dir: &Path, base: Offset) -> io::Result<()> {
    for kind in [FileKind::Index, FileKind::TimeIndex] {
        remove_if_there(files, &segment_path(dir, base, kind))?;
    }
    files.sync_dir(dir)?;
    match files.rename(&swap_path(dir, base), &segment_path(dir, base, FileKind::Log)) {
        // Only the indexes were missing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    files.sync_dir(dir)
}

/// Ends at a start what a crash has left: removes unfinished segments, puts finished ones into their places.
pub(crate) fn recover(files: &dyn Files, dir: &Path) -> io::Result<()> {
    let names = files.list(dir)?;
    let with = |ending: &str| -> Vec<Offset> {
        let base = |name: &std::path::PathBuf| match parse_file_name(name.to_str()?.strip_suffix(ending)?)? {
            (base, FileKind::Log) => Some(base),
            _ => None,
        };
        names.iter().filter_map(base).collect()
    };
    for base in with(CLEANED) {
        files.remove(&cleaned_path(dir, base))?;
    }
    let logs = with("");
    for base in with(SWAP) {
        if !logs.contains(&base) {
            // Of a segment that has gone since.
            files.remove(&swap_path(dir, base))?;
            continue;
        }
        let file = files.open(&swap_path(dir, base), false)?;
        let scanned = scan(base, file.len()?, |at, buffer| read_full(file.as_ref(), at, buffer), |_, _| {})?;
        let end = scanned.next_offset().unwrap_or(base);
        for &replaced in logs.iter().filter(|&&other| base < other && other < end) {
            remove_segment(files, dir, replaced)?;
        }
        files.sync_dir(dir)?;
        rename(files, dir, base)?;
    }
    Ok(())
}
