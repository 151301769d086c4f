//! What a quorum is opened with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::errors::QuorumError;
use super::limits;
use super::transport::NodeId;

/// How a quorum is opened on one node.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// The voters of a new quorum with their addresses; the same on each of them. Once the quorum has begun, its own log
    /// says who votes, and this is not looked at. A node that is not among them waits to be added.
    pub voters: BTreeMap<NodeId, String>,
    /// Where the quorum's files are, relative to the data directory.
    pub folder: PathBuf,
    /// This node's part has begun before: its files must be there.
    pub begun: bool,
    pub timings: Timings,
    /// A snapshot is taken after so many entries.
    pub snapshot_entries: u64,
    /// A snapshot is taken when the entries in the log have so many bytes.
    pub snapshot_bytes: u64,
    /// Entries that stay in the log behind a snapshot.
    pub kept_entries: u64,
}

impl Options {
    /// The defaults, for `node` among `voters`.
    #[must_use]
    pub fn new(node: NodeId, voters: BTreeMap<NodeId, String>) -> Options {
        Options {
            node,
            voters,
            folder: PathBuf::from("quorum"),
            begun: false,
            timings: Timings::default(),
            snapshot_entries: limits::SNAPSHOT_ENTRIES,
            snapshot_bytes: limits::SNAPSHOT_BYTES,
            kept_entries: limits::KEPT_ENTRIES,
        }
    }
}

/// How long things take; see [`limits`] for the meanings and defaults.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    pub heartbeat: Duration,
    pub lease: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    pub proposal: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            heartbeat: limits::HEARTBEAT,
            lease: limits::LEASE,
            election_min: limits::ELECTION_MIN,
            election_max: limits::ELECTION_MAX,
            proposal: limits::PROPOSAL_TIMEOUT,
        }
    }
}

impl Options {
    /// openraft's own configuration.
    ///
    /// Its election timer is off: `election` decides when, after it has asked the other voters. What is left of its
    /// timeouts is the lease and the time that a vote may take.
    pub(super) fn raft(&self) -> Result<openraft::Config, QuorumError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let Timings { heartbeat, lease, election_min, election_max, .. } = self.timings;
        if lease >= election_min || election_min >= election_max {
            return Err(QuorumError::Options("lease < election_min < election_max is needed".to_owned()));
        }
        let config = openraft::Config {
            cluster_name: "forebay".to_owned(),
            heartbeat_interval: millis(heartbeat),
            election_timeout_min: millis(lease),
            election_timeout_max: millis(lease) + 1,
            enable_elect: false,
            install_snapshot_timeout: millis(limits::SNAPSHOT_CHUNK_TIMEOUT),
            max_payload_entries: limits::MAX_APPEND_ENTRIES,
            replication_lag_threshold: self.snapshot_entries,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            snapshot_max_chunk_size: limits::SNAPSHOT_CHUNK as u64,
            max_in_snapshot_log_to_keep: self.kept_entries,
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| QuorumError::Options(error.to_string()))
    }
}
