//! How long a client must wait that has taken more than its allowance: a token bucket for each.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::table::Sharers;
use crate::kafka::limits::{MAX_QUOTA_BUCKETS, MAX_THROTTLE, QUOTA_BURST};

/// What is left of one allowance; below zero it is owed.
#[derive(Debug)]
struct Bucket {
    bytes: f64,
    at: Instant,
}

/// The allowances of all clients that have a quota.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    by: HashMap<Sharers, Bucket>,
}

impl Buckets {
    /// Takes `bytes` from an allowance of `rate` bytes a second; returns how long its clients must wait before their next
    /// request.
    pub(super) fn take(&mut self, sharers: Sharers, rate: f64, bytes: usize, now: Instant) -> Duration {
        // A rate of nothing at all would owe for ever.
        let rate = rate.max(1.0);
        let full = rate * QUOTA_BURST.as_secs_f64();
        if self.by.len() >= MAX_QUOTA_BUCKETS && !self.by.contains_key(&sharers) {
            // Whoever has had nothing for the time of a burst owes nothing.
            self.by.retain(|_, bucket| bucket.bytes < 0.0 || now.duration_since(bucket.at) < QUOTA_BURST);
        }
        if self.by.len() >= MAX_QUOTA_BUCKETS && !self.by.contains_key(&sharers) {
            // So many that each waits as if its allowance had been empty.
            return wait(-(bytes as f64), rate);
        }
        let bucket = self.by.entry(sharers).or_insert(Bucket { bytes: full, at: now });
        let since = now.duration_since(bucket.at).as_secs_f64();
        bucket.bytes = (bucket.bytes + since * rate).min(full) - bytes as f64;
        bucket.at = now;
        wait(bucket.bytes, rate)
    }

    /// As many as have an allowance.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by.len()
    }
}

fn wait(left: f64, rate: f64) -> Duration {
    Duration::try_from_secs_f64((-left / rate).max(0.0)).unwrap_or(MAX_THROTTLE).min(MAX_THROTTLE)
}

#[cfg(test)]
mod tests {
    use super::super::table::Limited;
    use super::*;

    fn client(name: &str) -> Sharers {
        Sharers { user: None, client: Some(name.to_owned()), limited: Limited::Fetch }
    }

    #[test]
    fn over_time_no_more_than_the_rate_is_taken() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let (mut now, mut taken) = (start, 0);
        for _ in 0..100 {
            taken += 700;
            now += buckets.take(client("a"), 1000.0, 700, now);
        }
        let seconds = now.duration_since(start).as_secs_f64();
        let allowed = 1000.0 * (seconds + QUOTA_BURST.as_secs_f64());
        assert!(f64::from(taken) <= allowed + 1.0 && f64::from(taken) >= 1000.0 * seconds, "{taken} in {seconds} s");
    }

    #[test]
    fn a_burst_is_free_and_one_client_does_not_wait_for_another() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let burst = (1000.0 * QUOTA_BURST.as_secs_f64()) as usize;
        assert_eq!(buckets.take(client("a"), 1000.0, burst, now), Duration::ZERO);
        assert_eq!(buckets.take(client("a"), 1000.0, 500, now), Duration::from_millis(500));
        assert_eq!(buckets.take(client("b"), 1000.0, 500, now), Duration::ZERO);
        assert_eq!(buckets.take(client("a"), 0.0, 1 << 40, now), MAX_THROTTLE);
    }

    #[test]
    fn allowances_are_bounded_and_idle_ones_make_room() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for n in 0..MAX_QUOTA_BUCKETS {
            buckets.take(client(&n.to_string()), 1000.0, 1, now);
        }
        assert_eq!(buckets.take(client("late"), 1000.0, 500, now), Duration::from_millis(500), "no room, no burst");
        assert_eq!(buckets.take(client("later"), 1000.0, 500, now + QUOTA_BURST), Duration::ZERO);
        assert_eq!(buckets.len(), 1);
    }
}
