//! Which kinds of messages a node speaks, in which versions, so that two releases send each other what both understand.

use std::collections::BTreeMap;
use std::fmt;

use super::error::LinkError;
use super::limits::MAX_KINDS;
use crate::codec::{Malformed, Reader, Writer};

/// The versions of a kind that a node speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub min: u16,
    pub max: u16,
}

impl Versions {
    pub fn contains(self, version: u16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The kinds that one node speaks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kinds(BTreeMap<u16, Versions>);

impl Kinds {
    /// From (kind, oldest version, newest version).
    pub fn new(kinds: impl IntoIterator<Item = (u16, u16, u16)>) -> Kinds {
        Kinds(kinds.into_iter().map(|(kind, min, max)| (kind, Versions { min, max })).collect())
    }

    pub fn get(&self, kind: u16) -> Option<Versions> {
        self.0.get(&kind).copied()
    }

    /// The newest version of `kind` that both speak.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] when there is none.
    pub fn common(&self, theirs: &Kinds, kind: u16) -> Result<u16, LinkError> {
        let (a, b) = (self.get(kind), theirs.get(kind));
        let newest = a.zip(b).map(|(a, b)| (a.max.min(b.max), a.min.max(b.min)));
        newest.filter(|(max, min)| min <= max).map(|(max, _)| max).ok_or_else(|| LinkError::unsupported(kind, a, b))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.count(self.0.len().min(MAX_KINDS));
        for (kind, versions) in self.0.iter().take(MAX_KINDS) {
            writer.u16(*kind).u16(versions.min).u16(versions.max);
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Kinds, Malformed> {
        let mut kinds = BTreeMap::new();
        for _ in 0..reader.count(MAX_KINDS)? {
            kinds.insert(reader.u16()?, Versions { min: reader.u16()?, max: reader.u16()? });
        }
        Ok(Kinds(kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_speak_is_chosen() {
        let ours = Kinds::new([(1, 2, 5), (2, 4, 4), (3, 0, 1)]);
        let theirs = Kinds::new([(1, 0, 3), (2, 0, 3), (4, 0, 1)]);
        assert_eq!((ours.common(&theirs, 1), theirs.common(&ours, 1)), (Ok(3), Ok(3)));
        for kind in [2, 3, 4, 5] {
            assert!(matches!(ours.common(&theirs, kind), Err(LinkError::Unsupported { .. })), "{kind}");
        }
    }
}
