//! Appends that must not overtake one of theirs that was refused, and those that one leader epoch alone may make.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forebay_log::{AppendError, Epoch};

/// A chain of appends from one source that sends on without waiting for answers. Once one of them is refused, all later
/// ones are too: else what the source sends again would stand behind what it sent after. It stays broken; the source
/// begins a new one. Clones are the same chain.
#[derive(Debug, Clone)]
pub struct Chain {
    id: u64,
    broken: Arc<AtomicBool>,
    term: Option<Term>,
}

/// The time in which one writer of this node may write to a partition as its leader: while the partition is in this leader epoch,
/// and until the term is ended. What it has handed over and the partition has not taken by then is refused, so a writer that comes
/// after it never finds its own writes in front of those of the one before. Clones are the same term.
#[derive(Debug, Clone)]
pub struct Term {
    epoch: Epoch,
    ended: Arc<AtomicBool>,
}

impl Term {
    #[must_use]
    pub fn new(epoch: Epoch) -> Term {
        Term { epoch, ended: Arc::default() }
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Nothing more of it is taken.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Default for Chain {
    fn default() -> Chain {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Chain { id: NEXT.fetch_add(1, Ordering::Relaxed), broken: Arc::default(), term: None }
    }
}

impl Chain {
    #[must_use]
    pub fn new() -> Chain {
        Chain::default()
    }

    /// A chain of this term.
    pub(crate) fn of(term: &Term) -> Chain {
        Chain { term: Some(term.clone()), ..Chain::default() }
    }

    /// Whether the partition, which is in `epoch`, may take it.
    pub(crate) fn check_in(&self, epoch: Epoch) -> Result<(), AppendError> {
        if self.term.as_ref().is_some_and(|term| term.epoch != epoch || term.is_ended()) {
            return Err(AppendError::FencedLeaderEpoch);
        }
        self.check()
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
