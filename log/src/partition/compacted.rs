//! Compacted segments take the places of those that they were made of, unless those have changed meanwhile.

use super::event::{Change, Durable, Effect, Outcome, Persist, Work};
use super::machine::Partition;
use super::segments::Segment;
use crate::error::AppendError;
use crate::segment::Indexes;
use crate::units::{Millis, Offset};

/// A segment made of neighbouring closed ones, complete and durable beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// Base offsets of the segments that it was made of, oldest first; the first is its own.
    pub replaces: Vec<Offset>,
    /// The offset after the last one of them.
    pub end_offset: Offset,
    pub bytes: u64,
    pub max_timestamp: Millis,
    pub indexes: Indexes,
}

impl<T> Partition<T> {
    /// The work that puts a compacted segment into its place. Refused when a segment that it replaces is there no more:
    /// retention was faster.
    pub(super) fn compact(
        &self,
        compacted: Box<Compacted>,
        token: T,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Persist<T>> {
        if self.place_of(&compacted).is_none() {
            let gone = AppendError::Invalid("the segments that were compacted are not there any more");
            effects.push(Effect::Done(token, Outcome::Refused(gone)));
            return None;
        }
        let then = Durable { change: Change::Compacted(compacted.clone()), acks: Vec::new(), applied: vec![token] };
        Some(Persist { work: Work::Compact(compacted), then })
    }

    /// Where the segments stand that it replaces: closed, all of them, and nothing between.
    fn place_of(&self, compacted: &Compacted) -> Option<usize> {
        let first = *compacted.replaces.first()?;
        let closed = &self.segments[..self.segments.len().saturating_sub(1)];
        let at = closed.iter().position(|segment| segment.base_offset == first)?;
        let replaced = closed.get(at..at + compacted.replaces.len())?;
        let same = replaced.iter().map(|segment| segment.base_offset).eq(compacted.replaces.iter().copied());
        (same && replaced.last()?.end_offset == compacted.end_offset).then_some(at)
    }

    /// The compacted segment is in its place.
    pub(super) fn compacted(&mut self, compacted: &Compacted) {
        let Some(at) = self.place_of(compacted) else { return };
        let replaced: Vec<Segment> = self.segments.drain(at..at + compacted.replaces.len()).collect();
        if let (Some(first), Some(last)) = (replaced.first(), replaced.last()) {
            let segment = Segment {
                base_offset: first.base_offset,
                end_offset: compacted.end_offset,
                bytes: compacted.bytes,
                max_timestamp: compacted.max_timestamp,
                created: first.created,
                appended: last.appended,
            };
            self.segments.insert(at, segment);
        }
        self.closed_version += 1;
    }
}
