//! What is remembered of one payload while its columns are filled.

use super::json::{Parser, Syntax};
use super::style::Proof;

/// Most values, nulls included, that one payload may put into columns: a list of empty objects takes three bytes for each
/// and a null in every column that such an object has.
pub(super) const MAX_PAYLOAD_CELLS: usize = 1 << 20;
/// Characters of a key that `_error` shows.
const SHOWN_KEY_CHARS: usize = 80;

/// What [`Notes::spend`] fails with: such a payload is JSON, but stays bytes.
pub(super) const TOO_MANY_CELLS: &str = "more values than one payload may put into columns";

/// A value that its column cannot hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Misfit {
    pub(super) got: &'static str,
    pub(super) want: &'static str,
}

/// What is remembered of one payload while its columns are filled.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) path: String,
    /// The first field that did not fit, for people.
    pub(super) misfit: Option<String>,
    /// Values put into columns so far.
    pub(super) cells: usize,
    /// Whether the columns reproduce the payload.
    pub(super) proof: Proof,
    /// The shape's separators are followed by a space.
    pub(super) spaced: bool,
    /// There is something that no column has a place for, and one could have.
    pub(super) more: bool,
}

impl Notes {
    /// Of a payload that is to have a shape with separators `spaced` so.
    pub(super) fn of(spaced: bool) -> Notes {
        Notes { spaced, ..Notes::default() }
    }

    pub(super) fn spend(&mut self, cells: usize, parser: &Parser<'_>) -> Result<(), Syntax> {
        self.cells += cells;
        if self.cells > MAX_PAYLOAD_CELLS { parser.fail(TOO_MANY_CELLS) } else { Ok(()) }
    }

    pub(super) fn prove(&mut self, proof: Proof) {
        self.proof = self.proof.max(proof);
    }

    pub(super) fn note(&mut self, key: &str, what: &str) {
        self.prove(Proof::Differs);
        if self.misfit.is_none() {
            let cut = key.char_indices().nth(SHOWN_KEY_CHARS).map_or(key.len(), |(at, _)| at);
            let more = if cut < key.len() { "..." } else { "" };
            self.misfit = Some(format!("field {}{}{more}: {what}", self.path, &key[..cut]));
        }
    }
}
