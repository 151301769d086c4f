//! Payload bytes to typed columns and exactly back.
//!
//! Two passes over a segment: [`Inference`] widens the topic's [`Shape`] by what the payloads hold, then [`Shaper`] fills
//! columns. [`Restorer`] goes the other way. What the typed columns cannot reproduce byte for byte stays in `_value`; the
//! decision is made by the very code that restores, so a cold read can never differ from a hot one.

mod column;
mod encode;
mod infer;
mod json;
mod names;
mod restore;
mod rows;
mod schema;
mod time;
mod token;

pub use infer::Inference;
pub use json::MAX_DEPTH;
pub use restore::{RestoredRecord, Restorer};
pub use rows::{Shaped, Shaper};
pub use schema::{Field, Kind, MAX_COLUMN_DEPTH, MAX_FIELDS, MAX_KEY_BYTES, NumberStyle, SYSTEM_COLUMNS, Shape};
pub use time::{TimeStyle, Zone};
