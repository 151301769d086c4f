//! The records of a closed segment, walked batch by batch in bounded memory.

use bytes::Bytes;
use forebay_log::Offset;
use forebay_log::record::{BatchProblem, Batches, RecordReader};

/// Why the local log could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

impl From<BatchProblem> for SourceError {
    fn from(problem: BatchProblem) -> Self {
        SourceError(problem.to_string())
    }
}

/// Where the record batches of a partition come from.
pub trait SegmentSource: Send {
    /// Whole batches from the one that holds `from`, at least one while there is any; empty at the end.
    ///
    /// # Errors
    /// The local log cannot be read there.
    fn read(&mut self, from: Offset) -> Result<Bytes, SourceError>;
}

/// Walks the data batches of a range.
pub(super) struct Walk<'s> {
    source: &'s mut dyn SegmentSource,
    batches: Option<Batches>,
    next: Offset,
    end: Offset,
}

impl<'s> Walk<'s> {
    pub(super) fn new(source: &'s mut dyn SegmentSource, base: Offset, end: Offset) -> Walk<'s> {
        Walk { source, batches: None, next: base, end }
    }

    /// The next batch that holds records of the range; control batches are passed over.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordReader>, SourceError> {
        loop {
            if self.next >= self.end {
                return Ok(None);
            }
            let Some(batch) = self.batches.as_mut().and_then(Iterator::next) else {
                let bytes = self.source.read(self.next)?;
                if bytes.is_empty() {
                    return Err(SourceError(format!("the segment ends at {} before {}", self.next, self.end)));
                }
                self.batches = Some(Batches::new(bytes));
                continue;
            };
            let (header, batch) = batch?;
            if header.base_offset >= self.end {
                return Ok(None);
            }
            let skip = header.is_control() || header.next_offset() <= self.next;
            self.next = self.next.max(header.next_offset());
            if !skip {
                return Ok(Some(RecordReader::new(&header, &batch)?));
            }
        }
    }
}
