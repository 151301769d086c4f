//! When a message expires. The wall clock decides, because the time outlives restarts, unless it cannot be right: then the
//! interval counts on the steady clock, from the publish or from the next load.

use forebay_log::Millis;

use crate::clock::Moment;

/// When the Message Expiry Interval of a message has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    Wall(Millis),
    Steady(Millis),
}

impl Expiry {
    /// Of a message that is published now.
    #[must_use]
    pub(crate) fn after(seconds: u32, now: Moment) -> Expiry {
        let interval = i64::from(seconds) * 1000;
        if now.wall.is_plausible() {
            Expiry::Wall(Millis(now.wall.0.saturating_add(interval)))
        } else {
            Expiry::Steady(Millis(now.steady.0.saturating_add(interval)))
        }
    }

    /// What is stored, in milliseconds: the wall time, or how long there is left. The latter is smaller than any time that a
    /// right clock shows.
    #[must_use]
    pub(crate) fn stored(self, now: Moment) -> i64 {
        match self {
            Expiry::Wall(at) => at.0,
            Expiry::Steady(_) => self.left(now).max(0),
        }
    }

    /// Reads what was stored. A time that no right clock has given counts from now.
    #[must_use]
    pub(crate) fn read(stored: i64, now: Moment) -> Expiry {
        if Millis(stored).is_plausible() {
            Expiry::Wall(Millis(stored))
        } else {
            Expiry::Steady(Millis(now.steady.0.saturating_add(stored)))
        }
    }

    /// Milliseconds left; none or less: the message has expired.
    #[must_use]
    pub(crate) fn left(self, now: Moment) -> i64 {
        match self {
            Expiry::Wall(at) => at.0.saturating_sub(now.wall.0),
            Expiry::Steady(at) => at.0.saturating_sub(now.steady.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: i64 = 1_800_000_000_000;

    fn moment(steady: i64, wall: i64) -> Moment {
        Moment { steady: Millis(steady), wall: Millis(wall) }
    }

    #[test]
    fn under_a_clock_that_is_right_the_interval_goes_on_over_a_restart() {
        let stored = Expiry::after(60, moment(0, RIGHT)).stored(moment(5000, RIGHT + 5000));
        assert_eq!(Expiry::read(stored, moment(0, RIGHT + 59_000)).left(moment(0, RIGHT + 59_000)), 1000);
        assert_eq!(Expiry::read(stored, moment(0, RIGHT + 60_000)).left(moment(0, RIGHT + 60_000)), 0);
    }

    #[test]
    fn setting_a_clock_that_was_in_1970_expires_nothing() {
        let published = Expiry::after(60, moment(1000, 1000));
        assert_eq!(published.left(moment(2000, RIGHT)), 59_000);
        assert_eq!(published.left(moment(61_000, RIGHT)), 0);
        let stored = published.stored(moment(11_000, RIGHT));
        assert_eq!(Expiry::read(stored, moment(0, RIGHT)).left(moment(20_000, RIGHT + 20_000)), 30_000);
    }

    #[test]
    fn starting_in_1970_expires_nothing_that_was_stored_under_the_right_clock() {
        let stored = Expiry::after(60, moment(0, RIGHT)).stored(moment(0, RIGHT));
        let loaded = Expiry::read(stored, moment(0, 0));
        assert!(loaded.left(moment(0, 0)) > 0);
        assert_eq!(loaded.left(moment(30_000, RIGHT + 30_000)), 30_000);
    }
}
