//! Every key of the configuration in one table: parsing, `config docs`, defaults and suggestions all come from it.

use forebay_log::limits;

use super::key::{Key, Kind, TimeUnit};

const NO_LIMIT: (i64, &str) = (-1, "no limit");
const DAY_MS: i64 = 86_400_000;
/// The longest time any key may hold: a hundred years.
const LONGEST_MS: i64 = 36_525 * DAY_MS;
/// The largest size any key may hold, bytes.
const LARGEST: i64 = 1 << 50;

const fn key(section: &'static str, name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { section, name, kind, default, doc }
}

const fn number(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const fn size(min: i64, max: i64) -> Kind {
    Kind::Size { min, max, special: &[] }
}

const fn millis(min: i64) -> Kind {
    Kind::Time { unit: TimeUnit::Milliseconds, min, max: LONGEST_MS, special: &[] }
}

const fn seconds(min: i64, max: i64) -> Kind {
    Kind::Time { unit: TimeUnit::Seconds, min, max, special: &[] }
}

/// The section whose keys are topic configs for all topics; `[topics.NAME]` takes the same keys for one.
pub(super) const TOPIC_DEFAULTS: &str = "topic_defaults";
/// The section of `[topics.NAME]` tables.
pub(super) const TOPICS: &str = "topics";
/// The section whose further keys `object_store` names.
pub(super) const OBJECT_STORE: &str = "object_store";
/// The section whose keys are users.
pub(super) const USERS: &str = "users";

/// All keys, in the order in which they are documented. One row a key, so kept from the formatter.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("", "allow_anonymous", Kind::Bool, "false",
        "accept clients that do not authenticate on addresses other than loopback; may also stand in [listeners]"),
    key("node", "id", number(0, 0x7fff_ffff), "1", "this node's number, its broker id for Kafka clients"),
    key("node", "data_dir", Kind::Path, "forebay-data", "where log, state and certificates are kept"),
    key("node", "advertised_host", Kind::Text, "127.0.0.1", "the name or address that Kafka clients are told to connect to"),
    key("node", "rack", Kind::Text, "", "rack or site of this node: replicas go to different ones"),
    key("listeners", "mqtt", Kind::Address, "127.0.0.1:1883", "MQTT 3.1.1 and 5.0"),
    key("listeners", "mqtts", Kind::Address, "off", "MQTT over TLS; needs tls.certfile and tls.keyfile (8883 by custom)"),
    key("listeners", "ws", Kind::Address, "off", "MQTT over WebSocket: not supported in this release"),
    key("listeners", "wss", Kind::Address, "off", "MQTT over WebSocket and TLS: not supported in this release"),
    key("listeners", "quic", Kind::Address, "127.0.0.1:14567", "MQTT over QUIC (UDP), ALPN mqtt"),
    key("listeners", "kafka", Kind::Address, "127.0.0.1:9092", "the Kafka protocol"),
    key("listeners", "cluster", Kind::Address, "off", "node to node; with cluster.peers the address that it has there (9192 by custom)"),
    key("listeners", "http", Kind::Address, "127.0.0.1:8080", "console, JSON API, metrics, health"),
    key("tls", "certfile", Kind::Path, "", "PEM certificate chain of mqtts, quic and kafka; quic makes its own if there is none"),
    key("tls", "keyfile", Kind::Path, "", "PEM private key of certfile"),
    key("tls", "cafile", Kind::Path, "", "PEM authorities whose client certificates are accepted"),
    key("tls", "require_certificate", Kind::Bool, "false", "clients of mqtts and quic must show a certificate of cafile"),
    key("tls", "tls_version", Kind::Choice(&["tlsv1.3", "tlsv1.2"]), "tlsv1.3", "the oldest TLS version accepted"),
    key("cluster", "peers", Kind::List, "",
        "the first quorum of controllers, the same on each of them and on every node that joins: [\"1@10.0.0.1:9192\", ...]"),
    key("cluster", "certfile", Kind::Path, "", "PEM certificate chain that this node shows to others; with it links are mutual TLS"),
    key("cluster", "keyfile", Kind::Path, "", "PEM private key of cluster.certfile"),
    key("cluster", "cafile", Kind::Path, "", "PEM authorities of the nodes' certificates"),
    key("cluster", "replica.lag.time.max.ms", millis(100), "10s", "how long a follower may be behind and stay in sync"),
    key("cluster", "catch_up_rate", Kind::Size { min: 0, max: LARGEST, special: &[] }, "0",
        "bytes a second that this node sends to followers that are not in sync; 0 is no limit"),
    key("kafka", "security.protocol", Kind::Choice(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), "PLAINTEXT",
        "what listeners.kafka speaks: SSL needs tls.certfile, SASL makes clients log in"),
    key("kafka", "sasl.enabled.mechanisms", Kind::Choices(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
        "SCRAM-SHA-256,SCRAM-SHA-512", "how clients may log in; PLAIN sends the password as it is, so use it with SASL_SSL"),
    key("kafka", "ssl.client.auth", Kind::Choice(&["none", "requested", "required"]), "none",
        "whether clients show a certificate of tls.cafile; with SSL its subject is their principal"),
    key("kafka", "authorizer.enable", Kind::Bool, "false",
        "ask ACLs (kafka-acls) before every request; without an ACL nothing is allowed but to super.users"),
    key("kafka", "super.users", Kind::Text, "", "principals that may do everything: \"User:admin;User:CN=ops,O=Utility\""),
    key("kafka", "auto.create.topics.enable", Kind::Bool, "true", "make topics that Kafka clients ask for, with topic_defaults"),
    key("kafka", "group.min.session.timeout.ms", millis(1), "6s", "shortest session that a member of a group may ask for"),
    key("kafka", "group.max.session.timeout.ms", millis(1), "30m", "longest such session"),
    key("kafka", "group.initial.rebalance.delay.ms", millis(0), "300ms",
        "how long the first rebalance of a group waits for further members"),
    key("kafka", "group.max.size", number(1, 100_000), "10000", "members of one group"),
    key("kafka", "group.consumer.session.timeout.ms", millis(1), "45s",
        "how long a member of the consumer protocol may be silent (KIP-848)"),
    key("kafka", "group.consumer.heartbeat.interval.ms", millis(1), "5s", "how often such a member is to be heard of"),
    key("kafka", "allow.everyone.if.no.acl.found", Kind::Bool, "false", "allow what no ACL is about"),
    key("mqtt", "max_packet_size", size(1024, 256 << 20), "1MiB", "largest packet accepted from a client"),
    key("mqtt", "max_connections", number(1, 10_000_000), "100000", "MQTT connections, over all listeners"),
    key("mqtt", "max_inflight_messages", number(1, 65_535), "1024",
        "QoS 1 and 2 publishes one client may have unacknowledged (the v5 Receive Maximum)"),
    key("mqtt", "max_queued_messages", number(1, 1_000_000), "1000",
        "messages to one subscriber that may wait in memory for its socket"),
    key("mqtt", "max_keepalive", seconds(1, 65_535), "65535", "longest keep-alive; a v5 client is told when its own is longer"),
    key("mqtt", "max_session_expiry", seconds(0, 0xffff_ffff), "7d", "longest that a session outlives its connection"),
    key("mqtt", "connect_timeout", millis(100), "10s", "time in which a new connection must send CONNECT"),
    key("mqtt", "max_topic_alias", number(0, 65_535), "16", "topic aliases one v5 client may use"),
    key("mqtt", "max_sessions", number(1, 100_000_000), "200000",
        "sessions, connected or kept for clients that are away; beyond it no new one is kept"),
    key("mqtt", "max_retained_messages", number(0, 100_000_000), "100000", "retained messages kept, over all topics"),
    key("mqtt", "max_retained_bytes", size(0, LARGEST), "256MiB", "memory that retained messages may take, over all topics"),
    key(OBJECT_STORE, "url", Kind::Text, "file:forebay-data/lake",
        "where the lake is: file:PATH or s3://bucket/prefix; the default lies in node.data_dir"),
    key(OBJECT_STORE, "endpoint", Kind::Text, "", "address of an S3-compatible store; default: AWS"),
    key(OBJECT_STORE, "region", Kind::Text, "", "S3 region"),
    key(OBJECT_STORE, "access_key_id", Kind::Secret, "", "S3 access key"),
    key(OBJECT_STORE, "secret_access_key", Kind::Secret, "", "S3 secret key"),
    key(OBJECT_STORE, "session_token", Kind::Secret, "", "S3 session token"),
    key(OBJECT_STORE, "allow_http", Kind::Bool, "", "speak to the endpoint without TLS"),
    key(OBJECT_STORE, "virtual_hosted_style_request", Kind::Bool, "", "put the bucket into the host name"),
    key("durability", "acks", Kind::Choice(&["all", "leader"]), "all",
        "what a device's PUBACK waits for: every in-sync replica, or the leader alone"),
    key("durability", "fsync", Kind::Bool, "true", "group commit to disk before the ack; false leaves it to the page cache"),
    key(TOPIC_DEFAULTS, "num.partitions", number(1, limits::MAX_PARTITIONS_PER_TOPIC as i64), "4", "partitions of a new topic"),
    key(TOPIC_DEFAULTS, "segment.bytes", size(16 << 10, 2 << 30), "64MiB", "size at which a segment is closed"),
    key(TOPIC_DEFAULTS, "segment.ms", millis(1), "10m", "age at which a segment is closed"),
    key(TOPIC_DEFAULTS, "retention.ms",
        Kind::Time { unit: TimeUnit::Milliseconds, min: 0, max: LONGEST_MS, special: &[NO_LIMIT] }, "7d",
        "how long the whole log is kept, cold tier included"),
    key(TOPIC_DEFAULTS, "retention.bytes", Kind::Size { min: 0, max: LARGEST, special: &[NO_LIMIT] }, "-1",
        "how much of each partition is kept, cold tier included"),
    key(TOPIC_DEFAULTS, "local.retention.ms",
        Kind::Time { unit: TimeUnit::Milliseconds, min: 0, max: LONGEST_MS, special: &[NO_LIMIT, (-2, "as retention.ms")] },
        "1d", "how long the local copy is kept, once the segment is in the lake"),
    key(TOPIC_DEFAULTS, "local.retention.bytes",
        Kind::Size { min: 0, max: LARGEST, special: &[NO_LIMIT, (-2, "as retention.bytes")] }, "10GiB",
        "how much of each partition is kept locally, once it is in the lake"),
    key(TOPIC_DEFAULTS, "remote.storage.enable", Kind::Bool, "true", "offload closed segments to the lake"),
    key(TOPIC_DEFAULTS, "compression.type",
        Kind::Choice(&["none", "uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"]), "zstd",
        "what gathered batches are compressed with; those of Kafka producers only where a topic sets its own"),
    key(TOPIC_DEFAULTS, "max.message.bytes", size(1024, limits::MAX_BATCH_BYTES as i64), "1048588", "largest record batch, as stored"),
    key(TOPIC_DEFAULTS, "cleanup.policy", Kind::Choice(&["delete", "compact", "compact,delete"]), "delete",
        "what happens to old records; compact keeps each key's last value, and the topic out of the lake"),
    key(TOPIC_DEFAULTS, "min.cleanable.dirty.ratio", Kind::Ratio, "0.5",
        "share of a log not compacted yet at which compaction begins"),
    key(TOPIC_DEFAULTS, "min.compaction.lag.ms", millis(0), "0", "how long a record is not compacted"),
    key(TOPIC_DEFAULTS, "max.compaction.lag.ms", Kind::Time { unit: TimeUnit::Milliseconds, min: 1, max: LONGEST_MS, special: &[(i64::MAX, "no limit")] },
        "9223372036854775807", "after how long a record is compacted at the latest"),
    key(TOPIC_DEFAULTS, "delete.retention.ms", millis(0), "1d", "how long a tombstone is kept once it was compacted"),
    key(TOPIC_DEFAULTS, "message.timestamp.type", Kind::Choice(&["CreateTime", "LogAppendTime"]), "CreateTime",
        "whose clock a record's timestamp is: the producer's, or this node's when it was appended"),
    key(TOPIC_DEFAULTS, "default.replication.factor", number(1, 16), "1", "copies of each partition; 3 where cluster.peers are three or more"),
    key(TOPIC_DEFAULTS, "min.insync.replicas", number(1, 1000), "1",
        "replicas that must hold a record before its ack; 2 where three copies are the default"),
    key(TOPIC_DEFAULTS, "lake.format", Kind::Choice(&["delta", "none"]), "delta", "table format of the cold tier"),
    key(TOPIC_DEFAULTS, "lake.commit.interval.ms", millis(100), "60s", "time between two commits of the table"),
    key("", "routes", Kind::Routes, "", "MQTT topic to log topic, [[routes]]; the first match wins"),
    key("alerts", "rules", Kind::Paths, "",
        "alert rule files; in a cluster those of the node that was reloaded last, or whose files have changed at its start, are all nodes' rules"),
];

/// The keys of one `[[routes]]` table: name and documentation.
pub(super) const ROUTE_KEYS: &[(&str, &str)] = &[
    ("filter", "MQTT topic filter; {1}, {2} are the values of its wildcards"),
    ("topic", "log topic"),
    ("key", "record key, a template such as \"{1}\"; default: the client id"),
    ("timestamp", "JSON pointer to the reading's own time, such as \"/ts\"; default: arrival"),
];

/// Kafka's topic configs that exist there but are not honoured here yet.
pub(super) const KAFKA_ONLY: &[&str] = &[
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "preallocate",
    "remote.copy.disable",
    "remote.log.delete.on.disable",
    "segment.index.bytes",
    "segment.jitter.ms",
    "unclean.leader.election.enable",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
];

/// The key that stands at `section` and `name`.
#[must_use]
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}
