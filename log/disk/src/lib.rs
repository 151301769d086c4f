//! The log on disk: files behind a trait, group commit, recovery, and the handles that doors use.

mod chain;
mod cleaner;
mod clock;
mod dirs;
mod engine;
mod files;
mod hosting;
mod keeper;
mod layout;
mod lifecycle;
mod log;
mod machine;
mod meta;
mod open;
mod partition;
mod points;
mod pool;
mod read;
mod real;
mod recover;
mod replica;
pub mod sealed;
mod segment_file;
mod shard;
mod shared;
pub mod sim;
mod space;
mod starts;
mod stats;
mod store;
mod swap;
#[cfg(test)]
mod tests;
mod topic;
mod truncate;
mod unopened;

pub use chain::{Chain, Term};
pub use dirs::{kafka_id, parse_kafka_id};
pub use files::{File, Files, read_bytes, read_file, replace_file};
pub use forebay_log::partition::{
    ActiveProducer, AppendData, Appended, ClosedSegment, EpochCache, Follower, Watermarks,
};
pub use log::{Log, LogError, LogOptions};
pub use partition::{Fetched, Partition, Ticket};
pub use real::RealFiles;
pub use replica::{Copying, IsrProposal, Observer};
pub use stats::LogStats;
pub use topic::{NewTopic, Topic};
