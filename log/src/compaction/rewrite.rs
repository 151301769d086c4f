//! Rewrites batches without the records that are not needed any more, and closes the gaps that whole batches leave.

use std::ops::Range;

use bytes::Bytes;

use super::Keys;
use crate::record::{BatchHeader, BatchProblem, RecordReader, Retained, empty_batch, retain};
use crate::units::{Millis, Offset};

/// What a pass goes by.
#[derive(Debug)]
pub struct Rules<'a> {
    pub keys: &'a Keys,
    /// Everything below was read into `keys`, by this pass or an earlier one.
    pub covered: Offset,
    pub now: Millis,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// Batches of idempotent producers stay, if only as headers: one may still be sent again (KIP-98).
    pub keep_producers: bool,
}

/// Takes the batches of neighbouring segments, in order, and gives those that take their places.
#[derive(Debug)]
pub struct Rewriter<'a> {
    rules: Rules<'a>,
    /// Offsets whose batches are gone; a batch without records will stand for them.
    gap: Option<(Range<Offset>, BatchHeader)>,
    /// Records that went.
    removed: u64,
}

impl<'a> Rewriter<'a> {
    #[must_use]
    pub fn new(rules: Rules<'a>) -> Rewriter<'a> {
        Rewriter { rules, gap: None, removed: 0 }
    }

    /// Records that have gone so far.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Takes the next batch, checked by the caller, and pushes what is to be written now.
    ///
    /// # Errors
    /// A batch that cannot be decoded.
    pub fn push(&mut self, header: &BatchHeader, batch: &Bytes, out: &mut Vec<Bytes>) -> Result<(), BatchProblem> {
        match self.rewrite(header, batch)? {
            Some(kept) => {
                self.flush(out);
                out.push(kept);
            }
            None => self.widen(header, out),
        }
        Ok(())
    }

    /// Pushes what stands for a gap at the end.
    pub fn flush(&mut self, out: &mut Vec<Bytes>) {
        if let Some((gap, header)) = self.gap.take() {
            let last = gap.end.0 - gap.start.0 - 1;
            let filler = BatchHeader {
                base_offset: gap.start,
                last_offset_delta: i32::try_from(last).unwrap_or(i32::MAX),
                producer_id: -1,
                producer_epoch: -1,
                base_sequence: -1,
                ..header
            };
            out.push(empty_batch(&filler));
        }
    }

    /// Adds the batch's offsets to the gap, as far as a batch can count them.
    fn widen(&mut self, header: &BatchHeader, out: &mut Vec<Bytes>) {
        let countable = |gap: &Range<Offset>| header.next_offset().0 - gap.start.0 <= i64::from(i32::MAX);
        if self.gap.as_ref().is_some_and(|(gap, _)| !countable(gap)) {
            self.flush(out);
        }
        match &mut self.gap {
            Some((gap, _)) => gap.end = header.next_offset(),
            None => self.gap = Some((header.base_offset..header.next_offset(), *header)),
        }
    }

    /// What stays of a batch; `None` when nothing does.
    fn rewrite(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<Option<Bytes>, BatchProblem> {
        // Markers of transactions are not ours to judge; there are none yet.
        if header.is_control() {
            return Ok(Some(batch.clone()));
        }
        let rules = &self.rules;
        let covered = header.next_offset() <= rules.covered;
        let horizon = header.delete_horizon();
        let expired = covered && horizon.is_some_and(|at| rules.now >= at);
        let (mut tombstones, mut total) = (false, 0);
        let mut keep = Vec::with_capacity(usize::try_from(header.record_count).unwrap_or(0).min(MAX_RESERVED));
        let mut records = RecordReader::new(header, batch)?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            // Without a key nothing can be the last value of it; Kafka lets such a record go, too.
            let last = record.key.is_some_and(|key| !rules.keys.superseded(key, record.offset));
            let tombstone = record.value.is_none();
            let kept = last && !(tombstone && expired);
            tombstones |= kept && tombstone;
            total += 1;
            keep.push(kept);
        }
        let kept = keep.iter().filter(|kept| **kept).count();
        self.removed += (total - kept) as u64;
        if kept == 0 {
            let producer = header.producer_id >= 0 && rules.keep_producers;
            return Ok(producer.then(|| empty_batch(header)));
        }
        let begins = tombstones && covered && horizon.is_none();
        let horizon = begins.then(|| Millis(rules.now.0.saturating_add(rules.delete_retention_ms)));
        if kept == total && horizon.is_none() {
            return Ok(Some(batch.clone()));
        }
        match retain(header, batch, &keep, horizon)? {
            Retained::Batch(bytes) => Ok(Some(bytes)),
            // It would be larger than a batch may be: it stays as it was.
            Retained::TooLarge => Ok(Some(batch.clone())),
        }
    }
}

/// Most records that room is made for before they are read.
const MAX_RESERVED: usize = 16_384;
