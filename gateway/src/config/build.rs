//! From checked settings to the [`Config`] that the program uses, with the rules between keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use forebay_log::TopicConfig;
use forebay_log::topic::is_internal;

use crate::ingest::Router;

use super::error::{ConfigError, Origin, Problem};
use super::keys::{KEYS, OBJECT_STORE, TOPIC_DEFAULTS};
use super::settings::Settings;
use super::topic_config;
use super::types::*;
use super::value::Value;

const IN_SYNC: &str = "min.insync.replicas";

impl Settings {
    /// Builds the configuration and checks the rules between keys.
    ///
    /// # Errors
    /// Every rule that is broken.
    pub fn build(&self) -> Result<Config, ConfigError> {
        let mut topic_defaults = self.topic_defaults();
        let node = NodeConfig {
            id: self.number("node", "id"),
            data_dir: self.path("node", "data_dir").unwrap_or_default(),
            advertised_host: self.text("node", "advertised_host").unwrap_or_default(),
        };
        let cluster = self.cluster(node.id);
        self.settle_in_sync(&cluster, &mut topic_defaults);
        let config = Config {
            cluster,
            listeners: Listeners {
                mqtt: self.address("mqtt"),
                mqtts: self.address("mqtts"),
                ws: self.address("ws"),
                wss: self.address("wss"),
                quic: self.address("quic"),
                kafka: self.address("kafka"),
                http: self.address("http"),
            },
            allow_anonymous: self.bool("", "allow_anonymous"),
            tls: TlsConfig {
                certfile: self.path("tls", "certfile"),
                keyfile: self.path("tls", "keyfile"),
                cafile: self.path("tls", "cafile"),
                require_certificate: self.bool("tls", "require_certificate"),
                allow_tls12: self.text("tls", "tls_version").is_some_and(|version| version == "tlsv1.2"),
            },
            kafka: self.kafka(),
            users: self.users.iter().map(|(name, (user, _))| (name.clone(), user.clone())).collect(),
            mqtt: self.mqtt(),
            object_store: self.object_store(&node),
            durability: Durability {
                all: self.text("durability", "acks").is_none_or(|acks| acks == "all"),
                fsync: self.bool("durability", "fsync"),
            },
            topics: self.topic_tables(&topic_defaults),
            topic_defaults,
            routes: self.routes.iter().map(|(route, _)| route.clone()).collect(),
            alerts: AlertsConfig { rules: self.paths("alerts", "rules") },
            node,
        };
        let mut problems = Vec::new();
        self.check_listeners(&config, &mut problems);
        self.check_cluster(&config, &mut problems);
        self.check_tls(&config, &mut problems);
        self.check_kafka(&config, &mut problems);
        self.check_object_store(&config, &mut problems);
        self.check_names(&config, &mut problems);
        self.check_topics(&config, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    fn mqtt(&self) -> MqttConfig {
        let number = |name| self.integer("mqtt", name);
        let size = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let short = |name| u16::try_from(number(name)).unwrap_or(u16::MAX);
        MqttConfig {
            max_packet_size: size("max_packet_size"),
            max_connections: size("max_connections"),
            max_inflight_messages: short("max_inflight_messages"),
            max_queued_messages: size("max_queued_messages"),
            max_keepalive: short("max_keepalive"),
            max_session_expiry: u32::try_from(number("max_session_expiry")).unwrap_or(u32::MAX),
            connect_timeout_ms: number("connect_timeout").unsigned_abs(),
            max_topic_alias: short("max_topic_alias"),
            max_sessions: size("max_sessions"),
            max_retained_messages: size("max_retained_messages"),
            max_retained_bytes: size("max_retained_bytes"),
        }
    }

    fn object_store(&self, node: &NodeConfig) -> ObjectStoreConfig {
        let entry = self.entry(OBJECT_STORE, "url");
        let url = match entry.map(|entry| (&entry.value, entry.origin.base())) {
            None => format!("file:{}", node.data_dir.join("lake").display()),
            Some((Value::Text(url), base)) => match url.strip_prefix("file:") {
                Some(path) if !path.starts_with("//") => format!("file:{}", base.join(path).display()),
                _ => url.clone(),
            },
            Some(_) => String::new(),
        };
        let documented = KEYS.iter().filter(|key| key.section == OBJECT_STORE && key.name != "url");
        let mut options = BTreeMap::new();
        for key in documented {
            if let Some(entry) = self.entry(key.section, key.name) {
                options.insert(key.name.to_owned(), option_text(&entry.value));
            }
        }
        for (name, entry) in &self.store_options {
            options.insert(name.clone(), option_text(&entry.value));
        }
        ObjectStoreConfig { url, options }
    }

    fn topic_defaults(&self) -> TopicDefaults {
        let mut defaults = TopicDefaults { num_partitions: 1, config: TopicConfig::default() };
        for key in KEYS.iter().filter(|key| key.section == TOPIC_DEFAULTS) {
            if let Some(value) = self.get(key.section, key.name) {
                topic_config::apply_default(&mut defaults, key.name, &value);
            }
        }
        let _ = topic_config::settle(&mut defaults.config, false);
        defaults
    }

    fn topic_tables(&self, defaults: &TopicDefaults) -> BTreeMap<String, TopicDefaults> {
        let tables = self.topics.iter().map(|(name, configs)| {
            let mut topic = defaults.clone();
            for (config, entry) in configs {
                topic_config::apply_default(&mut topic, config, &entry.value);
            }
            // Of both where both are asked for, `check_topics` tells.
            let _ = topic_config::settle(&mut topic.config, false);
            (name.clone(), topic)
        });
        tables.collect()
    }

    fn check_listeners(&self, config: &Config, problems: &mut Vec<Problem>) {
        let Listeners { mqtt, mqtts, ws, wss, quic, kafka, http } = &config.listeners;
        let websocket = "MQTT over WebSocket is not supported in this release";
        for (name, address) in [("ws", *ws), ("wss", *wss)] {
            if address.is_some() {
                problems.push(Problem {
                    origin: self.origin("listeners", name),
                    what: format!("listeners.{name}: {websocket}"),
                    help: Some(format!("set listeners.{name} = \"off\"")),
                });
            }
        }
        let listeners = [("mqtt", mqtt), ("mqtts", mqtts), ("quic", quic), ("kafka", kafka), ("http", http)];
        for (name, address) in listeners {
            let Some(address) = address else { continue };
            let authenticated = match name {
                "mqtts" | "quic" => config.tls.require_certificate,
                "kafka" => config.kafka.authenticates(),
                _ => false,
            };
            if !address.ip().is_loopback() && !authenticated && !config.allow_anonymous {
                let cure = match name {
                    "mqtts" | "quic" => "set tls.require_certificate = true with tls.cafile, ",
                    "kafka" => "make clients log in with kafka.security.protocol = \"SASL_SSL\", ",
                    _ => "bind it to 127.0.0.1, ",
                };
                problems.push(Problem {
                    origin: self.origin("listeners", name),
                    what: format!("listeners.{name}: {address} is open to the network and nobody has to authenticate"),
                    help: Some(format!("{cure}or accept it with allow_anonymous = true")),
                });
            }
        }
        let taken: Vec<(&str, SocketAddr)> = [("mqtt", mqtt), ("mqtts", mqtts), ("kafka", kafka), ("http", http)]
            .into_iter()
            .filter_map(|(name, address)| address.filter(|a| a.port() != 0).map(|address| (name, address)))
            .collect();
        for (index, (name, address)) in taken.iter().enumerate() {
            if let Some((other, _)) = taken[..index].iter().find(|(_, earlier)| earlier == address) {
                problems.push(Problem {
                    origin: self.origin("listeners", name),
                    what: format!("listeners.{name}: {address} is the address of listeners.{other} already"),
                    help: None,
                });
            }
        }
    }

    fn check_tls(&self, config: &Config, problems: &mut Vec<Problem>) {
        let tls = &config.tls;
        let mut refuse = |name: &str, what: &str, help: &str| {
            let section = if name == "mqtts" { "listeners" } else { "tls" };
            problems.push(Problem {
                origin: self.origin(section, name),
                what: format!("{section}.{name}: {what}"),
                help: Some(help.to_owned()),
            });
        };
        match (&tls.certfile, &tls.keyfile) {
            (Some(_), None) => refuse("certfile", "there is a certificate but no key", "set tls.keyfile"),
            (None, Some(_)) => refuse("keyfile", "there is a key but no certificate", "set tls.certfile"),
            (None, None) if config.listeners.mqtts.is_some() => {
                refuse("mqtts", "TLS needs a certificate", "set tls.certfile and tls.keyfile");
            }
            _ => {}
        }
        if tls.require_certificate && tls.cafile.is_none() {
            refuse("require_certificate", "there are no authorities to check against", "set tls.cafile");
        }
    }

    fn check_object_store(&self, config: &Config, problems: &mut Vec<Problem>) {
        let url = &config.object_store.url;
        let inside = |path: &str| {
            let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            whole(Path::new(path.trim_start_matches("//"))).starts_with(whole(&config.node.data_dir))
        };
        let (what, help) = match url.split_once(':') {
            Some(("file", path)) if !config.cluster.is_alone(config.node.id) && inside(path) => {
                let what =
                    "lies in this node's data directory: what one node offloads all nodes of a cluster must reach";
                (what, "write s3://bucket/prefix, or file:PATH of a folder that all nodes share")
            }
            Some(("file" | "s3", _)) => return,
            Some(("az" | "gs", _)) => ("is not supported in this release", "file: and s3:// are"),
            _ => ("is no object store", "write file:PATH or s3://bucket/prefix"),
        };
        problems.push(Problem {
            origin: self.origin(OBJECT_STORE, "url"),
            what: format!("{OBJECT_STORE}.url: {url} {what}"),
            help: Some(help.to_owned()),
        });
    }

    /// Compacted topics stay local, so nobody may ask for both; and no topic that the node needs may want more nodes than there are.
    fn check_topics(&self, config: &Config, problems: &mut Vec<Problem>) {
        let copies = u32::from(config.cluster.default_replication_factor);
        let with =
            if copies == 1 { "one node only 1 is".to_owned() } else { format!("{copies} copies at most {copies} is") };
        let alone = |place: String, origin: Origin, replicas: u32| Problem {
            origin,
            what: format!("{place}.{IN_SYNC}: {replicas} is not possible: with {with}"),
            help: None,
        };
        let defaults = config.topic_defaults.config.min_insync_replicas;
        if defaults > copies {
            problems.push(alone(TOPIC_DEFAULTS.to_owned(), self.origin(TOPIC_DEFAULTS, IN_SYNC), defaults));
        }
        for (name, configs) in &self.topics {
            let replicas = config.topics.get(name).map_or(1, |topic| topic.config.min_insync_replicas);
            if let Some(entry) = configs.get(IN_SYNC).filter(|_| replicas > copies) {
                problems.push(alone(format!("topics.{name}"), entry.origin.clone(), replicas));
            }
        }
        for (name, configs) in &self.topics {
            let compact = config.topics.get(name).is_some_and(|topic| topic.config.compact);
            let asked = configs.get(topic_config::REMOTE).filter(|entry| entry.value == Value::Bool(true));
            if let Some(entry) = asked.filter(|_| compact) {
                problems.push(Problem {
                    origin: entry.origin.clone(),
                    what: format!("topics.{name}: {}", topic_config::EXCLUSIVE),
                    help: None,
                });
            }
        }
    }

    fn check_names(&self, config: &Config, problems: &mut Vec<Problem>) {
        let host = &config.node.advertised_host;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') || host.ends_with(":9092") {
            problems.push(Problem {
                origin: self.origin("node", "advertised_host"),
                what: format!("node.advertised_host: \"{host}\" is no host name or address"),
                help: Some("write the name alone, without port or scheme".to_owned()),
            });
        }
        if let Err(error) = Router::new(&config.routes) {
            problems.push(Problem {
                origin: self.route_origin(error.index),
                what: format!("routes.{}: {}", error.key, error.what),
                help: None,
            });
        }
        for (route, origin) in &self.routes {
            if is_internal(&route.topic) {
                problems.push(Problem {
                    origin: origin.clone(),
                    what: format!("routes.topic: {} is a topic of Forebay's own", route.topic),
                    help: None,
                });
            }
        }
    }

    pub(super) fn integer(&self, section: &str, name: &str) -> i64 {
        match self.get(section, name) {
            Some(Value::Integer(number)) => number,
            _ => 0,
        }
    }

    fn number(&self, section: &str, name: &str) -> u32 {
        u32::try_from(self.integer(section, name)).unwrap_or(0)
    }

    pub(super) fn bool(&self, section: &str, name: &str) -> bool {
        matches!(self.get(section, name), Some(Value::Bool(true)))
    }

    pub(super) fn text(&self, section: &str, name: &str) -> Option<String> {
        match self.get(section, name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path(&self, section: &str, name: &str) -> Option<PathBuf> {
        match self.get(section, name) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    fn paths(&self, section: &str, name: &str) -> Vec<PathBuf> {
        match self.get(section, name) {
            Some(Value::Paths(paths)) => paths,
            _ => Vec::new(),
        }
    }

    pub(super) fn address(&self, name: &str) -> Option<SocketAddr> {
        match self.get("listeners", name) {
            Some(Value::Address(address)) => address,
            _ => None,
        }
    }

    /// Where route number `index` was written.
    fn route_origin(&self, index: usize) -> Origin {
        self.routes.get(index).map_or(Origin::Default, |(_, origin)| origin.clone())
    }
}

fn option_text(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        _ => String::new(),
    }
}
