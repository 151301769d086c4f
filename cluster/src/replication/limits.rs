//! Limits of replication between nodes.

use std::time::Duration;

/// How long a pull waits at the leader for something new (Kafka's `replica.fetch.wait.max.ms`).
pub const PULL_WAIT: Duration = Duration::from_millis(500);
/// How much longer the follower waits for the answer.
pub const PULL_SLACK: Duration = Duration::from_secs(5);
/// Most bytes of batches in one answer, unless a single one is larger (Kafka's `replica.fetch.response.max.bytes`).
pub const PULL_BYTES: usize = 4 << 20;
/// What lies no further than this before a log's end is read from memory; other reads may wait for the disk.
pub const AT_HAND_BYTES: u64 = 16 << 20;
/// Pulls that were not the next of their session, kept until they are answered.
pub const LOST_PULLS: u64 = 64;
/// How long a message about durable ends may wait for the connection.
pub const ENDS_TIMEOUT: Duration = Duration::from_secs(5);
/// Partitions that a fetcher takes up or lets go, waiting to be noticed.
pub const FETCHER_QUEUE: usize = 256;
