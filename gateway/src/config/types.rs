//! The configuration as the program uses it, after parsing and checking.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use forebay_log::TopicConfig;

use super::cluster::ClusterConfig;
use super::kafka::{KafkaConfig, UserConfig};

/// Everything that can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: NodeConfig,
    pub listeners: Listeners,
    pub cluster: ClusterConfig,
    /// Accept clients that do not authenticate on addresses other than loopback (mosquitto's name).
    pub allow_anonymous: bool,
    pub tls: TlsConfig,
    pub kafka: KafkaConfig,
    /// Users that exist from the start, by name.
    pub users: BTreeMap<String, UserConfig>,
    pub mqtt: MqttConfig,
    pub object_store: ObjectStoreConfig,
    pub durability: Durability,
    pub topic_defaults: TopicDefaults,
    /// Topics made at start if missing: partition count and configs, defaults applied.
    pub topics: BTreeMap<String, TopicDefaults>,
    pub routes: Vec<RouteConfig>,
    pub alerts: AlertsConfig,
}

impl Config {
    /// The configs of a topic of the program's own, as safe as those of others.
    #[must_use]
    pub fn replicated(&self, config: TopicConfig) -> TopicConfig {
        TopicConfig { min_insync_replicas: self.topic_defaults.config.min_insync_replicas, ..config }
    }
}

#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub id: u32,
    pub data_dir: PathBuf,
    /// What clients are told to connect to (Kafka metadata).
    pub advertised_host: String,
}

/// Addresses; `None` is "off".
#[derive(Debug, Clone)]
pub struct Listeners {
    pub mqtt: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
    pub ws: Option<SocketAddr>,
    pub wss: Option<SocketAddr>,
    pub quic: Option<SocketAddr>,
    pub kafka: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// Certificates, with mosquitto's names. PEM files.
#[derive(Debug, Clone, Default)]
pub struct TlsConfig {
    pub certfile: Option<PathBuf>,
    pub keyfile: Option<PathBuf>,
    /// Authorities whose client certificates are accepted.
    pub cafile: Option<PathBuf>,
    /// Clients must show a certificate of `cafile`.
    pub require_certificate: bool,
    /// `tls_version`: "tlsv1.3" (default) or "tlsv1.2" to allow 1.2 too
    pub allow_tls12: bool,
}

/// Limits of the MQTT doors (mosquitto's names where it has them).
#[derive(Debug, Clone)]
pub struct MqttConfig {
    /// `max_packet_size`, bytes
    pub max_packet_size: usize,
    /// `max_connections`, over all MQTT doors
    pub max_connections: usize,
    /// `max_inflight_messages`: QoS 1 and 2 publishes one client may have unacknowledged (v5 Receive Maximum)
    pub max_inflight_messages: u16,
    /// `max_queued_messages`: messages to a subscriber waiting in memory for its socket
    pub max_queued_messages: usize,
    /// `max_keepalive`, seconds
    pub max_keepalive: u16,
    /// `max_session_expiry`, seconds
    pub max_session_expiry: u32,
    /// `connect_timeout`, milliseconds in which CONNECT must arrive
    pub connect_timeout_ms: u64,
    /// `max_topic_alias`
    pub max_topic_alias: u16,
    /// `max_sessions`, connected or kept for clients that are away
    pub max_sessions: usize,
    /// `max_retained_messages`
    pub max_retained_messages: usize,
    /// `max_retained_bytes`, bytes of all retained messages together
    pub max_retained_bytes: usize,
}

impl Default for MqttConfig {
    fn default() -> Self {
        MqttConfig {
            max_packet_size: 1 << 20,
            max_connections: 100_000,
            max_inflight_messages: 1024,
            max_queued_messages: 1000,
            max_keepalive: 65535,
            max_session_expiry: 7 * 86_400,
            connect_timeout_ms: 10_000,
            max_topic_alias: 16,
            max_sessions: 200_000,
            max_retained_messages: 100_000,
            max_retained_bytes: 256 << 20,
        }
    }
}

#[derive(Debug, Clone)]
pub struct ObjectStoreConfig {
    pub url: String,
    /// The remaining keys of the section, as `object_store` names them.
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct Durability {
    /// A device's PUBACK waits for every in-sync replica, not for the leader alone.
    pub all: bool,
    /// fdatasync before the ack.
    pub fsync: bool,
}

#[derive(Debug, Clone)]
pub struct TopicDefaults {
    pub num_partitions: u32,
    pub config: TopicConfig,
}

/// One of `[[routes]]`.
#[derive(Debug, Clone)]
pub struct RouteConfig {
    pub filter: String,
    pub topic: String,
    /// Template: `{1}` is the first wildcard's value; default: the client id.
    pub key: Option<String>,
    /// JSON pointer to the reading's own time; default: arrival.
    pub timestamp: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct AlertsConfig {
    /// Rule files (globs), made absolute against the config file's folder.
    pub rules: Vec<PathBuf>,
}
