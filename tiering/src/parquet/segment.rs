//! The records of a closed segment, walked batch by batch in bounded memory.

use bytes::Bytes;
use forebay_log::Offset;
use forebay_log::record::{BatchProblem, Batches, RecordReader, RecordRef};

use crate::manifest::Lost;

/// Why the local log could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

impl From<BatchProblem> for SourceError {
    fn from(problem: BatchProblem) -> Self {
        SourceError(problem.to_string())
    }
}

/// What a read of the local log found.
#[derive(Debug, Clone)]
pub enum Stretch {
    /// Whole batches from the one that holds the offset asked for, at least one while there is any; empty at the end.
    Batches(Bytes),
    /// The records from the offset asked for up to `next` are damaged; `cause` says where and how.
    Damaged { next: Offset, cause: String },
}

/// Where the record batches of a partition come from.
pub trait SegmentSource: Send {
    /// What is stored at `from`.
    ///
    /// # Errors
    /// The local log cannot be read now.
    fn read(&mut self, from: Offset) -> Result<Stretch, SourceError>;
}

/// Walks the records of a range in order. What is damaged is passed over and told of in `lost`: it would be as damaged the
/// next time, and must not hold up what comes behind it.
pub(super) struct Walk<'s> {
    source: &'s mut dyn SegmentSource,
    batches: Option<Batches>,
    records: Option<RecordReader>,
    /// The offset after the batch that `records` comes from.
    batch_end: Offset,
    next: Offset,
    end: Offset,
    pub(super) lost: Lost,
}

impl<'s> Walk<'s> {
    pub(super) fn new(source: &'s mut dyn SegmentSource, base: Offset, end: Offset) -> Walk<'s> {
        let lost = Lost::default();
        Walk { source, batches: None, records: None, batch_end: base, next: base, end, lost }
    }

    /// Gives `take` the next records of the range, until it has had enough and returns `false`, or a batch ends; those of control
    /// batches are passed over. Returns `false` at the end of the range.
    pub(super) fn advance(&mut self, mut take: impl FnMut(RecordRef<'_>) -> bool) -> Result<bool, SourceError> {
        while self.records.is_none() && self.next < self.end {
            self.records = self.open_batch()?;
        }
        while let Some(record) = self.records.as_mut().map(RecordReader::next_ref) {
            match record {
                Some(Ok(record)) if record.offset < self.next => continue,
                Some(Ok(record)) if record.offset >= self.end => self.next = self.end,
                Some(Ok(record)) => {
                    self.next = record.offset.next();
                    if take(record) {
                        continue;
                    }
                    return Ok(true);
                }
                Some(Err(problem)) => self.lose_batch(problem),
                None => self.next = self.next.max(self.batch_end),
            }
            self.records = None;
        }
        Ok(self.next < self.end)
    }

    /// The records of the next batch; `None` if that brought none, or the log had to be read.
    fn open_batch(&mut self) -> Result<Option<RecordReader>, SourceError> {
        let Some(batch) = self.batches.as_mut().and_then(Iterator::next) else {
            match self.source.read(self.next)? {
                Stretch::Damaged { next, cause } => self.lose(next, &cause),
                Stretch::Batches(bytes) if bytes.is_empty() => {
                    return Err(SourceError(format!("the segment ends at {} before {}", self.next, self.end)));
                }
                Stretch::Batches(bytes) => self.batches = Some(Batches::new(bytes)),
            }
            return Ok(None);
        };
        let (header, batch) = batch?;
        self.batch_end = header.next_offset();
        if header.base_offset >= self.end {
            self.next = self.end;
        } else if header.is_control() || self.batch_end <= self.next {
            self.next = self.next.max(self.batch_end);
        } else {
            match RecordReader::new(&header, &batch) {
                Ok(records) => return Ok(Some(records)),
                Err(problem) => self.lose_batch(problem),
            }
        }
        Ok(None)
    }

    /// The batch's checksum holds, but not what is in it.
    fn lose_batch(&mut self, problem: BatchProblem) {
        self.records = None;
        self.lose(self.batch_end, &format!("a batch that ends at offset {}: {problem}", self.batch_end));
    }

    fn lose(&mut self, to: Offset, cause: &str) {
        let to = to.max(self.next.next()).min(self.end);
        self.lost.add(self.next, to, cause);
        self.next = to;
    }
}
