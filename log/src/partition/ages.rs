//! Ages under a clock that was wrong. A box without a battery starts in 1970, or at the hour of its last shutdown, and is set
//! right minutes later: what it stored in those minutes must not look as old as the correction was large.

use super::event::{Effect, Persist};
use super::machine::Partition;
use crate::limits::{CLOCK_SETTLE_MS, MAX_CLOCK_LEAD_MS};
use crate::units::Millis;

/// The clock was set: it showed `before`, and went on from `before + by`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) before: Millis,
    /// Milliseconds; negative when it was set back.
    pub(super) by: i64,
}

/// A time of append as far as it can be believed at `now`: one that no clock can have shown rightly, or that lies far ahead,
/// counts as `now`. While the clock itself shows such a time, nothing can be told.
#[must_use]
pub fn believable(appended: Millis, now: Millis) -> Millis {
    let wrong = !appended.is_plausible() || appended.0 > now.0.saturating_add(MAX_CLOCK_LEAD_MS);
    if now.is_plausible() && wrong { now } else { appended }
}

impl<T> Partition<T> {
    /// The clock was set by `by` and shows `now`. Waits that were counted by it go on for as long as they had left.
    pub(super) fn clock_stepped(&mut self, now: Millis, by: i64) {
        self.hold.until = Millis(now.0.saturating_add(CLOCK_SETTLE_MS));
        self.steps.push(Step { before: Millis(now.0.saturating_sub(by)), by });
        self.shift_waits(by);
    }

    /// What was appended since this machine was made and before the clock was set moves with the clock.
    pub(super) fn take_steps(&mut self, effects: &mut Vec<Effect<T>>) -> Option<Persist<T>> {
        let mut persist = None;
        for Step { before, by } in std::mem::take(&mut self.steps) {
            let since = self.hold.opened;
            let moved = |at: Millis| if at >= since && at <= before { Millis(at.0.saturating_add(by)) } else { at };
            persist = self.restamp(moved, effects).or(persist);
            self.hold.opened = Millis(since.0.saturating_add(by));
        }
        persist
    }

    /// Times of append that cannot be believed count from now on.
    pub(super) fn settle_ages(&mut self, now: Millis, effects: &mut Vec<Effect<T>>) -> Option<Persist<T>> {
        self.restamp(|at| believable(at, now), effects)
    }

    fn restamp(&mut self, stamp: impl Fn(Millis) -> Millis, effects: &mut Vec<Effect<T>>) -> Option<Persist<T>> {
        let mut stamps = Vec::new();
        for segment in &mut self.segments {
            let appended = stamp(segment.appended);
            segment.created = stamp(segment.created);
            if appended != segment.appended {
                segment.appended = appended;
                stamps.push((segment.base_offset, appended));
            }
        }
        if !stamps.is_empty() {
            self.closed_version += 1;
            effects.push(Effect::Stamp(stamps));
        }
        let before = self.starts.clone();
        for cold in &mut self.starts.cold {
            cold.appended = stamp(cold.appended);
        }
        (self.starts != before).then(|| Self::save(self.starts.clone(), Vec::new()))
    }
}
