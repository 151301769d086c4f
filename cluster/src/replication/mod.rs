//! Replication between nodes: this node's partitions are fed to their followers, and those it follows are fetched.

mod feeder;
mod fetcher;
mod fetchers;
pub mod limits;
mod replicas;
mod wire;

pub use feeder::Feeder;
pub use fetchers::Fetchers;
pub use replicas::{Replica, Replicas};
