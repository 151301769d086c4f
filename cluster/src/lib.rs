//! Nodes among each other: the links between them, and the quorum that keeps the cluster's metadata.

pub mod codec;
mod controller;
pub mod kinds;
pub mod link;
mod metadata;
mod node;
pub mod quorum;
pub mod replication;
mod throttle;

pub use controller::AskError;
pub use metadata::Metadata;
pub use node::{Cluster, Options, Standing, StartError};
