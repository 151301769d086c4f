//! One pass of compaction over a partition: its keys are read, then its segments written anew, the oldest first.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use forebay_log::compaction::{Keys, Plan, Rewriter, Rules, groups};
use forebay_log::limits::{CLEANER_IO_BYTES, CLEANER_KEYS_BYTES};
use forebay_log::partition::{ClosedSegment, Compacted};
use forebay_log::record::{BatchHeader, BatchProblem, Batches, RecordReader};
use forebay_log::segment::Indexes;
use forebay_log::{AppendError, Millis, Offset, ReadError, TopicConfig};

use crate::files::{File, Files};
use crate::layout::{cleaned_path, partition_dir};
use crate::read::read_batches;
use crate::recover::PRODUCER_MEMORY_MS;
use crate::segment_file::SegmentFile;
use crate::shared::Shared;

/// What only the partition's owner may do.
pub(crate) enum Ask {
    Compact(Compacted),
    SetCompacted(Offset),
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(#[from] AppendError),
    #[error("the node shuts down")]
    Shutdown,
}

/// A pass and what it works with.
pub(crate) struct Pass<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) shared: &'a Shared,
    pub(crate) config: &'a TopicConfig,
    pub(crate) now: Millis,
    pub(crate) ask: &'a mut dyn FnMut(Ask) -> Result<(), AppendError>,
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

