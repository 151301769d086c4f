//! When each message of one client is to be sent: an open schedule that does not slow down with the broker. Pure, time is an
//! argument, in nanoseconds since the start of the run.
//!
//! A schedule that waits for the broker hides the broker's pauses (coordinated omission): so the times are a multiple of the
//! spacing, never the last time plus something, and a message that is sent late keeps the time at which it was due.

/// The end of a run's sending, by time or by count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// nanoseconds; nothing is sent from here on
    pub(super) end: u64,
    /// messages of this client
    pub(super) count: u64,
}

/// The schedule of one client, and how far it is.
#[derive(Debug)]
pub(super) struct Pace {
    /// nanoseconds: the first message, and between two; `None`: as fast as the broker lets it
    schedule: Option<(f64, f64)>,
    limits: Limits,
    sent: u64,
}

/// What a client does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Sends a message that was due at this time; latency counts from there.
    Send {
        due: u64,
    },
    Wait {
        until: u64,
    },
    Over,
}

impl Pace {
    /// The schedule of client `number` of `clients` that together send `rate` messages a second, spread evenly over time.
    pub(super) fn new(rate: Option<f64>, number: usize, clients: usize, limits: Limits) -> Pace {
        let schedule = rate.map(|rate| {
            let between_all = 1e9 / rate;
            (real(number) * between_all, real(clients) * between_all)
        });
        Pace { schedule, limits, sent: 0 }
    }

    /// What to do at `now`.
    pub(super) fn turn(&self, now: u64) -> Turn {
        if self.sent >= self.limits.count || now >= self.limits.end {
            return Turn::Over;
        }
        let Some((first, spacing)) = self.schedule else { return Turn::Send { due: now } };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let due = first + self.sent as f64 * spacing;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let due = due as u64;
        match due {
            due if due >= self.limits.end => Turn::Over,
            due if due <= now => Turn::Send { due },
            until => Turn::Wait { until },
        }
    }

    /// The message of the last [`Turn::Send`] is on its way.
    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of clients")]
fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const FREE: Limits = Limits { end: u64::MAX, count: u64::MAX };

    /// The due times of all messages that are sent up to `now`.
    fn send_all(pace: &mut Pace, now: u64) -> Vec<u64> {
        let mut due = Vec::new();
        while let Turn::Send { due: at } = pace.turn(now) {
            due.push(at);
            pace.sent();
        }
        due
    }

    #[test]
    fn clients_take_turns_at_even_distances() {
        let mut all: Vec<u64> =
            (0..4).flat_map(|number| send_all(&mut Pace::new(Some(1000.0), number, 4, FREE), SECOND - 1)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq((0..1000).map(|ms| ms * 1_000_000)));
    }

    #[test]
    fn a_client_that_was_held_up_catches_up_and_its_messages_keep_their_times() {
        let mut pace = Pace::new(Some(10.0), 0, 1, FREE);
        assert_eq!(send_all(&mut pace, 0), [0]);
        assert_eq!(pace.turn(1), Turn::Wait { until: SECOND / 10 });
        assert_eq!(send_all(&mut pace, SECOND / 2), [1, 2, 3, 4, 5].map(|n| n * SECOND / 10));
        assert_eq!(pace.turn(SECOND / 2), Turn::Wait { until: SECOND * 6 / 10 });
    }

    #[test]
    fn sending_ends_by_time_or_by_count() {
        let by_time = Limits { end: SECOND, count: u64::MAX };
        let mut pace = Pace::new(Some(10.0), 0, 1, by_time);
        assert_eq!(send_all(&mut pace, SECOND - 1).len(), 10);
        assert_eq!(pace.turn(SECOND - 1), Turn::Over);
        let mut pace = Pace::new(None, 0, 1, Limits { end: u64::MAX, count: 3 });
        assert_eq!(send_all(&mut pace, 7), [7, 7, 7]);
        assert_eq!(pace.turn(7), Turn::Over);
        assert_eq!(Pace::new(None, 0, 1, by_time).turn(SECOND), Turn::Over);
    }

    proptest! {
        #[test]
        fn the_schedule_does_not_drift_however_unevenly_it_is_asked(
            rate in 1.0..1e6f64, looks in proptest::collection::vec(1..50_000_000u64, 1..60)
        ) {
            let mut pace = Pace::new(Some(rate), 0, 1, FREE);
            let (mut now, mut sent) = (0, 0u32);
            for step in looks {
                now += step;
                for due in send_all(&mut pace, now) {
                    let ideal = f64::from(sent) * 1e9 / rate;
                    prop_assert!((due as f64 - ideal).abs() <= 1.0 + ideal * 1e-12, "{due} for {ideal}");
                    sent += 1;
                }
            }
            let expected = (now as f64 * rate / 1e9).floor() as i64 + 1;
            prop_assert!((i64::from(sent) - expected).abs() <= 1, "{sent} of {expected}");
        }
    }
}
