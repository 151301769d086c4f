//! What the coordinators of a node's partitions hold together: the limits are the node's, however many it leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much of everything that is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) groups: usize,
    /// Of all members.
    pub(super) bytes: usize,
    pub(super) offsets: usize,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    groups: AtomicUsize,
    bytes: AtomicUsize,
    offsets: AtomicUsize,
}

/// One coordinator's part, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Held>,
    mine: Amounts,
}

impl Share {
    pub(super) fn new(of: Arc<Held>) -> Share {
        Share { of, mine: Amounts::default() }
    }

    /// This part is so much from now on.
    pub(super) fn set(&mut self, now: Amounts) {
        let before = std::mem::replace(&mut self.mine, now);
        for (all, now, before) in [
            (&self.of.groups, now.groups, before.groups),
            (&self.of.bytes, now.bytes, before.bytes),
            (&self.of.offsets, now.offsets, before.offsets),
        ] {
            // The sum wraps as the parts do.
            all.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Of all parts.
    pub(super) fn total(&self) -> Amounts {
        let [groups, bytes, offsets] =
            [&self.of.groups, &self.of.bytes, &self.of.offsets].map(|all| all.load(Ordering::Relaxed));
        Amounts { groups, bytes, offsets }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(Amounts::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_are_given_back() {
        let held = Arc::new(Held::default());
        let (mut one, mut other) = (Share::new(Arc::clone(&held)), Share::new(held));
        one.set(Amounts { groups: 3, bytes: 100, offsets: 7 });
        other.set(Amounts { groups: 1, bytes: 10, offsets: 0 });
        one.set(Amounts { groups: 2, bytes: 50, offsets: 8 });
        assert_eq!(other.total(), Amounts { groups: 3, bytes: 60, offsets: 8 });
        drop(one);
        assert_eq!(other.total(), Amounts { groups: 1, bytes: 10, offsets: 0 });
    }
}
