//! How the service itself stands: what waits for each receiver and why, how far rules are behind, and what is still being opened.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_log::Offset;

use super::board::SourceId;
use super::service::Service;
use crate::leadership;

/// How far one receiver has got.
pub(super) struct Standing {
    /// Kind and address as people are shown them; no two receivers have the same.
    pub(super) name: String,
    pub(super) kind: &'static str,
    next: AtomicI64,
    error: Mutex<Option<String>>,
}

impl Standing {
    pub(super) fn new(name: String, kind: &'static str, next: Offset) -> Standing {
        Standing { name, kind, next: AtomicI64::new(next.0), error: Mutex::new(None) }
    }

    /// Where the receiver goes on in `_alerts`.
    pub(super) fn next(&self) -> Offset {
        Offset(self.next.load(Ordering::Acquire))
    }

    pub(super) fn reach(&self, next: Offset) {
        self.next.store(next.0, Ordering::Release);
    }

    /// Why the last attempt failed; `None`: it did not.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Records of `_alerts` that are still before it.
    pub(super) fn backlog(&self, end: Offset) -> i64 {
        (end.0 - self.next().0).max(0)
    }
}

/// Counts what is begun and not yet done: until it is none, what the service shows is not all there is.
#[derive(Clone, Default)]
pub(super) struct Opening(Arc<AtomicUsize>);

impl Opening {
    /// One more, until the guard is dropped.
    pub(super) fn begin(&self) -> OpeningGuard {
        self.0.fetch_add(1, Ordering::AcqRel);
        OpeningGuard(self.clone())
    }

    pub(super) fn none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

pub(super) struct OpeningGuard(Opening);

impl Drop for OpeningGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Service {
    /// Sets the gauges that move without an event here: how far rules and receivers are behind.
    pub(super) fn measure(&self) {
        let rules = self.rules.borrow().clone();
        let mut lags = Vec::new();
        for topic in rules.sources().into_iter().filter_map(|name| self.log.topic(name)) {
            for partition in &topic.partitions {
                if leadership::led(&self.log, partition).is_none() {
                    continue;
                }
                let id: SourceId = (topic.name.clone(), topic.id, partition.index());
                let marks = partition.watermarks();
                // One that cannot be opened has all of it before it.
                let position = self.board.position(&id).unwrap_or(marks.log_start.0);
                lags.push((id.0, id.2, (marks.high_watermark.0 - position).max(0)));
            }
        }
        let end = self.journal.end();
        let receivers = self.receivers();
        let backlogs = receivers.iter().map(|standing| (standing.name.clone(), standing.backlog(end)));
        self.metrics.alerts.measured(lags, backlogs.collect());
    }
}
