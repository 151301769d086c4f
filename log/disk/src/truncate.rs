//! Cuts the end of a partition's log off, for a follower whose leader has other records there, and recovers what is left.
//!
//! The newest segment goes first and each removal is durable before the next step, so that a crash at any moment leaves a log
//! that ends earlier than before and has no gap.

use std::io;
use std::path::Path;
use std::sync::Arc;

use forebay_log::partition::{EpochCache, Truncation};
use forebay_log::record::BatchHeader;
use forebay_log::segment::{FileKind, parse_file_name};
use forebay_log::{Millis, Offset};

use crate::files::{File, Files, read_file, read_full};
use crate::layout::segment_path;
use crate::recover::{Recovered, Recovery};
use crate::segment_file::SegmentFile;
use crate::space::Space;
use crate::starts;
use crate::stats::Stats;
use crate::store::{EPOCHS_FILE, remove_segment, save_epochs};

/// What a cut works on.
pub(crate) struct Cut<'a> {
    pub(crate) files: &'a Arc<dyn Files>,
    pub(crate) dir: &'a Path,
    pub(crate) space: &'a Space,
    pub(crate) stats: &'a Stats,
    pub(crate) segments: &'a [Arc<SegmentFile>],
    /// Everything below stays, whatever is asked for.
    pub(crate) high_watermark: Offset,
    pub(crate) now: Millis,
}

impl Cut<'_> {
    /// Does it; may be done again after a failure.
    ///
    /// # Errors
    /// IO errors: how much is cut is then unknown.
    pub(crate) fn run(&self, cut: &Truncation) -> io::Result<Recovered> {
        let files = self.files.as_ref();
        let mut bases = self.bases()?;
        while let Some(&base) = bases.last()
            && (cut.anew.is_some() || base >= cut.to && bases.len() > 1)
        {
            remove_segment(files, self.dir, base)?;
            files.sync_dir(self.dir)?;
            bases.pop();
        }
        let point = if let Some(anew) = &cut.anew {
            self.space.reserved(|| save_epochs(files, self.dir, &anew.epochs))?;
            self.space.reserved(|| starts::save(files, self.dir, &anew.starts))?;
            cut.to
        } else {
            if let Some(&base) = bases.last() {
                self.shorten(base, cut.to)?;
            }
            self.forget_epochs(cut.to)?;
            self.high_watermark.min(cut.to)
        };
        Recovery { files: self.files, dir: self.dir, point, now: self.now, stats: self.stats }.run()
    }

    fn bases(&self) -> io::Result<Vec<Offset>> {
        let names = self.files.list(self.dir)?;
        let mut bases: Vec<Offset> = names
            .iter()
            .filter_map(|name| parse_file_name(name.to_str()?))
            .filter(|(_, kind)| *kind == FileKind::Log)
            .map(|(base, _)| base)
            .collect();
        bases.sort_unstable();
        Ok(bases)
    }

    /// Cuts the segment at the first batch that reaches beyond `to`.
    fn shorten(&self, base: Offset, to: Offset) -> io::Result<()> {
        let file = self.files.open(&segment_path(self.dir, base, FileKind::Log), false)?;
        let modified = file.modified()?;
        let position = self.position(base, to, file.as_ref())?;
        file.set_len(position)?;
        file.sync()?;
        // The segment keeps its day of append.
        file.set_modified(modified)
    }

    fn position(&self, base: Offset, to: Offset, file: &dyn File) -> io::Result<u64> {
        let known = self.segments.iter().find(|segment| segment.base == base);
        let mut position = known.map_or(Ok(0), |segment| segment.hint(to).map(|hint| hint.position))?;
        let mut header = [0; forebay_log::limits::BATCH_HEADER_BYTES];
        loop {
            if read_full(file, position, &mut header)? < header.len() {
                return Ok(position);
            }
            match BatchHeader::parse(&header) {
                Ok(header) if header.next_offset() <= to => position += header.size as u64,
                _ => return Ok(position),
            }
        }
    }

    /// Recovery does so too: this only keeps the file true.
    fn forget_epochs(&self, to: Offset) -> io::Result<()> {
        let known = read_file(self.files.as_ref(), &self.dir.join(EPOCHS_FILE))?;
        let known = known.and_then(|bytes| EpochCache::from_text(std::str::from_utf8(&bytes).ok()?));
        let Some(mut epochs) = known else { return Ok(()) };
        epochs.truncate(to);
        self.space.reserved(|| save_epochs(self.files.as_ref(), self.dir, &epochs))
    }
}
