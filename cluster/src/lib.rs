//! Nodes among each other: the links between them, the quorum that keeps the cluster's metadata, and the log that they hold
//! together.

pub mod link;
mod log;
pub mod quorum;

pub use forebay_disk::{
    AppendData, Appended, Chain, Fetched, Files, LogError, LogOptions, LogStats, NewTopic, RealFiles, Watermarks,
};
pub use log::{Log, Node, Partition, Placement, Ticket, Topic, Topics};
