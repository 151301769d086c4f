//! The log as a pure core: no tokio, no files, no sockets, no clock, no unseeded randomness.

pub mod cluster;
pub mod compaction;
pub mod error;
pub mod flaws;
pub mod group;
pub mod limits;
pub mod partition;
pub mod partitioner;
pub mod record;
pub mod replication;
pub mod segment;
pub mod topic;
pub mod units;

pub use error::{AppendError, ReadError};
pub use topic::TopicConfig;
pub use units::{Epoch, Incarnation, Level, MetadataVersion, Millis, NodeId, Offset, PartitionEpoch};
