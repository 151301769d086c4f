//! Opening a partition: what is on the disk, which tail is torn, what is damaged.
//!
//! Closed segments below the recovery point are trusted, so that opening a large log needs no scan. The active segment and
//! what lies above the point are scanned. A bad batch at or above the point is a torn tail: nobody was told that it is
//! kept, and it is cut off. Below, it is corruption: it is reported, never served, and good batches behind it stay.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_log::partition::{EpochCache, Producers, Restored, Segment, Starts, believable};
use forebay_log::record::BatchHeader;
use forebay_log::segment::{FileKind, Indexes, Scan, ScanProblem, TimeIndex, parse_file_name, scan};
use forebay_log::{Millis, Offset};
use tracing::{error, warn};

use crate::files::{File, Files, read_file, read_full};
use crate::layout::segment_path;
use crate::segment_file::SegmentFile;
use crate::starts;
use crate::stats::Stats;
use crate::store::{EPOCHS_FILE, remove_segment};
use crate::swap;

/// How long after a write its producer may still repeat it, not knowing that it was stored; clients give up sooner.
pub(crate) const PRODUCER_MEMORY_MS: i64 = 15 * 60_000;
/// How far back closed segments are read for what producers wrote last, in entries of their indexes: at least as many batches, or
/// 4 MiB of smaller ones. A producer sends no more than five ahead of its answers.
const PRODUCER_MEMORY_ENTRIES: usize = 1024;
/// The same where by the clock nothing is that recent: it may have been set since, and no partition has many producers at once.
const OLD_PRODUCER_MEMORY_ENTRIES: usize = 64;
/// Bytes read at once meanwhile: the headers of several small batches, or of one large one.
const PRODUCER_MEMORY_READ: usize = 8 << 10;

/// What recovery needs to know of a partition.
pub(crate) struct Recovery<'a> {
    pub(crate) files: &'a Arc<dyn Files>,
    pub(crate) dir: &'a Path,
    /// Everything below is known to be whole on the disk.
    pub(crate) point: Offset,
    pub(crate) now: Millis,
    pub(crate) stats: &'a Stats,
}

/// An opened partition.
pub(crate) struct Recovered {
    pub(crate) restored: Restored,
    /// The last one is active.
    pub(crate) segments: Vec<Arc<SegmentFile>>,
}

