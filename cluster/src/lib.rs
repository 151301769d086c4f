//! Nodes among each other: the links between them, the quorum that keeps the cluster's metadata, and the log that they hold
//! together.

pub mod codec;
mod controller;
mod fence;
mod forward;
pub mod kinds;
pub mod link;
mod log;
mod metadata;
mod node;
pub mod quorum;
pub mod replication;
mod throttle;
mod topic_config;
mod writers;

pub use controller::AskError;
pub use fence::Claim;
pub use forebay_disk::{
    AppendData, Appended, Fetched, Files, LogError, LogOptions, LogStats, NewTopic, RealFiles, Term, Watermarks,
};
pub use forebay_disk::{Log as LocalLog, kafka_id, parse_kafka_id};
pub use link::{Counters, PeerCounters};
pub use log::{Chain, Log, Node, Partition, Placement, Ticket, Topic, Topics};
pub use metadata::Metadata;
pub use node::{Behind, Cluster, IsrChanges, Options, Report, Standing, StartError, VoterError};
pub use writers::{Writer, Written};
