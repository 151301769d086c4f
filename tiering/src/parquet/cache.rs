//! A small bounded cache of footers and decoded row groups, for consumers that read on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forebay_log::Offset;
use object_store::path::Path;

use super::footer::Footer;
use super::{CACHE_BYTES, CACHE_FOOTERS};

/// One record batch of a decoded row group.
#[derive(Debug, Clone)]
pub(super) struct ColdBatch {
    pub(super) last: Offset,
    pub(super) bytes: Bytes,
}

pub(super) type DecodedGroup = Arc<Vec<ColdBatch>>;

/// Entries by key; the one unused for longest goes when the budget is used up.
struct Lru<K, V> {
    entries: HashMap<K, (u64, usize, V)>,
    order: BTreeMap<u64, K>,
    clock: u64,
    used: usize,
    budget: usize,
}

impl<K: Clone + Eq + std::hash::Hash, V: Clone> Lru<K, V> {
    fn new(budget: usize) -> Lru<K, V> {
        Lru { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, used: 0, budget }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        let (at, _, value) = self.entries.get_mut(key)?;
        self.order.remove(at);
        self.clock += 1;
        *at = self.clock;
        self.order.insert(self.clock, key.clone());
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V, size: usize) {
        self.remove(&key);
        self.clock += 1;
        self.used += size;
        self.entries.insert(key.clone(), (self.clock, size, value));
        self.order.insert(self.clock, key);
        while self.used > self.budget
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some((at, size, _)) = self.entries.remove(key) {
            self.order.remove(&at);
            self.used -= size;
        }
    }
}

/// Objects have unique names and never change, so nothing is ever stale.
pub(super) struct Cache {
    footers: Mutex<Lru<Path, Arc<Footer>>>,
    groups: Mutex<Lru<(Path, usize), DecodedGroup>>,
}

impl Cache {
    pub(super) fn new() -> Cache {
        Cache { footers: Mutex::new(Lru::new(CACHE_FOOTERS)), groups: Mutex::new(Lru::new(CACHE_BYTES)) }
    }

    pub(super) fn footer(&self, path: &Path) -> Option<Arc<Footer>> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).get(path)
    }

    pub(super) fn put_footer(&self, path: &Path, footer: Arc<Footer>) {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).put(path.clone(), footer, 1);
    }

    pub(super) fn group(&self, path: &Path, group: usize) -> Option<DecodedGroup> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(&(path.clone(), group))
    }

    pub(super) fn put_group(&self, path: &Path, group: usize, batches: DecodedGroup) {
        let size = batches.iter().map(|batch| batch.bytes.len()).sum();
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).put((path.clone(), group), batches, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_unused_for_longest_makes_room() {
        let mut lru = Lru::new(10);
        lru.put("a", 1, 4);
        lru.put("b", 2, 4);
        assert_eq!(lru.get(&"a"), Some(1));
        lru.put("c", 3, 4);
        assert_eq!((lru.get(&"a"), lru.get(&"b"), lru.get(&"c")), (Some(1), None, Some(3)));
        lru.put("huge", 4, 11);
        assert_eq!(lru.used, 0);
    }
}
