//! The cluster's metadata: the records that change it, the image that they make, and the controller that decides on
//! them.
//!
//! Every node has the [`Image`]; it changes by [`Record`]s alone, in one order for all. Only the [`controller`] makes
//! records. What it decides together is one batch and applies as a whole or not at all; what is too large for one goes into several, and
//! what is missing of those the next controller decides again.

pub mod controller;
pub mod image;
pub mod invariants;
pub mod node;
pub mod placement;
pub mod record;
mod shared;
mod status;
pub mod topic;

pub use controller::{Controller, Limits, Refusal, Reply, Request};
pub use image::Image;
pub use node::{Liveness, Node, Registration};
pub use record::{LevelRange, PartitionState, Record};
pub use shared::Shared;
pub use status::Hosting;
pub use topic::Topic;
