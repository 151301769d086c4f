//! Which segments may go, and where the log starts afterwards.
//!
//! Age counts from the append of a segment's last record, not from the record's own time: readings replayed years later
//! must not vanish the moment they are acknowledged.

use super::segments::{ColdSegment, Segment, Starts};
use crate::limits::MAX_COLD_SEGMENTS;
use crate::topic::TopicConfig;
use crate::units::{Millis, Offset};

/// What was appended before `opened` does not go by its age before `until`: the clock may not be right yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) opened: Millis,
    pub(super) until: Millis,
}

impl Hold {
    fn holds(&self, appended: Millis, now: Millis) -> bool {
        appended < self.opened && now < self.until
    }
}

/// The starts after retention, when it has anything to do. `segments` are the local ones, the active one last; only
/// closed ones wholly below `high_watermark` are let go.
pub(super) fn apply(
    config: &TopicConfig,
    segments: &[Segment],
    starts: &Starts,
    high_watermark: Offset,
    hold: Hold,
    now: Millis,
) -> Option<(Starts, usize)> {
    let closed = segments.len().saturating_sub(1);
    let mut next = starts.clone();
    let mut gone = 0;
    let removable = |segment: &Segment, starts: &Starts| {
        segment.end_offset <= high_watermark && (!config.is_tiered() || segment.end_offset <= starts.tiered)
    };
    if config.is_tiered() {
        let mut local: u64 = segments.iter().map(|s| s.bytes).sum();
        for segment in segments.iter().take(closed) {
            let aged = expired(segment.appended, config.local_retention_ms.or(config.retention_ms), now);
            let over = config.local_retention_bytes.is_some_and(|limit| local > limit);
            if !((aged || over) && removable(segment, &next)) {
                break;
            }
            local -= segment.bytes;
            gone += 1;
            if segment.end_offset > next.log_start {
                let cold =
                    ColdSegment { end_offset: segment.end_offset, bytes: segment.bytes, appended: segment.appended };
                next.cold.push(cold);
                merge_oldest(&mut next.cold);
            }
        }
    }
    if config.delete {
        let cold: u64 = next.cold.iter().map(|c| c.bytes).sum();
        let mut total = cold + segments.iter().skip(gone).map(|s| s.bytes).sum::<u64>();
        let due = |appended: Millis, bytes: u64, total: u64| {
            (expired(appended, config.retention_ms, now) && !hold.holds(appended, now))
                || config.retention_bytes.is_some_and(|limit| total.saturating_sub(bytes) >= limit)
        };
        let mut cold_gone = 0;
        for segment in &next.cold {
            if !due(segment.appended, segment.bytes, total) {
                break;
            }
            total -= segment.bytes;
            next.log_start = next.log_start.max(segment.end_offset);
            cold_gone += 1;
        }
        next.cold.drain(..cold_gone);
        if next.cold.is_empty() {
            for segment in segments.iter().take(closed).skip(gone) {
                if !(due(segment.appended, segment.bytes, total) && removable(segment, &next)) {
                    break;
                }
                total -= segment.bytes;
                next.log_start = next.log_start.max(segment.end_offset);
                gone += 1;
            }
        }
    }
    // What DeleteRecords or the lake has moved the log start past.
    gone = gone.max(segments.iter().take(closed).take_while(|s| s.end_offset <= next.log_start).count());
    next.cold.retain(|cold| cold.end_offset > next.log_start);
    (gone > 0 || next != *starts).then_some((next, gone))
}

/// Whether the active segment is so old that all of it is to go: then it must be closed first.
pub(super) fn active_expired(config: &TopicConfig, active: &Segment, hold: Hold, now: Millis) -> bool {
    let due = || expired(active.appended, config.retention_ms, now) && !hold.holds(active.appended, now);
    config.delete && active.bytes > 0 && due()
}

/// When the oldest segment's age makes [`apply`] worth asking again.
pub(super) fn next_deadline(config: &TopicConfig, segments: &[Segment], starts: &Starts, hold: Hold) -> Option<Millis> {
    let plus = |at: Millis, limit: Option<i64>| limit.map(|ms| Millis(at.0.saturating_add(ms)));
    let oldest = segments.first().filter(|s| s.bytes > 0);
    let tiered = |s: &&Segment| !config.is_tiered() || s.end_offset <= starts.tiered;
    let whole = starts.cold.first().map(|c| c.appended).or(oldest.filter(tiered).map(|s| s.appended));
    let held = |at: Millis, due: Millis| if at < hold.opened { due.max(hold.until) } else { due };
    let whole = whole.filter(|_| config.delete).and_then(|at| Some(held(at, plus(at, config.retention_ms)?)));
    let local =
        oldest.filter(|s| config.is_tiered() && tiered(s)).and_then(|s| plus(s.appended, config.local_retention_ms));
    [whole, local].into_iter().flatten().min()
}

