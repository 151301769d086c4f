//! Topic configs by their Kafka names: set from text, and listed with values and documentation.

use std::path::Path;

use forebay_log::TopicConfig;
use forebay_log::topic::{CompressionType, LakeFormat};

use super::keys::{self, KEYS, TOPIC_DEFAULTS};
use super::suggest;
use super::types::TopicDefaults;
use super::value::{self, Raw, Value};

/// One config of a topic as DescribeConfigs and the HTTP API show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub doc: &'static str,
}

/// Sets the config `name` (`retention.ms`) from its text; sizes and times may have units.
///
/// # Errors
/// An unknown config (with the one meant), a wrong value, or one that is not supported yet.
pub fn set(config: &mut TopicConfig, name: &str, text: &str) -> Result<(), String> {
    let key = keys::find(TOPIC_DEFAULTS, name).filter(|key| key.name != "num.partitions");
    let Some(key) = key else {
        // Whoever sets one topic's config names it without the section of the file.
        let meant = suggest::unknown_key(TOPIC_DEFAULTS, None, name).replace(&format!("{TOPIC_DEFAULTS}."), "");
        return Err(format!("unknown config {name}: {meant}"));
    };
    let value = value::check(key.kind, &Raw::Untyped(text.to_owned()), Path::new(""));
    let value = value.map_err(|why| format!("{name}: {why}"))?;
    let mut topic = TopicDefaults { num_partitions: 1, config: config.clone() };
    apply(&mut topic, name, &value);
    *config = topic.config;
    Ok(())
}

/// Every config with its value, as Kafka writes them: plain numbers, -1 for no limit.
#[must_use]
pub fn list(config: &TopicConfig) -> Vec<ConfigEntry> {
    let limit_ms = |limit: Option<i64>| limit.unwrap_or(-1).to_string();
    let limit_bytes = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let configs = KEYS.iter().filter(|key| key.section == TOPIC_DEFAULTS);
    configs
        .filter_map(|key| {
            let value = match key.name {
                "segment.bytes" => config.segment_bytes.to_string(),
                "segment.ms" => config.segment_ms.to_string(),
                "retention.ms" => limit_ms(config.retention_ms),
                "retention.bytes" => limit_bytes(config.retention_bytes),
                "local.retention.ms" => limit_ms(config.local_retention_ms),
                "local.retention.bytes" => limit_bytes(config.local_retention_bytes),
                "remote.storage.enable" => config.remote_storage_enable.to_string(),
                "compression.type" => compression_name(config.compression_type).to_owned(),
                "max.message.bytes" => config.max_message_bytes.to_string(),
                "cleanup.policy" => cleanup_policy(config).to_owned(),
                "message.timestamp.type" => "CreateTime".to_owned(),
                "min.insync.replicas" => "1".to_owned(),
                "lake.format" => lake_name(config.lake_format).to_owned(),
                "lake.commit.interval.ms" => config.lake_commit_interval_ms.to_string(),
                _ => return None,
            };
            Some(ConfigEntry { name: key.name, value, doc: key.doc })
        })
        .collect()
}

/// Sets one checked value. The configs that have but one possible value change nothing.
pub(super) fn apply(topic: &mut TopicDefaults, name: &str, value: &Value) {
    let config = &mut topic.config;
    match (name, value) {
        ("num.partitions", Value::Integer(n)) => topic.num_partitions = u32::try_from(*n).unwrap_or(1),
        ("segment.bytes", Value::Integer(n)) => config.segment_bytes = n.unsigned_abs(),
        ("segment.ms", Value::Integer(n)) => config.segment_ms = *n,
        ("retention.ms", Value::Integer(n)) => config.retention_ms = (*n >= 0).then_some(*n),
        ("retention.bytes", Value::Integer(n)) => config.retention_bytes = u64::try_from(*n).ok(),
        ("local.retention.ms", Value::Integer(-2)) => config.local_retention_ms = config.retention_ms,
        ("local.retention.ms", Value::Integer(n)) => config.local_retention_ms = (*n >= 0).then_some(*n),
        ("local.retention.bytes", Value::Integer(-2)) => config.local_retention_bytes = config.retention_bytes,
        ("local.retention.bytes", Value::Integer(n)) => config.local_retention_bytes = u64::try_from(*n).ok(),
        ("remote.storage.enable", Value::Bool(enable)) => config.remote_storage_enable = *enable,
        ("compression.type", Value::Text(name)) => config.compression_type = compression_type(name),
        ("max.message.bytes", Value::Integer(n)) => config.max_message_bytes = usize::try_from(*n).unwrap_or(0),
        ("lake.format", Value::Text(name)) => {
            config.lake_format = if name == "none" { LakeFormat::None } else { LakeFormat::Delta };
        }
        ("lake.commit.interval.ms", Value::Integer(n)) => config.lake_commit_interval_ms = *n,
        _ => {}
    }
}

fn compression_type(name: &str) -> CompressionType {
    match name {
        "none" => CompressionType::None,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "producer" => CompressionType::Producer,
        _ => CompressionType::Zstd,
    }
}

fn compression_name(compression: CompressionType) -> &'static str {
    match compression {
        CompressionType::None => "none",
        CompressionType::Gzip => "gzip",
        CompressionType::Snappy => "snappy",
        CompressionType::Lz4 => "lz4",
        CompressionType::Zstd => "zstd",
        CompressionType::Producer => "producer",
    }
}

fn lake_name(format: LakeFormat) -> &'static str {
    match format {
        LakeFormat::Delta => "delta",
        LakeFormat::None => "none",
    }
}

fn cleanup_policy(config: &TopicConfig) -> &'static str {
    match (config.compact, config.delete) {
        (true, true) => "compact,delete",
        (true, false) => "compact",
        (false, _) => "delete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_can_be_set_again() {
        let mut config = TopicConfig::default();
        set(&mut config, "retention.ms", "-1").unwrap();
        set(&mut config, "local.retention.bytes", "1GiB").unwrap();
        set(&mut config, "compression.type", "lz4").unwrap();
        let mut copy = TopicConfig::default();
        for entry in list(&config) {
            set(&mut copy, entry.name, &entry.value).unwrap();
        }
        assert_eq!(copy, config);
        assert_eq!(config.local_retention_bytes, Some(1 << 30));
    }

    #[test]
    fn more_than_one_replica_is_refused_with_the_reason() {
        let error = set(&mut TopicConfig::default(), "min.insync.replicas", "2").unwrap_err();
        assert!(error.contains("one node"), "{error}");
        assert!(
            set(&mut TopicConfig::default(), "cleanup.policy", "compact").unwrap_err().contains("not supported yet")
        );
        let error = set(&mut TopicConfig::default(), "retention.mss", "1").unwrap_err();
        assert!(error.ends_with("did you mean retention.ms?"), "{error}");
    }
}
