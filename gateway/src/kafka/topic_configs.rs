//! Topic configs as the Kafka protocol shows them: with their type, over the names and values of the configuration.

use forebay_log::TopicConfig;

use crate::config::topic_config;

/// The type codes of DescribeConfigs v3 (Kafka's `ConfigDef.Type`).
pub(crate) const BOOLEAN: i8 = 1;
pub(crate) const STRING: i8 = 2;
pub(crate) const INT: i8 = 3;
pub(crate) const LONG: i8 = 5;
pub(crate) const DOUBLE: i8 = 6;
pub(crate) const LIST: i8 = 7;

/// One config of a topic.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) kind: i8,
    pub(crate) doc: &'static str,
}

/// Every config with its value.
pub(crate) fn list(config: &TopicConfig) -> Vec<Shown> {
    let entries = topic_config::list(config).into_iter();
    entries
        .map(|entry| Shown { name: entry.name, value: entry.value, kind: kind(entry.name), doc: entry.doc })
        .collect()
}

pub(crate) fn kind(name: &str) -> i8 {
    match name {
        "remote.storage.enable" => BOOLEAN,
        "cleanup.policy" => LIST,
        "min.cleanable.dirty.ratio" => DOUBLE,
        "segment.bytes" | "max.message.bytes" | "min.insync.replicas" => INT,
        "compression.type" | "lake.format" | "message.timestamp.type" => STRING,
        _ => LONG,
    }
}
