//! When to say that something fails: at once, and while it goes on not so often that the log holds nothing else.

use std::time::{Duration, Instant};

/// Least time between two lines; reasons change with each try when they name its object or how long it took.
const BETWEEN: Duration = Duration::from_secs(60);
/// After this long the same reason is told again.
const AGAIN: Duration = Duration::from_secs(3600);

/// What was told last of one thing that fails.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<(Instant, String)>,
}

impl Told {
    /// Whether this failure is to be told.
    pub(super) fn is_news(&mut self, reason: &str, now: Instant) -> bool {
        let wait = |known: &str| if known == reason { AGAIN } else { BETWEEN };
        let news = self.last.as_ref().is_none_or(|(at, known)| now.saturating_duration_since(*at) >= wait(known));
        if news {
            self.last = Some((now, reason.to_owned()));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_once_another_reason_within_a_minute_and_the_same_within_an_hour() {
        let mut told = Told::default();
        let start = Instant::now();
        let mut at = |seconds: u64, reason: &str| told.is_news(reason, start + Duration::from_secs(seconds));
        assert!(at(0, "no route") && !at(10, "no route") && !at(20, "no answer in 30.1s"));
        assert!(!at(60, "no route") && at(70, "no answer in 30.2s") && !at(80, "no answer in 30.3s"));
        // Each ten seconds, for ten minutes: once a minute.
        let told = (9..69).filter(|n| at(n * 10, &format!("no answer in {n}s"))).count();
        assert_eq!(told, 10);
        assert!(!at(3600, "no answer in 67s") && at(5000, "no answer in 67s"));
    }
}
