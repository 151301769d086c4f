//! Payload bytes to typed columns and exactly back.
//!
//! [`Shaper`] fills the columns of a [`Shape`] in one pass over a payload and tells when payloads hold more than the shape has;
//! [`Inference`] widens it, in a pass of its own. [`Restorer`] goes the other way. What the typed columns cannot reproduce byte
//! for byte stays in `_value`: a payload is left out only if each of its tokens is known to be just what restoring writes
//! (`style`; builds with debug assertions check it), or if the very code that restores has produced the same bytes.

mod column;
mod encode;
mod headers;
mod infer;
mod json;
mod merge;
mod names;
mod notes;
mod object;
mod restore;
mod rows;
mod schema;
mod style;
mod texts;
mod time;
mod token;

pub use infer::Inference;
pub use json::MAX_DEPTH;
pub use restore::{RestoredRecord, Restorer};
pub use rows::{Shaped, Shaper};
pub use schema::{Field, Kind, MAX_COLUMN_DEPTH, MAX_FIELDS, MAX_KEY_BYTES, NumberStyle, SYSTEM_COLUMNS, Shape};
pub use time::{TimeStyle, Zone};
