//! Which publishes with the retain flag are on their way from the log to the retained messages. A new subscription is behind
//! them in the log, so it is sent the retained messages once these are among them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Keepings {
    numbers: Mutex<Numbers>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    under_way: BTreeSet<u64>,
}

/// Publishes that are appended, then kept; ends when dropped.
#[derive(Debug)]
pub(crate) struct Keeping {
    all: Arc<Keepings>,
    number: u64,
}

impl Keepings {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the publishes are handed to the log.
    pub(crate) fn begin(self: &Arc<Self>) -> Keeping {
        let mut numbers = self.numbers();
        let number = numbers.next;
        numbers.next += 1;
        numbers.under_way.insert(number);
        Keeping { all: self.clone(), number }
    }

    /// The number of the next one: those below have begun.
    pub(crate) fn next(&self) -> u64 {
        self.numbers().next
    }

    /// Whether all below `number` have ended.
    pub(crate) fn have_ended_below(&self, number: u64) -> bool {
        self.numbers().under_way.first().is_none_or(|first| *first >= number)
    }

    /// Waits until all below `number` have ended; cancel-safe.
    pub(crate) async fn end_below(&self, number: u64) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.have_ended_below(number) {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.all.numbers().under_way.remove(&self.number);
        self.all.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_those_that_began_before_are_waited_for() {
        let all = Arc::new(Keepings::default());
        let (first, second) = (all.begin(), all.begin());
        let number = all.next();
        let _later = all.begin();
        drop(second);
        assert!(!all.have_ended_below(number));
        let waiting = tokio::spawn({
            let all = all.clone();
            async move { all.end_below(number).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
