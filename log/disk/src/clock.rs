//! Notices when the wall clock is set: it then moves otherwise than a monotonic clock.

use std::time::Instant;

use forebay_log::Millis;
use forebay_log::limits::CLOCK_STEP_MS;

/// The last look at both clocks.
pub(crate) struct StepWatch {
    wall: Millis,
    monotonic: Instant,
}

impl StepWatch {
    pub(crate) fn new(wall: Millis, monotonic: Instant) -> StepWatch {
        StepWatch { wall, monotonic }
    }

    /// By how many milliseconds the wall clock was set since the last look; `None` when it only went on. Small corrections,
    /// as of a clock that is slewed, are no steps.
    pub(crate) fn step(&mut self, wall: Millis, monotonic: Instant) -> Option<i64> {
        let passed = monotonic.saturating_duration_since(self.monotonic).as_millis();
        let expected = self.wall.0.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        *self = StepWatch { wall, monotonic };
        let by = wall.0.saturating_sub(expected);
        (by.abs() > CLOCK_STEP_MS).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_clock_that_is_set_steps() {
        let start = Instant::now();
        let mut watch = StepWatch::new(Millis(1000), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.step(Millis(61_000), at(60)), None, "time passes");
        assert_eq!(watch.step(Millis(62_500), at(61)), None, "slewed");
        assert_eq!(watch.step(Millis(1_700_000_063_500), at(62)), Some(1_700_000_000_000), "set forward");
        assert_eq!(watch.step(Millis(1_700_000_064_500), at(63)), None, "once");
        assert_eq!(watch.step(Millis(65_500), at(64)), Some(-1_700_000_000_000), "set back");
    }
}
