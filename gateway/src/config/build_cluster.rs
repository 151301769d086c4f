//! `[cluster]` from checked settings, and the rules between its keys and others.

use super::cluster::{ClusterConfig, ClusterTls, parse_peer};
use super::error::Problem;
use super::keys::TOPIC_DEFAULTS;
use super::settings::Settings;
use super::types::{Config, TopicDefaults};
use super::value::Value;

const SECTION: &str = "cluster";
const FACTOR: &str = "default.replication.factor";
const IN_SYNC: &str = "min.insync.replicas";
/// Nodes from which on each record has two copies more, unless the configuration says otherwise.
const SAFE_NODES: usize = 3;

impl Settings {
    pub(super) fn cluster(&self, node_id: u32) -> ClusterConfig {
        let listed = match self.get(SECTION, "peers") {
            Some(Value::List(peers)) => peers,
            _ => Vec::new(),
        };
        let peers: std::collections::BTreeMap<i32, String> =
            listed.iter().filter_map(|peer| parse_peer(peer).ok()).collect();
        let own = i32::try_from(node_id).ok().and_then(|id| peers.get(&id).cloned());
        let tls = match (self.path(SECTION, "certfile"), self.path(SECTION, "keyfile"), self.path(SECTION, "cafile")) {
            (Some(certfile), Some(keyfile), Some(cafile)) => Some(ClusterTls { certfile, keyfile, cafile }),
            _ => None,
        };
        let safe = peers.len() >= SAFE_NODES;
        let factor = match self.entry(TOPIC_DEFAULTS, FACTOR) {
            Some(_) => u16::try_from(self.integer(TOPIC_DEFAULTS, FACTOR)).unwrap_or(1),
            None => {
                if safe {
                    3
                } else {
                    1
                }
            }
        };
        let rate = self.integer(SECTION, "catch_up_rate");
        ClusterConfig {
            // A node that names its own address in the quorum listens there.
            listen: self.address(SECTION).or_else(|| own.as_ref().and_then(|address| address.parse().ok())),
            advertised: own,
            peers,
            tls,
            rack: self.text("node", "rack").filter(|rack| !rack.is_empty()),
            replica_lag_time_max_ms: self.integer(SECTION, "replica.lag.time.max.ms"),
            catch_up_rate: u64::try_from(rate).ok().filter(|rate| *rate > 0),
            default_replication_factor: factor,
        }
    }

    /// With three nodes a record is on two before its ack, unless the configuration says otherwise.
    pub(super) fn settle_in_sync(&self, cluster: &ClusterConfig, defaults: &mut TopicDefaults) {
        let said = self.entry(TOPIC_DEFAULTS, IN_SYNC).is_some();
        if !said && cluster.default_replication_factor >= 3 {
            defaults.config.min_insync_replicas = 2;
        }
    }

    pub(super) fn check_cluster(&self, config: &Config, problems: &mut Vec<Problem>) {
        let cluster = &config.cluster;
        let mut refuse = |section: &str, name: &str, what: String, help: &str| {
            problems.push(Problem {
                origin: self.origin(section, name),
                what: format!("{section}.{name}: {what}"),
                help: (!help.is_empty()).then(|| help.to_owned()),
            });
        };
        if let Some(Value::List(listed)) = self.get(SECTION, "peers") {
            let (right, wrong): (Vec<_>, Vec<_>) = listed.iter().map(|peer| parse_peer(peer)).partition(Result::is_ok);
            for wrong in wrong.into_iter().filter_map(Result::err) {
                refuse(SECTION, "peers", wrong, "");
            }
            if cluster.peers.len() < right.len() {
                refuse(SECTION, "peers", "a node is in it twice".to_owned(), "each node has one id and one address");
            }
        }
        let alone = cluster.is_alone(config.node.id);
        if !alone && cluster.listen.is_none() {
            let what = "other nodes have to reach this one".to_owned();
            refuse("listeners", SECTION, what, "set it to the address that cluster.peers has for this node");
        }
        if let Some(address) = cluster.listen.filter(|address| !address.ip().is_loopback())
            && cluster.advertised.is_none()
            && ["127.0.0.1", "localhost", "::1"].contains(&config.node.advertised_host.as_str())
        {
            let what = format!("other nodes are told to connect to it, but listeners.cluster is {address}");
            refuse("node", "advertised_host", what, "set it to this machine's name or address");
        }
        if alone && cluster.peers.is_empty() && self.address(SECTION).is_some() {
            let what = "a cluster has a first quorum".to_owned();
            refuse(
                SECTION,
                "peers",
                what,
                "set cluster.peers, or listeners.cluster = \"off\" for a node that runs alone",
            );
        }
        if let Some(address) = cluster.listen.filter(|address| !address.ip().is_loopback())
            && cluster.tls.is_none()
            && !config.allow_anonymous
        {
            let what = format!("{address} is open to the network and nodes do not have to authenticate");
            let help =
                "set cluster.certfile, cluster.keyfile and cluster.cafile, or accept it with allow_anonymous = true";
            refuse("listeners", SECTION, what, help);
        }
        let files = ["certfile", "keyfile", "cafile"];
        let given = files.iter().filter(|name| self.path(SECTION, name).is_some()).count();
        if (1..files.len()).contains(&given) {
            for name in files.iter().filter(|name| self.path(SECTION, name).is_none()) {
                refuse(SECTION, name, "missing".to_owned(), "certfile, keyfile and cafile belong together");
            }
        }
        let factor = usize::from(cluster.default_replication_factor);
        if alone && cluster.peers.is_empty() && factor > 1 {
            refuse(TOPIC_DEFAULTS, FACTOR, format!("{factor} is not possible: with one node only 1 is"), "");
        }
    }
}
