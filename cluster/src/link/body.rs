//! The body of a message: a head that was encoded for it, and stored bytes behind it that are written as they are.

use bytes::Bytes;

/// What a frame carries. It is written vectored: `head` and `parts` are not copied into one piece, except when all is
/// small.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    pub head: Bytes,
    pub parts: Vec<Bytes>,
}

impl Body {
    pub fn new(head: Bytes, parts: Vec<Bytes>) -> Body {
        Body { head, parts }
    }

    pub fn len(&self) -> usize {
        self.head.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.head).chain(&self.parts)
    }
}

impl From<Bytes> for Body {
    fn from(head: Bytes) -> Body {
        Body { head, parts: Vec::new() }
    }
}
