//! What the links tell the log: each reason when it begins and once a minute while it lasts, however often it is met.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::limits::{MAX_REPORTS, REPORT_AGAIN};

#[derive(Debug, Default)]
pub(crate) struct Reports {
    told: Mutex<HashMap<String, Told>>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    suppressed: u64,
}

impl Reports {
    /// Whether this reason may be told now, and if so, how often it was met since it was told last.
    pub(crate) fn admit(&self, reason: &str) -> Option<u64> {
        self.admit_at(Instant::now(), reason)
    }

    fn admit_at(&self, now: Instant, reason: &str) -> Option<u64> {
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |told: &Told| now.saturating_duration_since(told.at) >= REPORT_AGAIN;
        if let Some(told) = all.get_mut(reason) {
            if !due(told) {
                told.suppressed += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.suppressed));
        }
        if all.len() >= MAX_REPORTS {
            all.retain(|_, told| !due(told));
        }
        // So many different reasons within a minute are made by somebody: the log keeps out of it.
        if all.len() >= MAX_REPORTS {
            return None;
        }
        all.insert(reason.to_owned(), Told { at: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reason_is_told_at_once_and_then_each_minute() {
        let (reports, start) = (Reports::default(), Instant::now());
        let at = |seconds, reason: &str| reports.admit_at(start + Duration::from_secs(seconds), reason);
        assert_eq!((at(0, "wrong cluster"), at(1, "wrong cluster"), at(59, "wrong cluster")), (Some(0), None, None));
        assert_eq!(at(2, "wrong node"), Some(0), "another reason does not wait");
        assert_eq!((at(60, "wrong cluster"), at(61, "wrong cluster")), (Some(2), None));
        let made = (0..10 * MAX_REPORTS).filter_map(|n| at(61, &format!("made up {n}"))).count();
        assert_eq!(made, MAX_REPORTS - 2, "and the log cannot be flooded with new ones");
        assert_eq!(at(200, "later"), Some(0));
    }
}
