//! When a partition is compacted, which of its segments, and which of them become one.

use std::ops::Range;

use crate::partition::ClosedSegment;
use crate::topic::TopicConfig;
use crate::units::{Millis, Offset};

/// A pass that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was never compacted, up to where it may be now.
    pub dirty: Range<Offset>,
    /// Every segment below its end, oldest first.
    pub segments: Vec<ClosedSegment>,
}

/// The pass that is due for a partition with these closed segments, `compacted` up to an offset; `None` when none is.
#[must_use]
pub fn plan(config: &TopicConfig, closed: &[ClosedSegment], compacted: Offset, now: Millis) -> Option<Plan> {
    if !config.compact || config.self_compacting {
        return None;
    }
    let lag = |segment: &ClosedSegment| now.0.saturating_sub(segment.appended.0);
    // What is too young holds back all that follows it.
    let old_enough =
        |segment: &&ClosedSegment| segment.end_offset <= compacted || lag(segment) >= config.min_compaction_lag_ms;
    let segments: Vec<ClosedSegment> = closed.iter().take_while(old_enough).cloned().collect();
    let end = segments.last()?.end_offset;
    let start = compacted.max(segments.first()?.base_offset);
    let is_dirty = |segment: &&ClosedSegment| segment.end_offset > start;
    let bytes = |segments: &mut dyn Iterator<Item = &ClosedSegment>| segments.map(|s| s.bytes).sum::<u64>();
    let dirty = bytes(&mut segments.iter().filter(is_dirty));
    let whole = bytes(&mut segments.iter());
    let overdue = segments.iter().find(is_dirty).is_some_and(|oldest| lag(oldest) >= config.max_compaction_lag_ms);
    let due = dirty > 0 && (overdue || config.min_cleanable_dirty_ratio.is_reached(dirty, whole));
    due.then_some(Plan { dirty: start..end, segments })
}

/// Neighbours that become one segment: together not larger than `segment.bytes`, nor their offsets further apart than an index
/// can count.
#[must_use]
pub fn groups<'a>(config: &TopicConfig, segments: &'a [ClosedSegment]) -> Vec<&'a [ClosedSegment]> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |segment: &&ClosedSegment| {
            bytes += segment.bytes;
            bytes <= config.segment_bytes && segment.end_offset.0 - first.base_offset.0 <= i64::from(i32::MAX)
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (group, others) = rest.split_at(count);
        groups.push(group);
        rest = others;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Ratio;

    fn segments(bytes: &[u64]) -> Vec<ClosedSegment> {
        let segment = |(n, &bytes): (usize, &u64)| ClosedSegment {
            base_offset: Offset(n as i64 * 10),
            end_offset: Offset(n as i64 * 10 + 10),
            bytes,
            max_timestamp: Millis(0),
            appended: Millis(n as i64 * 1000),
            append_day: 0,
        };
        bytes.iter().enumerate().map(segment).collect()
    }

    fn config() -> TopicConfig {
        TopicConfig { compact: true, segment_bytes: 100, ..TopicConfig::default() }
    }

    #[test]
    fn a_pass_is_due_when_enough_is_dirty() {
        let closed = segments(&[50, 50, 50]);
        let due = plan(&config(), &closed, Offset(10), Millis(9999)).unwrap();
        assert_eq!((due.dirty, due.segments.len()), (Offset(10)..Offset(30), 3));
        assert_eq!(plan(&config(), &closed, Offset(20), Millis(9999)), None, "a third is not half");
        let eager = TopicConfig { min_cleanable_dirty_ratio: Ratio::percent(1), ..config() };
        assert!(plan(&eager, &closed, Offset(20), Millis(9999)).is_some());
        assert_eq!(plan(&eager, &closed, Offset(30), Millis(9999)), None, "nothing is dirty");
        let overdue = TopicConfig { max_compaction_lag_ms: 5000, ..config() };
        assert!(plan(&overdue, &closed, Offset(20), Millis(7000)).is_some());
        assert_eq!(plan(&TopicConfig::default(), &closed, Offset(0), Millis(9999)), None);
        assert_eq!(plan(&TopicConfig { self_compacting: true, ..config() }, &closed, Offset(0), Millis(9999)), None);
    }

    #[test]
    fn young_segments_wait() {
        let config = TopicConfig { min_compaction_lag_ms: 1000, ..config() };
        let due = plan(&config, &segments(&[50, 50, 50]), Offset(0), Millis(2000)).unwrap();
        assert_eq!((due.dirty, due.segments.len()), (Offset(0)..Offset(20), 2));
    }

    #[test]
    fn small_neighbours_become_one() {
        let closed = segments(&[40, 40, 40, 120, 10]);
        let sizes: Vec<usize> = groups(&config(), &closed).iter().map(|group| group.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        let mut far = segments(&[1, 1]);
        far[1].end_offset = Offset(i64::from(i32::MAX) + 1);
        assert_eq!(groups(&config(), &far).len(), 2);
    }
}