/// Keeps the list short: neighbours at the old end become one, which goes when its later half is due.
fn merge_oldest(cold: &mut Vec<ColdSegment>) {
    if cold.len() > MAX_COLD_SEGMENTS {
        let first = cold.remove(0);
        cold[0].bytes += first.bytes;
    }
}

fn expired(appended: Millis, limit: Option<i64>, now: Millis) -> bool {
    limit.is_some_and(|ms| now.0 >= appended.0.saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Hold = Hold { opened: Millis(i64::MIN), until: Millis(i64::MIN) };

    fn segments(count: i64) -> Vec<Segment> {
        (0..count)
            .map(|n| Segment {
                base_offset: Offset(n * 10),
                end_offset: Offset(n * 10 + 10),
                bytes: 100,
                max_timestamp: Millis(0),
                created: Millis(n * 1000),
                appended: Millis(n * 1000),
            })
            .collect()
    }

    fn config() -> TopicConfig {
        TopicConfig {
            retention_ms: Some(10_000),
            local_retention_ms: None,
            local_retention_bytes: None,
            remote_storage_enable: false,
            ..TopicConfig::default()
        }
    }

    #[test]
    fn old_segments_go_and_the_log_start_follows() {
        let (starts, gone) =
            apply(&config(), &segments(4), &Starts::default(), Offset(40), NONE, Millis(11_000)).unwrap();
        assert_eq!((gone, starts.log_start), (2, Offset(20)));
    }

    #[test]
    fn the_active_segment_stays() {
        let (starts, gone) =
            apply(&config(), &segments(4), &Starts::default(), Offset(40), NONE, Millis(99_000)).unwrap();
        assert_eq!((gone, starts.log_start), (3, Offset(30)));
    }

    #[test]
    fn bytes_beyond_the_limit_go_but_the_limit_stays_filled() {
        let config = TopicConfig { retention_ms: None, retention_bytes: Some(250), ..config() };
        let (starts, gone) = apply(&config, &segments(5), &Starts::default(), Offset(50), NONE, Millis(0)).unwrap();
        assert_eq!((gone, starts.log_start), (2, Offset(20)));
    }

    #[test]
    fn with_remote_storage_nothing_leaves_before_it_is_tiered() {
        let config = TopicConfig { remote_storage_enable: true, local_retention_ms: Some(0), ..config() };
        assert_eq!(apply(&config, &segments(4), &Starts::default(), Offset(40), NONE, Millis(99_000)), None);
        let starts = Starts { tiered: Offset(20), ..Starts::default() };
        let (next, gone) = apply(&config, &segments(4), &starts, Offset(40), NONE, Millis(5_000)).unwrap();
        assert_eq!((gone, next.log_start, next.cold.len()), (2, Offset(0), 2), "gone from here, kept in the log");
    }

    #[test]
    fn the_whole_logs_retention_reaches_into_the_cold_tier() {
        let config = TopicConfig { remote_storage_enable: true, local_retention_ms: Some(0), ..config() };
        let starts = Starts { tiered: Offset(20), ..Starts::default() };
        let (cold, _) = apply(&config, &segments(4), &starts, Offset(40), NONE, Millis(5_000)).unwrap();
        let (next, gone) = apply(&config, &segments(4)[2..], &cold, Offset(40), NONE, Millis(10_500)).unwrap();
        assert_eq!((gone, next.log_start, next.cold.len()), (0, Offset(10), 1));
    }

    #[test]
    fn the_list_of_cold_segments_stays_short_and_its_bytes_stay_counted() {
        let config = TopicConfig { remote_storage_enable: true, local_retention_ms: Some(0), ..config() };
        let count = MAX_COLD_SEGMENTS as i64 + 11;
        let starts = Starts { tiered: Offset(count * 10), ..Starts::default() };
        let config = TopicConfig { retention_ms: None, ..config };
        let (next, gone) =
            apply(&config, &segments(count), &starts, Offset(count * 10), NONE, Millis(i64::MAX)).unwrap();
        assert_eq!(next.cold.len(), MAX_COLD_SEGMENTS);
        assert_eq!(next.cold.iter().map(|c| c.bytes).sum::<u64>(), gone as u64 * 100);
    }

    #[test]
    fn nothing_goes_without_a_limit() {
        let config = TopicConfig { retention_ms: None, ..config() };
        assert_eq!(apply(&config, &segments(4), &Starts::default(), Offset(40), NONE, Millis(i64::MAX)), None);
    }
}
