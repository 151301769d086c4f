//! What a state topic says so far: its records applied in the order of the log, the last one of a key wins.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_log::Offset;

use super::Change;

/// The keys and values up to an offset of the log.
#[derive(Debug, Default)]
pub(super) struct View {
    entries: BTreeMap<Bytes, Bytes>,
    next: Offset,
}

/// What became of records of this node's own that are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Applied,
    /// They were read from the log before.
    Known,
    /// Records of others, or of our own that are still to be heard of, come before them.
    Early,
}

impl View {
    pub(super) fn at(next: Offset) -> View {
        View { entries: BTreeMap::new(), next }
    }

    /// The offset of the next record to be applied.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.entries.get(key).cloned()
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn scan(&self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let from = self.entries.range(Bytes::copy_from_slice(prefix)..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        found.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Takes records that this node wrote at `base` up to `last`, and so need not be read, when it is their turn.
    pub(super) fn take_own(&mut self, base: Offset, last: Offset, changes: &[Change]) -> Taken {
        if last < self.next {
            return Taken::Known;
        }
        if base != self.next {
            return Taken::Early;
        }
        self.apply(changes, last.next());
        Taken::Applied
    }

    /// Takes what was read from the log from [`View::next`] on, up to `next`.
    pub(super) fn apply(&mut self, changes: &[Change], next: Offset) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.entries.insert(key.clone(), value.clone())),
                None => drop(self.entries.remove(key)),
            }
        }
        self.next = next.max(self.next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(key: u8, value: Option<u8>) -> Change {
        (Bytes::copy_from_slice(&[key]), value.map(|value| Bytes::copy_from_slice(&[value])))
    }

    #[test]
    fn a_prefix_finds_its_keys_only() {
        let mut view = View::default();
        let changes: Vec<Change> =
            ["a/1", "b/1", "b/2", "c"].map(|key| (Bytes::from(key), Some(Bytes::from("x")))).into();
        view.apply(&changes, Offset(4));
        let keys = |limit| view.scan(b"b/", limit).into_iter().map(|(key, _)| key).collect::<Vec<Bytes>>();
        assert_eq!(keys(9), ["b/1", "b/2"]);
        assert_eq!(keys(1), ["b/1"]);
    }

    /// One node of two that write: its puts complete in any order, and it reads as far as it likes in between.
    struct Node {
        view: View,
        waiting: Vec<(usize, usize)>,
    }

    impl Node {
        fn settle(&mut self, log: &[Change]) {
            let view = &mut self.view;
            loop {
                let before = self.waiting.len();
                self.waiting.retain(|(base, last)| {
                    let own = &log[*base..=*last];
                    view.take_own(Offset(*base as i64), Offset(*last as i64), own) == Taken::Early
                });
                if self.waiting.len() == before {
                    return;
                }
            }
        }

        fn read(&mut self, log: &[Change], end: usize) {
            let next = self.view.next().0 as usize;
            if end > next {
                self.view.apply(&log[next..end], Offset(end as i64));
            }
            self.settle(log);
        }
    }

    proptest! {
        #[test]
        fn two_writers_see_the_same_in_any_interleaving(
            puts in prop::collection::vec((0usize..2, prop::collection::vec((0u8..4, prop::option::of(any::<u8>())), 1..4)), 1..20),
            steps in prop::collection::vec((0usize..2, 0u8..3, any::<prop::sample::Index>()), 0..60),
        ) {
            let (mut log, mut acked) = (Vec::new(), [Vec::new(), Vec::new()]);
            for (writer, changes) in puts {
                let base = log.len();
                log.extend(changes.into_iter().map(|(key, value)| change(key, value)));
                acked[writer].push((base, log.len() - 1));
            }
            let mut nodes = [0, 1].map(|_| Node { view: View::default(), waiting: Vec::new() });
            for (at, what, index) in steps {
                if what == 0 {
                    nodes[at].read(&log, index.index(log.len() + 1));
                } else if !acked[at].is_empty() {
                    // Acknowledged in any order.
                    let chosen = index.index(acked[at].len());
                    let own = acked[at].swap_remove(chosen);
                    nodes[at].waiting.push(own);
                    nodes[at].settle(&log);
                }
                let mut model = View::default();
                let next = nodes[at].view.next();
                model.apply(&log[..next.0 as usize], next);
                prop_assert_eq!(nodes[at].view.scan(b"", 99), model.scan(b"", 99), "a view is the log up to its offset");
            }
            for node in &mut nodes {
                node.read(&log, log.len());
            }
            prop_assert_eq!(nodes[0].view.scan(b"", 99), nodes[1].view.scan(b"", 99));
            prop_assert!(nodes.iter().all(|node| node.waiting.is_empty()), "what was acknowledged is applied");
        }
    }
}
