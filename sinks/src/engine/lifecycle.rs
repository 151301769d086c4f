//! The life of one alert instance as a pure machine: inactive, pending, firing, resolved; in event time.
//!
//! A *run* is the readings for which `expr` holds since the last one for which it did not. An alert becomes pending with the first
//! reading of a run and fires with the first reading of the run that is `for` later. Firing ends when it clears (`clear`, or else
//! `expr` not holding) and stays so for `keep_firing_for`. Readings that tell nothing (unknown) change nothing.
//!
//! A reading that arrives out of order says what held in the past, not what holds now, so it neither fires an alert nor ends one
//! that fires. While pending it corrects the run: one that holds may move its start back; one that does not cuts it, and the run
//! then begins with the latest reading known to hold, or is over if the cut comes after that.

use crate::expr::Truth;

/// `for` and `keep_firing_for` of a rule, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) for_ms: i64,
    pub(super) keep_firing_for_ms: i64,
}

/// Where an instance is in its life. All times are event times, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    #[default]
    Inactive,
    Pending {
        active_at: i64,
        /// The latest reading of the run.
        last_true: i64,
    },
    Firing {
        active_at: i64,
        starts_at: i64,
        /// Since when it is clear, while `keep_firing_for` runs.
        cleared_at: Option<i64>,
    },
}

/// One reading as a rule sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    /// The reading's event time.
    pub(super) at: i64,
    /// Event time of the newest reading of the key, this one included.
    pub(super) newest: i64,
    pub(super) holds: Truth,
    /// The rule's `clear`, if it has one.
    pub(super) clear: Option<Truth>,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Pending { active_at: i64 },
    Firing { active_at: i64, starts_at: i64 },
    Resolved { active_at: i64, starts_at: Option<i64> },
}

/// An alert instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifecycle {
    pub(super) phase: Phase,
    /// Event time of the latest reading known not to hold; `i64::MIN` before any.
    pub(super) last_false: i64,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle { phase: Phase::Inactive, last_false: i64::MIN }
    }
}

impl Lifecycle {
    /// Takes in one reading.
    pub(super) fn observe(&mut self, policy: Policy, seen: Observation) -> Option<Change> {
        let change = if seen.at < seen.newest { self.correct(seen) } else { self.advance(policy, seen) };
        if seen.holds == Truth::False {
            self.last_false = self.last_false.max(seen.at);
        }
        change
    }

    fn advance(&mut self, policy: Policy, seen: Observation) -> Option<Change> {
        let at = seen.at;
        match self.phase {
            Phase::Inactive if seen.holds == Truth::True => {
                if policy.for_ms > 0 {
                    self.phase = Phase::Pending { active_at: at, last_true: at };
                    return Some(Change::Pending { active_at: at });
                }
                self.phase = Phase::Firing { active_at: at, starts_at: at, cleared_at: None };
                Some(Change::Firing { active_at: at, starts_at: at })
            }
            Phase::Inactive => None,
            Phase::Pending { active_at, .. } => match seen.holds {
                Truth::True if at.saturating_sub(active_at) >= policy.for_ms => {
                    self.phase = Phase::Firing { active_at, starts_at: at, cleared_at: None };
                    Some(Change::Firing { active_at, starts_at: at })
                }
                Truth::True => {
                    self.phase = Phase::Pending { active_at, last_true: at };
                    None
                }
                Truth::False => {
                    self.phase = Phase::Inactive;
                    Some(Change::Resolved { active_at, starts_at: None })
                }
                Truth::Unknown | Truth::Wrong => None,
            },
            Phase::Firing { active_at, starts_at, cleared_at } => {
                let cleared = match seen.clear {
                    // Where `clear` and `expr` overlap the alert would flap: `expr` wins.
                    Some(clear) if clear.is_known() => clear == Truth::True && seen.holds != Truth::True,
                    None if seen.holds.is_known() => seen.holds == Truth::False,
                    _ => return None,
                };
                if !cleared {
                    self.phase = Phase::Firing { active_at, starts_at, cleared_at: None };
                    return None;
                }
                let since = cleared_at.unwrap_or(at);
                if at.saturating_sub(since) >= policy.keep_firing_for_ms {
                    self.phase = Phase::Inactive;
                    return Some(Change::Resolved { active_at, starts_at: Some(starts_at) });
                }
                self.phase = Phase::Firing { active_at, starts_at, cleared_at: Some(since) };
                None
            }
        }
    }

    fn correct(&mut self, seen: Observation) -> Option<Change> {
        let Phase::Pending { active_at, last_true } = self.phase else { return None };
        self.phase = match seen.holds {
            Truth::True if seen.at < active_at && seen.at > self.last_false => {
                Phase::Pending { active_at: seen.at, last_true }
            }
            Truth::True => Phase::Pending { active_at, last_true: last_true.max(seen.at) },
            Truth::False if seen.at >= last_true => Phase::Inactive,
            Truth::False if seen.at >= active_at => Phase::Pending { active_at: last_true, last_true },
            _ => self.phase,
        };
        (self.phase == Phase::Inactive).then_some(Change::Resolved { active_at, starts_at: None })
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
