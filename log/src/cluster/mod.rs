//! The cluster's metadata: the records that change it, the image that they make, and the controller that decides on them.
//!
//! Every node has the [`Image`]; it changes by [`Record`]s alone, in one order for all. Only the [`controller`] makes
//! records. What it decides together is one batch, and applies as a whole or not at all.

pub mod controller;
pub mod image;
pub mod node;
pub mod record;
mod shared;
pub mod topic;

pub use controller::{Refusal, Reply, Request};
pub use image::Image;
pub use node::{Liveness, Node, Registration};
pub use record::{LevelRange, PartitionState, Record};
pub use shared::Shared;
pub use topic::Topic;
