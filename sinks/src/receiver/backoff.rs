//! Pauses between attempts: doubling up to a bound, with jitter so that receivers do not come back in step.

use std::time::Duration;

use crate::limits::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS};

/// The attempts of one delivery.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed` makes the jitter: the same seed gives the same pauses.
    pub fn new(seed: u64) -> Backoff {
        Backoff { failures: 0, random: seed | 1 }
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a success: the next failure begins with the first pause again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure and gives the pause before the next attempt: between half of and the full doubled pause, or what the
    /// receiver asked for if that is longer, at most the bound.
    pub fn next_pause(&mut self, asked: Option<Duration>) -> Duration {
        let full = BACKOFF_FIRST_MS.saturating_mul(1 << self.failures.min(20)).min(BACKOFF_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pause = Duration::from_millis(full / 2 + self.random % (full / 2 + 1));
        pause.max(asked.unwrap_or_default()).min(Duration::from_millis(BACKOFF_MAX_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(7);
        let mut full = BACKOFF_FIRST_MS;
        for _ in 0..30 {
            let pause = backoff.next_pause(None).as_millis() as u64;
            assert!(pause >= full / 2 && pause <= full, "{pause} of {full}");
            full = (full * 2).min(BACKOFF_MAX_MS);
        }
        backoff.reset();
        assert!(backoff.next_pause(None) <= Duration::from_millis(BACKOFF_FIRST_MS));
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_within_the_bound() {
        assert_eq!(Backoff::new(1).next_pause(Some(Duration::from_secs(9))), Duration::from_secs(9));
        assert_eq!(Backoff::new(1).next_pause(Some(Duration::from_secs(9999))), Duration::from_millis(BACKOFF_MAX_MS));
    }
}
