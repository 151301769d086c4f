//! The live set of a state topic, and how much log stands behind it.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Log bytes that are never worth a compaction.
const COMPACT_MIN_BYTES: usize = 1 << 20;
/// How many times its live set a log may grow to.
const COMPACT_FACTOR: usize = 4;
/// Bytes that a record takes beyond its key and value, about.
const RECORD_OVERHEAD_BYTES: usize = 16;

/// Keys and values, and their sizes before compression.
#[derive(Debug, Default)]
pub(super) struct Live {
    entries: BTreeMap<Bytes, Bytes>,
    live_bytes: usize,
    /// Of all records from the log start on.
    log_bytes: usize,
    /// No compaction: it would remove what is damaged, and with it what shows that something is missing.
    held: bool,
}

fn record_bytes(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + RECORD_OVERHEAD_BYTES
}

impl Live {
    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.entries.get(key).cloned()
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let from = self.entries.range(Bytes::copy_from_slice(prefix)..);
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Takes in a change that is durable.
    pub(super) fn apply(&mut self, key: Bytes, value: Option<Bytes>) {
        self.log_bytes += record_bytes(&key, value.as_deref().unwrap_or_default());
        let size = key.len();
        let old = match value {
            Some(value) => {
                self.live_bytes += record_bytes(&key, &value);
                self.entries.insert(key, value)
            }
            None => self.entries.remove(&key),
        };
        if let Some(old) = old {
            self.live_bytes -= size + old.len() + RECORD_OVERHEAD_BYTES;
        }
    }

    /// As [`Live::apply`] for a record read back. Copies, so that a small entry does not keep its whole batch in memory.
    pub(super) fn replay(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.apply(Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
    }

    pub(super) fn entries(&self) -> Vec<(Bytes, Bytes)> {
        self.scan(b"")
    }

    /// Whether the log has outgrown the live set.
    pub(super) fn wants_compaction(&self) -> bool {
        !self.held && self.log_bytes > COMPACT_MIN_BYTES.max(self.live_bytes.saturating_mul(COMPACT_FACTOR))
    }

    pub(super) fn hold_compaction(&mut self) {
        self.held = true;
    }

    pub(super) fn release_compaction(&mut self) {
        self.held = false;
    }

    /// The log is the live set again.
    pub(super) fn compacted(&mut self) {
        self.log_bytes = self.live_bytes;
    }

    /// A compaction failed: it is worth another try when the log has grown by as much again.
    pub(super) fn compaction_failed(&mut self) {
        self.log_bytes /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwriting_one_key_grows_the_log_but_not_the_live_set() {
        let mut live = Live::default();
        let mut puts = 0;
        while !live.wants_compaction() {
            live.apply(Bytes::from_static(b"k"), Some(Bytes::from(vec![0; 1000])));
            puts += 1;
        }
        assert!((1000..1100).contains(&puts), "{puts}");
        live.compacted();
        assert!(!live.wants_compaction());
        live.apply(Bytes::from_static(b"k"), None);
        assert_eq!((live.live_bytes, live.get(b"k")), (0, None));
    }

    #[test]
    fn a_prefix_finds_its_keys_only() {
        let mut live = Live::default();
        for key in ["a/1", "b/1", "b/2", "c"] {
            live.replay(key.as_bytes(), Some(b"x"));
        }
        let keys: Vec<Bytes> = live.scan(b"b/").into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["b/1", "b/2"]);
    }
}
