//! Limits log lines that a peer can cause: at most N a second for each place in the code, the rest counted.

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
}
