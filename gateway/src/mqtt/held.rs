//! What connections hold in memory in front of the log, counted for the whole node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::MAX_HELD_BYTES;

/// Bytes that all connections together have read and that the log has not yet taken. Clones are the same count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    bytes: Arc<AtomicUsize>,
}

/// One connection's part; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    held: Held,
    own: usize,
}

impl Held {
    pub(crate) fn share(&self) -> Share {
        Share { held: self.clone(), own: 0 }
    }
}

impl Share {
    /// Says how much the connection holds now.
    pub(crate) fn set(&mut self, own: usize) {
        if own > self.own {
            self.held.bytes.fetch_add(own - self.own, Ordering::Relaxed);
        } else if own < self.own {
            self.held.bytes.fetch_sub(self.own - own, Ordering::Relaxed);
        }
        self.own = own;
    }

    /// Whether the connection may read on. One that holds nothing always may, so that each gets on.
    pub(crate) fn may_grow(&self) -> bool {
        self.own == 0 || self.held.bytes.load(Ordering::Relaxed) < MAX_HELD_BYTES
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_holds_something_waits_while_all_hold_too_much() {
        let held = Held::default();
        let (mut one, mut other) = (held.share(), held.share());
        one.set(MAX_HELD_BYTES - 1);
        other.set(1);
        assert!(!one.may_grow() && !other.may_grow());
        other.set(0);
        assert!(one.may_grow() && other.may_grow());
        one.set(MAX_HELD_BYTES);
        assert!(!one.may_grow() && other.may_grow(), "one that holds nothing gets on");
        drop(one);
        other.set(1);
        assert!(other.may_grow(), "what is dropped is given back");
    }
}
