//! Topic configs by their Kafka names: checked against the table of keys, set from text, listed with documentation.

use std::path::Path;

use forebay_log::TopicConfig;

use super::keys::{self, KEYS, TOPIC_DEFAULTS};
use super::suggest;
use super::types::TopicDefaults;
use super::value::{self, Raw, Value};

pub(super) const REMOTE: &str = "remote.storage.enable";
/// Why a topic cannot be both.
pub(super) const EXCLUSIVE: &str =
    "remote.storage.enable=true cannot go with cleanup.policy=compact: compacted topics are kept locally";

/// One config of a topic as DescribeConfigs and the HTTP API show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub doc: &'static str,
}

/// What is to become of one config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    Set(&'a str, &'a str),
    /// Back to what the node's defaults say.
    Reset(&'a str),
}

/// Makes the changes, all or none.
///
/// # Errors
/// An unknown config (with the one meant), a wrong value, or values that exclude each other.
pub fn change(config: &mut TopicConfig, defaults: &TopicConfig, changes: &[Change<'_>]) -> Result<(), String> {
    let mut next = config.clone();
    for change in changes {
        match *change {
            Change::Set(name, text) => set(&mut next, name, text)?,
            Change::Reset(name) => {
                let value = defaults.get(name).ok_or_else(|| unknown(name))?;
                set(&mut next, name, &value)?;
            }
        }
    }
    let named = changes.iter().any(|change| matches!(change, Change::Set(REMOTE, _)));
    settle(&mut next, named)?;
    *config = next;
    Ok(())
}

/// A topic that is compacted stays on the local disk: the objects of the lake do not change. Unless somebody asked for both,
/// the one that is there by default gives way.
pub(super) fn settle(config: &mut TopicConfig, remote_named: bool) -> Result<(), String> {
    if config.compact && config.remote_storage_enable {
        if remote_named {
            return Err(EXCLUSIVE.to_owned());
        }
        config.remote_storage_enable = false;
    }
    Ok(())
}

/// Sets the config `name` (`retention.ms`) from its text; sizes and times may have units.
fn set(config: &mut TopicConfig, name: &str, text: &str) -> Result<(), String> {
    let key = keys::find(TOPIC_DEFAULTS, name).filter(|key| config.get(key.name).is_some());
    let key = key.ok_or_else(|| unknown(name))?;
    // Whatever the order of a list, and with what spaces.
    let text = if name == "cleanup.policy" { ordered(text) } else { text.to_owned() };
    let value = value::check(key.kind, &Raw::Untyped(text), Path::new(""));
    let value = value.map_err(|why| format!("{name}: {why}"))?;
    apply(config, name, &value);
    Ok(())
}

fn ordered(list: &str) -> String {
    let mut entries: Vec<&str> = list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    entries.sort_unstable();
    entries.dedup();
    entries.join(",")
}

fn unknown(name: &str) -> String {
    // Whoever sets one topic's config names it without the section of the file.
    let meant = suggest::unknown_key(TOPIC_DEFAULTS, None, name).replace(&format!("{TOPIC_DEFAULTS}."), "");
    format!("unknown config {name}: {meant}")
}

/// Every config with its value, as Kafka writes them: plain numbers, -1 for no limit.
#[must_use]
pub fn list(config: &TopicConfig) -> Vec<ConfigEntry> {
    let keys = KEYS.iter().filter(|key| key.section == TOPIC_DEFAULTS);
    keys.filter_map(|key| Some(ConfigEntry { name: key.name, value: config.get(key.name)?, doc: key.doc })).collect()
}

/// Sets one checked value.
pub(super) fn apply(config: &mut TopicConfig, name: &str, value: &Value) {
    let text = match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Path(_) | Value::Paths(_) | Value::List(_) | Value::Address(_) => return,
    };
    let set = config.set(name, &text);
    debug_assert!(set.is_some(), "{name}={text}: the table of keys allows what the log does not take");
}

/// The same for what a config file says of topics, which includes their number of partitions.
pub(super) fn apply_default(topic: &mut TopicDefaults, name: &str, value: &Value) {
    match (name, value) {
        ("num.partitions", Value::Integer(n)) => topic.num_partitions = u32::try_from(*n).unwrap_or(1),
        ("default.replication.factor", _) => {}
        _ => apply(&mut topic.config, name, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[Change<'_>]) -> Result<TopicConfig, String> {
        let mut config = TopicConfig::default();
        change(&mut config, &TopicConfig::default(), changes).map(|()| config)
    }

    #[test]
    fn every_config_of_the_log_is_a_key_and_what_is_listed_can_be_set_again() {
        let names: Vec<&str> = list(&TopicConfig::default()).iter().map(|entry| entry.name).collect();
        assert!(TopicConfig::NAMES.iter().all(|name| names.contains(name)), "{names:?}");
        let config = changed(&[
            Change::Set("retention.ms", "-1"),
            Change::Set("local.retention.bytes", "1GiB"),
            Change::Set("compression.type", "uncompressed"),
            Change::Set("cleanup.policy", "delete, compact"),
            Change::Set("min.cleanable.dirty.ratio", "0.01"),
        ])
        .unwrap();
        let listed = list(&config);
        let again: Vec<Change<'_>> = listed.iter().map(|entry| Change::Set(entry.name, &entry.value)).collect();
        assert_eq!(changed(&again).unwrap(), config);
        assert_eq!(config.local_retention_bytes, Some(1 << 30));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_and_change_nothing() {
        for (name, value) in [
            ("retention.sm", "1"),
            ("retention.ms", "soon"),
            ("min.insync.replicas", "0"),
            ("cleanup.policy", "shred"),
            ("num.partitions", "3"),
            ("min.cleanable.dirty.ratio", "1.5"),
        ] {
            let mut config = TopicConfig::default();
            let changes = [Change::Set("segment.ms", "5"), Change::Set(name, value)];
            let refused = change(&mut config, &TopicConfig::default(), &changes);
            assert!(refused.is_err_and(|why| why.contains(name)), "{name}={value}");
            assert_eq!(config, TopicConfig::default(), "{name}={value}");
        }
        let error = changed(&[Change::Set("retention.mss", "1")]).unwrap_err();
        assert!(error.ends_with("did you mean retention.ms?"), "{error}");
    }

    #[test]
    fn a_compacted_topic_is_not_offloaded_and_asking_for_both_is_refused() {
        let config = changed(&[Change::Set("cleanup.policy", "compact")]).unwrap();
        assert_eq!((config.compact, config.remote_storage_enable), (true, false));
        let both = [Change::Set(REMOTE, "true"), Change::Set("cleanup.policy", "compact")];
        assert!(changed(&both).unwrap_err().contains(REMOTE));
    }

    #[test]
    fn a_config_goes_back_to_what_the_node_says() {
        let defaults = TopicConfig { retention_ms: Some(77), ..TopicConfig::default() };
        let mut config = TopicConfig::default();
        change(&mut config, &defaults, &[Change::Reset("retention.ms")]).unwrap();
        assert_eq!(config.retention_ms, Some(77));
        assert!(change(&mut config, &defaults, &[Change::Reset("retention.sm")]).is_err());
    }
}
