//! The node's clocks: a steady one for waits and expiries, and the wall clock of arrivals, which follows when it is set right.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use forebay_log::Millis;
use tokio::time::{Duration, Instant};

/// Wall time at the start, and what a monotonic clock has added since.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    at: Millis,
    /// By how much the wall clock was ahead of the steady one at the last look.
    ahead: AtomicI64,
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) steady: Millis,
    pub(crate) wall: Millis,
}

impl Clock {
    #[must_use]
    pub(crate) fn start() -> Clock {
        Clock::start_at(SystemTime::now())
    }

    /// As if the system's clock showed `system`.
    #[must_use]
    pub(crate) fn start_at(system: SystemTime) -> Clock {
        Clock { started: Instant::now(), at: Millis::from_system(system), ahead: AtomicI64::new(0) }
    }

    /// The steady clock: never set, for the machines that take time as an argument.
    #[must_use]
    pub(crate) fn now(&self) -> Millis {
        Millis(self.at.0 + i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX / 2))
    }

    /// What both clocks show when the steady one shows `steady`.
    #[must_use]
    pub(crate) fn moment(&self, steady: Millis) -> Moment {
        Moment { steady, wall: Millis(steady.0.saturating_add(self.ahead.load(Ordering::Relaxed))) }
    }

    /// Looks at the system's clock, which may have been set; to be called each second or so.
    pub(crate) fn follow(&self, system: SystemTime) {
        self.ahead.store(Millis::from_system(system).0.saturating_sub(self.now().0), Ordering::Relaxed);
    }

    /// When the steady clock shows `at`.
    #[must_use]
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        self.started + Duration::from_millis(u64::try_from(at.0 - self.at.0).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_follow_the_systems_clock_and_waits_do_not() {
        let clock = Clock::start();
        let before = clock.now();
        let set = SystemTime::now() + Duration::from_secs(1_000_000);
        clock.follow(set);
        let moment = clock.moment(clock.now());
        assert!((moment.wall.0 - Millis::from_system(set).0).abs() < 1000, "{moment:?}");
        assert!((moment.steady.0 - before.0).abs() < 1000, "{moment:?}");
    }
}
