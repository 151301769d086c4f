//! How a follower gets its leader's log: pull requests that say where each partition stands, and answers that go on from there.
//!
//! A follower has one session with each leader. A pull says only what has changed: partitions that are new to the session or begin
//! again elsewhere, with the last epoch of their log, and those that are no longer followed; of all others the leader knows
//! what it has sent (as Kafka's fetch sessions, KIP-227). It answers with batches as they are stored, or with where the
//! logs part (KIP-595). The next pull goes out before the batches are durable; when they are, the follower says so apart.
//!
//! ```text
//! Puller (follower)                          Feed (leader)
//!   Pull {wants: [partition, epoch, from, last epoch]} ->
//!              <- Batches {from, marks, bytes} | Diverges {epoch, end} | Anew {..} | Refused
//!   Ends [partition, epoch, durable end]  ->   high watermark, in-sync replicas
//! ```

mod feed;
mod message;
mod puller;

pub use feed::{Answer, Feed, SessionLost, Source, View};
pub use message::{End, Part, PartBody, PartitionId, Pull, PullRefusal, Want};
pub use puller::{Effect, Puller, Tail};
