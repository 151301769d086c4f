//! Limits of replication between nodes.

use std::time::Duration;

/// How long a pull waits at the leader for something new (Kafka's `replica.fetch.wait.max.ms`).
pub const PULL_WAIT: Duration = Duration::from_millis(500);
/// How much longer the follower waits for the answer.
pub const PULL_SLACK: Duration = Duration::from_secs(5);
/// Most bytes of batches in one answer, unless a single one is larger (Kafka's `replica.fetch.response.max.bytes`).
pub const PULL_BYTES: usize = 4 << 20;
/// How long a message about durable ends may wait for the connection.
pub const ENDS_TIMEOUT: Duration = Duration::from_secs(5);
/// Partitions that a fetcher takes up or lets go, waiting to be noticed.
pub const FETCHER_QUEUE: usize = 256;
