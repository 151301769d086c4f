//! A bound on bytes a second: what is not used within a second is not saved up.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Counts bytes against a rate.
pub(crate) struct Throttle {
    rate: Option<u64>,
    state: Mutex<(Instant, f64)>,
}

impl Throttle {
    /// `rate`: bytes a second; `None` is no bound.
    pub(crate) fn new(rate: Option<u64>) -> Throttle {
        Throttle { rate, state: Mutex::new((Instant::now(), rate.unwrap_or(0) as f64)) }
    }

    /// How much of `wanted` may go now.
    pub(crate) fn room(&self, wanted: usize) -> usize {
        let Some(rate) = self.rate else { return wanted };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(state.0).as_secs_f64() * rate as f64;
        *state = (now, (state.1 + gained).min(rate as f64));
        if state.1 <= 0.0 { 0 } else { wanted.min(state.1 as usize) }
    }

    /// So much has gone; more than there was room for is paid back first.
    pub(crate) fn take(&self, bytes: usize) {
        if self.rate.is_some() {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).1 -= bytes as f64;
        }
    }
}
