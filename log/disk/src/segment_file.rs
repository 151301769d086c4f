//! One segment on disk as readers and the writer share it: its file, its durable length and its indexes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use forebay_log::limits::MAX_HELD_INDEX_ENTRIES;
use forebay_log::record::BatchHeader;
use forebay_log::segment::{FileKind, GoodRange, Indexes, OffsetIndex, Scan, TimeIndex, scan};
use forebay_log::{Millis, Offset};

use crate::files::{File, Files, read_file, read_full};
use crate::layout::segment_path;
use forebay_log::partition::Placed;

/// The indexes of a segment, as much as is in memory.
enum Held {
    /// On disk only; read when first asked for.
    Unread,
    /// Of a closed segment: some of the entries. A search lands a little earlier and walks a little further.
    Thinned(OffsetIndex, TimeIndex),
    /// Of the active segment, growing with it.
    Growing(Indexes),
}

impl Held {
    fn thinned(base: Offset, offsets: &OffsetIndex, times: &TimeIndex) -> Held {
        let step = |entries: usize| entries.div_ceil(MAX_HELD_INDEX_ENTRIES).max(1);
        let (mut few_offsets, mut few_times) = (OffsetIndex::new(base), TimeIndex::new(base));
        for entry in offsets.entries().iter().step_by(step(offsets.entries().len())) {
            few_offsets.append(base.plus(i64::from(entry.relative_offset)), u64::from(entry.position));
        }
        for entry in times.entries().iter().step_by(step(times.entries().len())) {
            few_times.append(entry.timestamp, base.plus(i64::from(entry.relative_offset)));
        }
        Held::Thinned(few_offsets, few_times)
    }
}

/// A segment. Readers see the bytes below [`SegmentFile::readable`], which only durable writes raise.
pub(crate) struct SegmentFile {
    pub(crate) base: Offset,
    files: Arc<dyn Files>,
    dir: PathBuf,
    /// Held open while the segment is active; a closed one is opened for each read, so that descriptors stay few.
    active: RwLock<Option<Arc<dyn File>>>,
    readable: AtomicU64,
    max_timestamp: AtomicI64,
    indexes: RwLock<Held>,
    /// Damage in it has been logged; a reader that comes again and again adds no lines.
    damage_logged: AtomicBool,
    /// Once damage was met: the good runs, and up to which position they were looked for.
    good: Mutex<Option<(u64, Arc<[GoodRange]>)>>,
}

/// A place in a segment to start looking from, and what the batch there must be.
pub(crate) struct Hint {
    pub(crate) position: u64,
    pub(crate) expected: Expected,
}

/// How a batch is known to be the one that was written at its place.
pub(crate) enum Expected {
    Base(Offset),
    Last(Offset),
}

impl Expected {
    pub(crate) fn is_met(&self, header: &BatchHeader) -> bool {
        match self {
            Expected::Base(base) => header.base_offset == *base,
            Expected::Last(last) => header.last_offset() == *last,
        }
    }
}

impl SegmentFile {
    /// A segment that writes go to.
    pub(crate) fn active(
        files: Arc<dyn Files>,
        dir: &Path,
        base: Offset,
        len: u64,
        file: Arc<dyn File>,
        indexes: Indexes,
    ) -> SegmentFile {
        let max = indexes.max_timestamp().unwrap_or(Millis(i64::MIN));
        SegmentFile {
            base,
            files,
            dir: dir.to_owned(),
            active: RwLock::new(Some(file)),
            readable: AtomicU64::new(len),
            max_timestamp: AtomicI64::new(max.0),
            indexes: RwLock::new(Held::Growing(indexes)),
            damage_logged: AtomicBool::new(false),
            good: Mutex::new(None),
        }
    }

    /// A closed segment whose indexes are on disk.
    pub(crate) fn closed(files: Arc<dyn Files>, dir: &Path, base: Offset, len: u64, max: Millis) -> SegmentFile {
        SegmentFile {
            base,
            files,
            dir: dir.to_owned(),
            active: RwLock::new(None),
            readable: AtomicU64::new(len),
            max_timestamp: AtomicI64::new(max.0),
            indexes: RwLock::new(Held::Unread),
            damage_logged: AtomicBool::new(false),
            good: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        segment_path(&self.dir, self.base, FileKind::Log)
    }

    /// Bytes that readers may see.
    pub(crate) fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    pub(crate) fn max_timestamp(&self) -> Millis {
        Millis(self.max_timestamp.load(Ordering::Acquire))
    }

    /// Whether damage in this segment is news.
    pub(crate) fn log_damage(&self) -> bool {
        !self.damage_logged.swap(true, Ordering::Relaxed)
    }

    /// The file, already open or opened now.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn File>> {
        let open = self.active.read().unwrap_or_else(PoisonError::into_inner).clone();
        open.map_or_else(|| self.files.open(&self.path(), false), Ok)
    }

