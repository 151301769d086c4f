//! The controller at work: where this node leads the quorum it decides, everywhere else it is asked.

mod active;
mod ask;
mod entries;
pub(crate) mod limits;

pub(crate) use active::Active;
pub use ask::AskError;
pub(crate) use ask::{Client, ask_here};
