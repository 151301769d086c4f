//! Limits log lines that a peer or a lasting fault can cause: at most N a second for each place in the code, or once a minute
//! for each reason; the rest is counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The budget of one place that logs. Keep it in a `static` beside the log line:
///
/// ```
/// static LIMIT: forebay::log_limit::LogLimit = forebay::log_limit::LogLimit::new(10);
/// if let Some(suppressed) = LIMIT.admit() {
///     tracing::warn!(suppressed, "what a peer did wrong");
/// }
/// ```
#[derive(Debug)]
pub struct LogLimit {
    per_second: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Allows `per_second` lines in each second.
    pub const fn new(per_second: u32) -> LogLimit {
        LogLimit { per_second, window: Mutex::new(Window { since: None, lines: 0, suppressed: 0 }) }
    }

    /// Whether a line may be logged now, and if so, how many were suppressed since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = window.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1));
        if fresh {
            window.since = Some(now);
            window.lines = 0;
        }
        if window.lines >= self.per_second {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// Time after which a fault that lasts is told again.
const FAULT_AGAIN: Duration = Duration::from_secs(60);
/// Different reasons that are told in that time.
const FAULT_REASONS: usize = 8;

/// The lines of a fault that may last, such as a receiver that is down: told when it begins, when its reason changes, and once
/// a minute.
#[derive(Debug)]
pub struct FaultLog {
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    since: Option<Instant>,
    reasons: Vec<String>,
    suppressed: u64,
}

impl FaultLog {
    pub const fn new() -> FaultLog {
        FaultLog { told: Mutex::new(Told { since: None, reasons: Vec::new(), suppressed: 0 }) }
    }

    /// Whether a line with this reason may be logged now, and if so, how many lines were suppressed since the last one.
    pub fn admit(&self, reason: &impl ToString) -> Option<u64> {
        self.admit_at(Instant::now(), reason.to_string())
    }

    fn admit_at(&self, now: Instant, reason: String) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.is_none_or(|since| now.saturating_duration_since(since) >= FAULT_AGAIN) {
            told.since = Some(now);
            told.reasons.clear();
        }
        if told.reasons.len() >= FAULT_REASONS || told.reasons.contains(&reason) {
            told.suppressed += 1;
            return None;
        }
        told.reasons.push(reason);
        Some(std::mem::take(&mut told.suppressed))
    }
}

impl Default for FaultLog {
    fn default() -> Self {
        FaultLog::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_limit_are_counted_and_told_later() {
        let limit = LogLimit::new(2);
        let start = Instant::now();
        let at = |millis| limit.admit_at(start + Duration::from_millis(millis));
        assert_eq!((at(0), at(1), at(2), at(999)), (Some(0), Some(0), None, None));
        assert_eq!(at(1000), Some(2), "the next second tells what was left out");
        assert_eq!(at(1001), Some(0));
    }

    #[test]
    fn a_fault_that_lasts_is_told_at_once_when_it_changes_and_each_minute() {
        let (log, start) = (FaultLog::new(), Instant::now());
        let at = |seconds: u64, reason: &str| log.admit_at(start + Duration::from_secs(seconds), reason.to_owned());
        assert_eq!(at(0, "no answer"), Some(0));
        assert_eq!((at(1, "no answer"), at(2, "no answer")), (None, None));
        assert_eq!(at(3, "status 401"), Some(2), "it changes");
        assert_eq!((at(4, "no answer"), at(5, "status 401")), (None, None), "to and fro is no news");
        assert_eq!(at(60, "no answer"), Some(2), "a minute later");
        assert_eq!((6..100).filter_map(|n| at(61, &format!("reason {n}"))).count(), FAULT_REASONS - 1);
    }
}
