//! Nodes among each other: the links between them, and the quorum that keeps the cluster's metadata.

pub mod codec;
pub mod link;
pub mod quorum;