impl Recovery<'_> {
    /// Opens the partition.
    pub(crate) fn run(&self) -> io::Result<Recovered> {
        swap::recover(self.files.as_ref(), self.dir)?;
        let starts = starts::load(self.files.as_ref(), self.dir)?;
        let mut epochs = read_file(self.files.as_ref(), &self.dir.join(EPOCHS_FILE))?
            .and_then(|bytes| EpochCache::from_text(std::str::from_utf8(&bytes).ok()?))
            .unwrap_or_default();
        let bases = self.bases(&starts)?;
        let mut segments = Vec::new();
        let mut known = Vec::new();
        for pair in bases.windows(2) {
            let (segment, meta) = self.closed(pair[0], pair[1], &mut epochs)?;
            segments.push(Arc::new(segment));
            known.push(meta);
        }
        let mut producers = Producers::default();
        self.remember(&segments, &known, &mut producers)?;
        let floor = self.point.max(starts.log_start).max(starts.tiered);
        let mut log_end = floor;
        if let Some(&base) = bases.last() {
            let (segment, mut meta, whole) = self.last(base, &mut epochs, &mut producers)?;
            log_end = meta.end_offset.max(floor);
            if meta.end_offset < floor {
                error!(dir = %self.dir.display(), from = meta.end_offset.0, to = floor.0,
                    "records that were durable are missing: their offsets are not used again");
            }
            let goes_on = whole && meta.end_offset >= floor;
            meta.end_offset = log_end;
            if goes_on || meta.bytes > 0 {
                segments.push(Arc::new(segment));
                known.push(meta);
            }
            if !goes_on {
                if let Some(damaged) = segments.last().filter(|_| meta.bytes > 0) {
                    damaged.write_indexes()?;
                    damaged.close();
                }
                let (segment, meta) = self.begin(log_end)?;
                segments.push(segment);
                known.push(meta);
            }
        } else {
            let (segment, meta) = self.begin(log_end)?;
            segments.push(segment);
            known.push(meta);
        }
        epochs.truncate(log_end);
        // The recovery point is a high watermark that was durable; below the log start there is nothing to wait for.
        let high_watermark = floor.min(log_end);
        let restored = Restored { segments: known, log_end, high_watermark, starts, epochs, producers };
        Ok(Recovered { restored, segments })
    }

    /// Base offsets of the segments, without those that a crash kept from being deleted.
    fn bases(&self, starts: &Starts) -> io::Result<Vec<Offset>> {
        let mut bases: Vec<Offset> = Vec::new();
        for name in self.files.list(self.dir)? {
            if let Some((base, FileKind::Log)) = name.to_str().and_then(parse_file_name) {
                bases.push(base);
            }
        }
        bases.sort_unstable();
        let gone_below = starts.cold.last().map_or(Offset::ZERO, |cold| cold.end_offset).max(starts.log_start);
        let gone = bases.windows(2).take_while(|pair| pair[1] <= gone_below).count();
        for base in bases.drain(..gone) {
            remove_segment(self.files.as_ref(), self.dir, base)?;
        }
        Ok(bases)
    }

    /// When a segment's file was last appended to. What a wrong clock has left is set right, so that the segment ages.
    fn modified(&self, file: &dyn File) -> io::Result<Millis> {
        let modified = Millis(file.modified()?);
        let believed = believable(modified, self.now);
        if believed != modified {
            file.set_modified(believed.0)?;
        }
        Ok(believed)
    }

    fn path(&self, base: Offset) -> PathBuf {
        segment_path(self.dir, base, FileKind::Log)
    }

    /// A segment that is followed by another: sealed and synced before that one was made.
    fn closed(&self, base: Offset, end: Offset, epochs: &mut EpochCache) -> io::Result<(SegmentFile, Segment)> {
        let file = self.files.open(&self.path(base), false)?;
        let (len, modified) = (file.len()?, self.modified(file.as_ref())?);
        let times = segment_path(self.dir, base, FileKind::TimeIndex);
        let known = if end <= self.point { self.last_timestamp(&times)? } else { None };
        let (segment, max) = match known {
            Some(max) => (SegmentFile::closed(Arc::clone(self.files), self.dir, base, len, max), max),
            None => {
                let scanned = self.scan(base, len, file.as_ref(), epochs, &mut Producers::default())?;
                self.report(base, &scanned);
                let indexes = scanned.indexes;
                let max = indexes.max_timestamp().unwrap_or(Millis(i64::MIN));
                let segment = SegmentFile::active(Arc::clone(self.files), self.dir, base, len, file, indexes);
                segment.write_indexes()?;
                segment.close();
                (segment, max)
            }
        };
        let meta = Segment {
            base_offset: base,
            end_offset: end,
            bytes: len,
            max_timestamp: max,
            created: modified,
            appended: modified,
        };
        Ok((segment, meta))
    }

    /// The greatest timestamp by the last entry of a time index; `None` when the index has to be rebuilt.
    fn last_timestamp(&self, path: &Path) -> io::Result<Option<Millis>> {
        const ENTRY: u64 = 12;
        let file = match self.files.open(path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.len()?;
        if len == 0 || !len.is_multiple_of(ENTRY) {
            return Ok(None);
        }
        let mut entry = [0; ENTRY as usize];
        read_full(file.as_ref(), len - ENTRY, &mut entry)?;
        let decoded = TimeIndex::decode(Offset::ZERO, &entry).ok();
        Ok(decoded.and_then(|index| index.entries().last().map(|last| last.timestamp)))
    }

    /// The last segment: scanned, its torn tail cut. The flag tells whether it is whole, so that appends go on in it.
    fn last(
        &self,
        base: Offset,
        epochs: &mut EpochCache,
        producers: &mut Producers,
    ) -> io::Result<(SegmentFile, Segment, bool)> {
        let file = self.files.open(&self.path(base), false)?;
        let (mut len, modified) = (file.len()?, self.modified(file.as_ref())?);
        let mut seen = producers.clone();
        let mut scanned = self.scan(base, len, file.as_ref(), epochs, &mut seen)?;
        // The first damage at or above the recovery point, by the offset that should stand there.
        let torn = scanned.bad.iter().find(|bad| end_before(base, &scanned, bad.bytes.start) >= self.point).cloned();
        if let Some(torn) = torn {
            let keep = torn.bytes.start;
            warn!(file = %self.path(base).display(), position = keep, lost_bytes = len - keep, problem = %torn.problem,
                "torn tail: cut at the last whole batch");
            file.set_len(keep)?;
            file.sync()?;
            file.set_modified(modified.0)?;
            len = keep;
            seen = producers.clone();
            scanned = self.scan(base, len, file.as_ref(), epochs, &mut seen)?;
        }
        *producers = seen;
        let whole = scanned.bad.is_empty();
        self.report(base, &scanned);
        let end_offset = scanned.next_offset().unwrap_or(base);
        let meta = Segment {
            base_offset: base,
            end_offset,
            bytes: len,
            max_timestamp: scanned.indexes.max_timestamp().unwrap_or(Millis(i64::MIN)),
            created: modified,
            appended: modified,
        };
        let indexes = scanned.indexes;
        let segment = SegmentFile::active(Arc::clone(self.files), self.dir, base, len, file, indexes);
        Ok((segment, meta, whole))
    }

    fn scan(
        &self,
        base: Offset,
        len: u64,
        file: &dyn File,
        epochs: &mut EpochCache,
        producers: &mut Producers,
    ) -> io::Result<Scan> {
        let read = |position, buffer: &mut [u8]| read_full(file, position, buffer);
        scan(base, len, read, |header, _| {
            epochs.assign(header.leader_epoch, header.base_offset);
            producers.restore(header);
        })
    }

    /// What producers wrote at the end of the closed segments: far back while it is so recent that they may still repeat it.
    fn remember(&self, closed: &[Arc<SegmentFile>], metas: &[Segment], producers: &mut Producers) -> io::Result<()> {
        let mut left = PRODUCER_MEMORY_ENTRIES;
        let mut from = Vec::new();
        for (segment, meta) in closed.iter().zip(metas).rev() {
            let spent = PRODUCER_MEMORY_ENTRIES - left;
            let is_old = meta.appended.0 + PRODUCER_MEMORY_MS < self.now.0;
            if left == 0 || is_old && spent >= OLD_PRODUCER_MEMORY_ENTRIES {
                break;
            }
            let most = if is_old { OLD_PRODUCER_MEMORY_ENTRIES - spent } else { left };
            let (position, entries) = segment.position_before_entries(most)?;
            left = left.saturating_sub(entries.max(1));
            from.push((segment, position, meta.bytes));
        }
        from.into_iter().rev().try_for_each(|(segment, position, end)| headers(segment, position, end, producers))
    }

    fn report(&self, base: Offset, scanned: &Scan) {
        for bad in &scanned.bad {
            self.stats.corrupt_batch();
            let problem: &ScanProblem = &bad.problem;
            error!(file = %self.path(base).display(), position = bad.bytes.start, bytes = bad.bytes.end - bad.bytes.start,
                %problem, "corrupt batch: it is not served; the other records are");
        }
    }

    /// A new, empty segment for appends.
    fn begin(&self, base: Offset) -> io::Result<(Arc<SegmentFile>, Segment)> {
        let file = self.files.open(&self.path(base), true)?;
        file.set_len(0)?;
        self.files.sync_dir(self.dir)?;
        let meta = Segment {
            base_offset: base,
            end_offset: base,
            bytes: 0,
            max_timestamp: Millis(i64::MIN),
            created: self.now,
            appended: self.now,
        };
        let indexes = Indexes::new(base);
        let segment = SegmentFile::active(Arc::clone(self.files), self.dir, base, 0, file, indexes);
        Ok((Arc::new(segment), meta))
    }
}

/// Takes in the headers of the batches from `position` on. They were checked when they were written or at this start.
fn headers(segment: &SegmentFile, mut position: u64, end: u64, producers: &mut Producers) -> io::Result<()> {
    let file = segment.file()?;
    let mut window = vec![0; PRODUCER_MEMORY_READ];
    while position < end {
        let read = read_full(file.as_ref(), position, &mut window)?;
        let mut at = 0;
        while let Some(Ok(header)) = window.get(at..read).map(BatchHeader::parse) {
            producers.restore(&header);
            at += header.size;
        }
        if at == 0 {
            // Damage, which was reported.
            return Ok(());
        }
        position += at as u64;
    }
    Ok(())
}

/// The offset after the last good batch in front of `position`.
fn end_before(base: Offset, scanned: &Scan, position: u64) -> Offset {
    scanned.good.iter().take_while(|good| good.bytes.end <= position).last().map_or(base, |good| good.next_offset)
}
