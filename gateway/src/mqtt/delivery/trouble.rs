//! Trouble that lasts: told when it begins or changes, and then once a minute.

use std::time::Duration;

use tokio::time::Instant;

/// How often trouble that lasts is told again.
const AGAIN: Duration = Duration::from_secs(60);

/// One source of trouble.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Option<(String, Instant)>,
    suppressed: u64,
}

impl Trouble {
    /// Whether to tell of `what` now, and if so, how many times that was left out since the last time.
    pub(super) fn met(&mut self, what: &str, now: Instant) -> Option<u64> {
        if let Some((told, at)) = &self.told
            && told == what
            && now.duration_since(*at) < AGAIN
        {
            self.suppressed += 1;
            return None;
        }
        self.told = Some((what.to_owned(), now));
        Some(std::mem::take(&mut self.suppressed))
    }

    /// It is over; whether there was any.
    pub(super) fn over(&mut self) -> bool {
        self.told.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_lasts_is_told_at_once_when_it_changes_and_once_a_minute() {
        let begin = Instant::now();
        let mut trouble = Trouble::default();
        let mut lines = Vec::new();
        for second in 0..=150 {
            let what = if second < 100 { "EIO" } else { "EACCES" };
            if let Some(suppressed) = trouble.met(what, begin + Duration::from_secs(second)) {
                lines.push((second, suppressed));
            }
        }
        assert_eq!(lines, [(0, 0), (60, 59), (100, 39)]);
        assert!(trouble.over());
        assert!(!trouble.over());
        assert_eq!(trouble.met("EIO", begin + Duration::from_secs(151)), Some(50), "new trouble is told at once");
    }
}
