//! Bugs that the simulation of a cluster plants, one at a time, to show that it finds them; without the feature there are none.

/// A classic bug of replicated logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Appends are acknowledged before they are synced.
    AckBeforeSync,
    /// A new follower cuts its log to its high watermark, and asks nobody where the logs part (before KIP-101).
    TruncateToHighWatermark,
    /// Batches, fetches and reports of any leader epoch are taken.
    NoEpochCheck,
    /// The high watermark passes a replica that is to leave the in-sync ones before the controller has agreed.
    ShrinkBeforeCommit,
    /// A range is committed to the table without a look at how far the table goes.
    CommitWithoutOffsetCheck,
}

#[cfg(feature = "flaws")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Flaw>> = const { std::cell::Cell::new(None) };
}

/// Plants a flaw in what this thread does from now on, or none.
#[cfg(feature = "flaws")]
pub fn plant(flaw: Option<Flaw>) {
    PLANTED.set(flaw);
}

/// Whether this flaw is planted.
#[cfg(feature = "flaws")]
#[must_use]
pub fn has(flaw: Flaw) -> bool {
    PLANTED.get() == Some(flaw)
}

/// Whether this flaw is planted: never.
#[cfg(not(feature = "flaws"))]
#[must_use]
pub const fn has(_: Flaw) -> bool {
    false
}
