//! Topic configs as the Kafka protocol shows and sets them, over the names and values of the configuration.

use forebay_log::TopicConfig;

use crate::config::topic_config;

/// The type codes of DescribeConfigs v3 (Kafka's `ConfigDef.Type`).
pub(crate) const BOOLEAN: i8 = 1;
pub(crate) const STRING: i8 = 2;
pub(crate) const INT: i8 = 3;
pub(crate) const LONG: i8 = 5;
pub(crate) const LIST: i8 = 7;

const COMPRESSION: &str = "compression.type";
/// The codec `none` is called so by the command line, and `uncompressed` among topic configs.
const UNCOMPRESSED: &str = "uncompressed";

/// One config of a topic.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) kind: i8,
    pub(crate) doc: &'static str,
}

/// Every config with its value.
pub(crate) fn list(config: &TopicConfig) -> Vec<Shown> {
    let entries = topic_config::list(config).into_iter().map(|entry| {
        let uncompressed = entry.name == COMPRESSION && entry.value == "none";
        let value = if uncompressed { UNCOMPRESSED.to_owned() } else { entry.value };
        Shown { name: entry.name, value, kind: kind(entry.name), doc: entry.doc }
    });
    entries.collect()
}

/// The value of one config.
pub(crate) fn get(config: &TopicConfig, name: &str) -> Option<Shown> {
    list(config).into_iter().find(|shown| shown.name == name)
}

/// Changes one config of a topic.
///
/// # Errors
/// The reason, for a person, when the key is unknown or the value does not fit.
pub(crate) fn set(config: &mut TopicConfig, name: &str, value: &str) -> Result<(), String> {
    let value = if name == COMPRESSION && value == UNCOMPRESSED { "none" } else { value };
    topic_config::set(config, name, value)
}

/// Takes one config back to what the node's defaults say.
pub(crate) fn reset(config: &mut TopicConfig, defaults: &TopicConfig, name: &str) -> Result<(), String> {
    let shown = get(defaults, name).ok_or_else(|| format!("unknown config {name}"))?;
    set(config, name, &shown.value)
}

fn kind(name: &str) -> i8 {
    match name {
        "remote.storage.enable" => BOOLEAN,
        "cleanup.policy" => LIST,
        "segment.bytes" | "max.message.bytes" | "min.insync.replicas" => INT,
        COMPRESSION | "lake.format" | "message.timestamp.type" => STRING,
        _ => LONG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_that_is_shown_can_be_set_again() {
        let mut config = TopicConfig::default();
        set(&mut config, COMPRESSION, UNCOMPRESSED).unwrap();
        set(&mut config, "retention.ms", "-1").unwrap();
        let mut again = TopicConfig::default();
        for shown in list(&config) {
            set(&mut again, shown.name, &shown.value).unwrap();
        }
        assert_eq!(again, config);
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_and_change_nothing() {
        let mut config = TopicConfig::default();
        for (name, value) in [("retention.sm", "1"), ("retention.ms", "soon"), ("min.insync.replicas", "2")] {
            assert!(set(&mut config, name, value).is_err_and(|why| why.contains(name)), "{name}={value}");
        }
        assert_eq!(config, TopicConfig::default());
    }
}
