//! Appends that must not overtake one of theirs that was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_log::AppendError;

/// A chain of appends from one source that sends on without waiting for answers. Once one of them is refused, all later
/// ones are too: else what the source sends again would stand behind what it sent after. It stays broken; the source
/// begins a new one. Clones are the same chain.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    broken: Arc<AtomicBool>,
}

impl Chain {
    #[must_use]
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Something of this source was refused, here or elsewhere.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// # Errors
    /// [`AppendError::Storage`] once it is broken.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(AppendError::Storage("an earlier append of the same source was refused".to_owned()));
        }
        Ok(())
    }
}