    /// Keeps the file open, so that who still reads this segment reads it whole when another file gets its name.
    pub(crate) fn pin(&self) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        if active.is_none() {
            *active = self.files.open(&self.path(), false).ok();
        }
    }

    /// Takes durable batches into the indexes, then lets readers see them.
    pub(crate) fn grow(&self, batches: &[Placed]) {
        let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
        if let Held::Growing(indexes) = &mut *indexes {
            for placed in batches {
                indexes.on_append(&placed.header, placed.position);
            }
            if let Some(max) = indexes.max_timestamp() {
                self.max_timestamp.store(max.0, Ordering::Release);
            }
        }
        if let Some(last) = batches.last() {
            self.readable.store(last.position + last.header.size as u64, Ordering::Release);
        }
    }

    /// Writes the indexes out, cut to their entries, and syncs them.
    pub(crate) fn write_indexes(&self) -> io::Result<()> {
        let (offsets, times) = {
            let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
            match &mut *indexes {
                Held::Growing(indexes) => {
                    indexes.on_close();
                    (indexes.offsets.encode(0), indexes.times.encode(0))
                }
                // On disk in full since it was closed.
                Held::Thinned(..) | Held::Unread => return Ok(()),
            }
        };
        self.write_index_files(&offsets, &times)
    }

    fn write_index_files(&self, offsets: &[u8], times: &[u8]) -> io::Result<()> {
        for (kind, bytes) in [(FileKind::Index, offsets), (FileKind::TimeIndex, times)] {
            let file = self.files.open(&segment_path(&self.dir, self.base, kind), true)?;
            file.write_at(0, &[io::IoSlice::new(bytes)])?;
            file.set_len(bytes.len() as u64)?;
            file.sync()?;
        }
        Ok(())
    }

    /// The segment takes no more writes: its file is closed and its indexes stay as they are.
    pub(crate) fn close(&self) {
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = None;
        let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
        if let Held::Growing(growing) = &*indexes {
            *indexes = Held::thinned(self.base, &growing.offsets, &growing.times);
        }
    }

    /// Where to start looking for the batch that holds `offset`.
    pub(crate) fn hint(&self, offset: Offset) -> io::Result<Hint> {
        let entry = self.with_indexes(|offsets, _| offsets.lookup(offset))?;
        Ok(entry.map_or(Hint { position: 0, expected: Expected::Base(self.base) }, |entry| Hint {
            position: u64::from(entry.position),
            expected: Expected::Last(self.base.plus(i64::from(entry.relative_offset))),
        }))
    }

    /// The runs of good batches below `end`, found by checking all of it; kept, so that readers who come to the same damage again
    /// cost nothing.
    pub(crate) fn good_ranges(&self, end: u64) -> io::Result<Arc<[GoodRange]>> {
        let mut known = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((checked, good)) = &*known
            && *checked >= end
        {
            return Ok(Arc::clone(good));
        }
        let good: Arc<[GoodRange]> = self.scan()?.good.into();
        *known = Some((end, Arc::clone(&good)));
        Ok(good)
    }

    /// Where a batch begins, so many entries of the index before the end, and how many entries there are from there on.
    pub(crate) fn position_before_entries(&self, entries: usize) -> io::Result<(u64, usize)> {
        self.with_indexes(|offsets, _| {
            let all = offsets.entries();
            let skipped = all.len().saturating_sub(entries);
            let position = skipped.checked_sub(1).and_then(|last| all.get(last)).map_or(0, |e| u64::from(e.position));
            (position, all.len() - skipped)
        })
    }

    /// An offset before which no record has a timestamp at or after `at`.
    pub(crate) fn offset_before(&self, at: Millis) -> io::Result<Offset> {
        self.with_indexes(|_, times| times.lookup(at))
    }

    fn with_indexes<T>(&self, look: impl Fn(&OffsetIndex, &TimeIndex) -> T) -> io::Result<T> {
        match &*self.indexes.read().unwrap_or_else(PoisonError::into_inner) {
            Held::Thinned(offsets, times) => return Ok(look(offsets, times)),
            Held::Growing(indexes) => return Ok(look(&indexes.offsets, &indexes.times)),
            Held::Unread => {}
        }
        let (offsets, times) = self.load_indexes()?;
        let found = look(&offsets, &times);
        let held = Held::thinned(self.base, &offsets, &times);
        *self.indexes.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(found)
    }

    /// The indexes from their files, or from a scan of the log when those are missing or damaged.
    fn load_indexes(&self) -> io::Result<(OffsetIndex, TimeIndex)> {
        let read = |kind| read_file(self.files.as_ref(), &segment_path(&self.dir, self.base, kind));
        if let (Some(offsets), Some(times)) = (read(FileKind::Index)?, read(FileKind::TimeIndex)?)
            && let (Ok(offsets), Ok(times)) =
                (OffsetIndex::decode(self.base, &offsets, self.readable()), TimeIndex::decode(self.base, &times))
        {
            return Ok((offsets, times));
        }
        tracing::warn!(segment = %self.path().display(), "index missing or damaged: rebuilt from the log");
        let mut indexes = self.scan()?.indexes;
        indexes.on_close();
        if let Err(error) = self.write_index_files(&indexes.offsets.encode(0), &indexes.times.encode(0)) {
            tracing::warn!(%error, segment = %self.path().display(), "the rebuilt index is not saved");
        }
        Ok((indexes.offsets, indexes.times))
    }

    /// Checks every batch of the segment. Slow: only for recovery and damage.
    pub(crate) fn scan(&self) -> io::Result<Scan> {
        let file = self.file()?;
        scan(self.base, self.readable(), |position, buffer| read_full(file.as_ref(), position, buffer), |_, _| {})
    }
}
