//! Appends that must not overtake one of theirs that was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forebay_log::AppendError;

/// A chain of appends from one source that sends on without waiting for answers. Once one of them is refused, all later
/// ones are too: else what the source sends again would stand behind what it sent after. It stays broken; the source
/// begins a new one. Clones are the same chain.
#[derive(Debug, Clone)]
pub struct Chain {
    id: u64,
    broken: Arc<AtomicBool>,
}

impl Default for Chain {
    fn default() -> Chain {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Chain { id: NEXT.fetch_add(1, Ordering::Relaxed), broken: Arc::default() }
    }
}

impl Chain {
    #[must_use]
    pub fn new() -> Chain {
        Chain::default()
    }

    /// A number of its own in this process, not 0: another node that takes appends of the chain knows it by that.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Something of this source was refused, here or elsewhere.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// # Errors
    /// [`AppendError::Storage`] once it is broken.
    pub fn check(&self) -> Result<(), AppendError> {
        if self.is_broken() {
            return Err(AppendError::Storage("an earlier append of the same source was refused".to_owned()));
        }
        Ok(())
    }
}