impl Pass<'_> {
    /// Reads what is dirty, then rewrites all that is older, the oldest first.
    pub(crate) fn run(&mut self, due: &Plan) -> Result<(), Stopped> {
        let mut keys = Keys::new(CLEANER_KEYS_BYTES);
        let covered = self.read_keys(due, &mut keys)?;
        if covered == due.dirty.start {
            let what = format!("the batch at offset {covered} has keys of more than {CLEANER_KEYS_BYTES} bytes");
            return Err(io::Error::other(what).into());
        }
        let within: Vec<ClosedSegment> =
            due.segments.iter().filter(|segment| segment.base_offset < covered).cloned().collect();
        let (mut before, mut after, mut removed) = (0, 0, 0);
        for group in groups(self.config, &within) {
            let recent = group.iter().any(|segment| segment.appended.0 + PRODUCER_MEMORY_MS > self.now.0);
            let rules = Rules {
                keys: &keys,
                covered,
                now: self.now,
                delete_retention_ms: self.config.delete_retention_ms,
                keep_producers: recent,
            };
            let written = self.rewrite(group, rules)?;
            before += group.iter().map(|segment| segment.bytes).sum::<u64>();
            after += written.bytes;
            removed += written.removed;
        }
        (self.ask)(Ask::SetCompacted(covered))?;
        let (topic, index) = (&self.shared.topic, self.shared.index);
        tracing::debug!(topic, partition = index, before, after, removed, %covered, "compacted");
        self.shared.stats.compacted(removed, before.saturating_sub(after));
        Ok(())
    }

    /// The last offset of each key from the first dirty offset on, as far as there is room; returns the offset after them.
    fn read_keys(&self, due: &Plan, keys: &mut Keys) -> Result<Offset, Stopped> {
        let mut covered = due.dirty.start;
        while covered < due.dirty.end {
            for (header, batch) in self.read(covered, due.dirty.end)? {
                let mut records = RecordReader::new(&header, &batch).map_err(|what| malformed(&header, what))?;
                while let Some(record) = records.next_ref() {
                    let record = record.map_err(|what| malformed(&header, what))?;
                    let noted = record.key.is_none_or(|key| keys.note(key, record.offset));
                    if !noted {
                        return Ok(covered);
                    }
                }
                covered = header.next_offset();
            }
        }
        Ok(covered)
    }

    /// Whole batches from `from` on; at least one.
    fn read(&self, from: Offset, end: Offset) -> Result<Vec<(BatchHeader, Bytes)>, Stopped> {
        if (self.is_stopped)() {
            return Err(Stopped::Shutdown);
        }
        let segment = self.holder(from)?;
        let bytes = read_batches(&segment, from, end, CLEANER_IO_BYTES)?;
        let batches: Result<Vec<_>, _> = Batches::new(bytes).collect();
        let batches = batches.map_err(|what| io::Error::other(what.to_string()))?;
        if batches.is_empty() {
            return Err(io::Error::other(format!("no batch at offset {from}")).into());
        }
        Ok(batches)
    }

    /// Writes what stays of neighbouring segments, and has it take their places. A segment of which all stays is left alone.
    fn rewrite(&mut self, group: &[ClosedSegment], rules: Rules<'_>) -> Result<Written, Stopped> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(Written::default()) };
        let dir = partition_dir(&self.shared.topic, self.shared.index);
        let path = cleaned_path(&dir, first.base_offset);
        let mut cleaned = Cleaned {
            file: self.files.open(&path, true)?,
            bytes: 0,
            waiting: Vec::new(),
            indexes: Indexes::new(first.base_offset),
            changed: group.len() > 1,
        };
        let copied = self.copy(group, rules, &mut cleaned);
        let finished = copied.and_then(|removed| {
            if !cleaned.changed {
                return Ok((removed, false));
            }
            cleaned.file.sync()?;
            // The age of a segment after a restart.
            cleaned.file.set_modified(last.appended.0)?;
            let compacted = Compacted {
                replaces: group.iter().map(|segment| segment.base_offset).collect(),
                end_offset: last.end_offset,
                bytes: cleaned.bytes,
                max_timestamp: cleaned.indexes.max_timestamp().unwrap_or(Millis(i64::MIN)),
                indexes: cleaned.indexes.clone(),
            };
            (self.ask)(Ask::Compact(compacted))?;
            Ok((removed, true))
        });
        if !matches!(finished, Ok((_, true))) {
            // Nothing of it is to be found: it has not taken any place.
            let _ = self.files.remove(&path);
        }
        let (removed, _) = finished?;
        Ok(Written { bytes: cleaned.bytes, removed })
    }

    fn copy(&self, group: &[ClosedSegment], rules: Rules<'_>, cleaned: &mut Cleaned) -> Result<u64, Stopped> {
        cleaned.file.set_len(0)?;
        let mut rewriter = Rewriter::new(rules);
        for segment in group {
            let mut from = segment.base_offset;
            while from < segment.end_offset {
                for (header, batch) in self.read(from, segment.end_offset)? {
                    let before = cleaned.waiting.len();
                    rewriter.push(&header, &batch, &mut cleaned.waiting).map_err(|what| malformed(&header, what))?;
                    // A batch that stays as it is, is the same memory.
                    let same = cleaned.waiting.len() == before + 1
                        && cleaned.waiting.last().is_some_and(|kept| kept.as_ptr() == batch.as_ptr());
                    cleaned.changed |= !same;
                    from = header.next_offset();
                }
                cleaned.write()?;
            }
        }
        rewriter.flush(&mut cleaned.waiting);
        cleaned.write()?;
        Ok(rewriter.removed())
    }

    fn holder(&self, offset: Offset) -> Result<Arc<SegmentFile>, Stopped> {
        let segments = self.shared.segments.load();
        let at = segments.partition_point(|segment| segment.base <= offset).checked_sub(1);
        let found = at.and_then(|at| segments.get(at)).cloned();
        found.ok_or_else(|| io::Error::other(format!("offset {offset} is in no segment")).into())
    }
}

/// What became of a group.
#[derive(Default)]
struct Written {
    bytes: u64,
    removed: u64,
}

/// A compacted segment on its way to the disk.
struct Cleaned {
    file: Arc<dyn File>,
    bytes: u64,
    waiting: Vec<Bytes>,
    indexes: Indexes,
    /// Whether it differs from what it was made of.
    changed: bool,
}

impl Cleaned {
    fn write(&mut self) -> Result<(), Stopped> {
        let at = self.bytes;
        for batch in &self.waiting {
            let header = BatchHeader::parse(batch).map_err(|what| io::Error::other(what.to_string()))?;
            self.indexes.on_append(&header, self.bytes);
            self.bytes += header.size as u64;
        }
        let slices: Vec<io::IoSlice<'_>> = self.waiting.iter().map(|batch| io::IoSlice::new(batch)).collect();
        self.file.write_at(at, &slices)?;
        self.waiting.clear();
        Ok(())
    }
}

fn malformed(header: &BatchHeader, what: BatchProblem) -> Stopped {
    io::Error::other(format!("batch at offset {}: {what}", header.base_offset)).into()
}
