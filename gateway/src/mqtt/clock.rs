//! The doors' clock: wall time that never goes back, for the machines that take time as an argument.

use std::time::SystemTime;

use forebay_log::Millis;
use tokio::time::{Duration, Instant};

/// Wall time at the start, and what a monotonic clock has added since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    at: Millis,
}

impl Clock {
    #[must_use]
    pub(crate) fn start() -> Clock {
        Clock { started: Instant::now(), at: Millis::from_system(SystemTime::now()) }
    }

    #[must_use]
    pub(crate) fn now(&self) -> Millis {
        Millis(self.at.0 + i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX / 2))
    }

    /// When the clock shows `at`.
    #[must_use]
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        self.started + Duration::from_millis(u64::try_from(at.0 - self.at.0).unwrap_or(0))
    }
}
