//! What the configuration says of the cluster: who its first nodes are, and how this one takes part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[cluster]`, and what else has to do with other nodes.
#[derive(Debug, Clone, Default)]
pub struct ClusterConfig {
    /// The first quorum: node ids and the addresses of their cluster listeners. Empty: a cluster of one.
    pub peers: BTreeMap<i32, String>,
    /// Where other nodes connect to this one.
    pub listen: Option<SocketAddr>,
    /// What others are told to connect to; default: what `peers` says, or `node.advertised_host` and the listener's port.
    pub advertised: Option<String>,
    pub tls: Option<ClusterTls>,
    /// Rack or site: replicas of a partition go to different ones.
    pub rack: Option<String>,
    /// `replica.lag.time.max.ms`
    pub replica_lag_time_max_ms: i64,
    /// Bytes a second for followers that catch up; `None` is no limit.
    pub catch_up_rate: Option<u64>,
    /// `default.replication.factor`
    pub default_replication_factor: u16,
}

impl ClusterConfig {
    /// Whether node `id` begins a cluster of one: there is nobody whom it joins.
    #[must_use]
    pub fn is_alone(&self, id: u32) -> bool {
        self.peers.keys().all(|peer| u32::try_from(*peer) == Ok(id))
    }
}

/// Certificates of the links between nodes: each shows its own, and takes those of the authorities.
#[derive(Debug, Clone)]
pub struct ClusterTls {
    pub certfile: PathBuf,
    pub keyfile: PathBuf,
    pub cafile: PathBuf,
}

/// Reads `1@10.0.0.1:9192`.
///
/// # Errors
/// What is wrong with it, for a person.
pub(super) fn parse_peer(text: &str) -> Result<(i32, String), String> {
    let wrong = || format!("expected ID@HOST:PORT, as in 1@10.0.0.1:9192, found \"{text}\"");
    let (id, address) = text.split_once('@').ok_or_else(wrong)?;
    let id = id.trim().parse().ok().filter(|id: &i32| *id >= 0).ok_or_else(wrong)?;
    let (host, port) = address.trim().rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    // The colons of an IPv6 address are its own: [::1]:9192.
    let bare = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || host.contains(char::is_whitespace) || bare {
        Err(wrong())
    } else {
        Ok((id, format!("{host}:{port}")))
    }
}
