//! The last offset of each key in the part of a log that is to be compacted; bounded in bytes.

use std::collections::HashMap;

use crate::units::Offset;

/// What an entry takes beside its key, about.
const ENTRY_BYTES: usize = 64;

/// A map of keys to their last offsets. It holds keys, not hashes of them: two keys are never taken for one.
#[derive(Debug)]
pub struct Keys {
    last: HashMap<Box<[u8]>, Offset>,
    bytes: usize,
    limit: usize,
}

impl Keys {
    /// A map that takes about `limit` bytes at most.
    #[must_use]
    pub fn new(limit: usize) -> Keys {
        Keys { last: HashMap::new(), bytes: 0, limit }
    }

    /// Notes that `key` has a record at `offset`; `false` when there is no room for the key.
    pub fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        if let Some(last) = self.last.get_mut(key) {
            *last = offset.max(*last);
            return true;
        }
        let bytes = key.len() + ENTRY_BYTES;
        // The first key has room however large it is, or a pass would never get on.
        if self.bytes + bytes > self.limit && !self.last.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.last.insert(key.into(), offset);
        true
    }

    /// Whether a later record of `key` than the one at `offset` is known.
    #[must_use]
    pub fn superseded(&self, key: &[u8], offset: Offset) -> bool {
        self.last.get(key).is_some_and(|last| *last > offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_counts_and_room_is_bounded() {
        let mut keys = Keys::new(2 * (ENTRY_BYTES + 1));
        assert!(keys.note(b"a", Offset(1)) && keys.note(b"b", Offset(2)) && keys.note(b"a", Offset(3)));
        assert!(!keys.note(b"c", Offset(4)) && keys.note(b"b", Offset(5)));
        assert!(keys.superseded(b"a", Offset(1)) && !keys.superseded(b"a", Offset(3)));
        assert!(!keys.superseded(b"c", Offset(0)), "what is not known is kept");
    }

    #[test]
    fn a_single_key_has_room_however_large() {
        assert!(Keys::new(1).note(&[0; 1000], Offset(0)));
    }
}
