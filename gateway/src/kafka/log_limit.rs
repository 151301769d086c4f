//! One log line a second of each kind, however often a client asks for one.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Lets a line through when the last one was a while ago.
pub(crate) struct LogLimit {
    last: Mutex<Option<Instant>>,
}

impl LogLimit {
    pub(crate) fn new() -> LogLimit {
        LogLimit { last: Mutex::new(None) }
    }
    pub(crate) fn warn(&self, line: impl FnOnce()) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1)) {
            *last = Some(now);
            drop(last);
            line();
        }
    }
}
