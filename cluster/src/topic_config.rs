//! A topic's configs between the log, which has them typed, and the cluster's metadata, which has Kafka's texts.

use std::collections::BTreeMap;

use forebay_log::TopicConfig;

/// Not a config of Kafka: whoever writes the topic keeps it short.
const SELF_COMPACTING: &str = "self.compacting";

/// Every config as text.
pub(crate) fn to_map(config: &TopicConfig) -> BTreeMap<String, String> {
    let named = TopicConfig::NAMES.iter().filter_map(|name| Some(((*name).to_owned(), config.get(name)?)));
    let own = config.self_compacting.then(|| (SELF_COMPACTING.to_owned(), "true".to_owned()));
    named.chain(own).collect()
}

/// What [`to_map`] was made of. What a later release has set and this one does not know is left out.
pub(crate) fn from_map(topic: &str, map: &BTreeMap<String, String>) -> TopicConfig {
    let mut config = TopicConfig::default();
    for (name, value) in map {
        if name == SELF_COMPACTING {
            config.self_compacting = value == "true";
        } else if config.set(name, value).is_none() {
            tracing::warn!(topic, name, value, "a config of the topic is not known to this release");
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_come_back() {
        let mut config = TopicConfig { self_compacting: true, ..TopicConfig::internal() };
        assert!(config.set("min.insync.replicas", "2").is_some());
        for config in [config, TopicConfig::default()] {
            let mut map = to_map(&config);
            map.insert("of.a.later.release".to_owned(), "1".to_owned());
            assert_eq!(from_map("t", &map), config);
        }
    }
}
