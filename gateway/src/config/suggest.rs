//! What an unknown key was probably meant to be.

use std::collections::BTreeSet;

use super::keys::{KAFKA_ONLY, KEYS, ROUTE_KEYS, TOPIC_DEFAULTS, TOPICS, USERS};

/// What to do about the unknown key `name` in `section` (for `[topics.X]`, with that topic).
#[must_use]
pub(super) fn unknown_key(section: &str, topic: Option<&str>, name: &str) -> String {
    let in_topics = section == TOPIC_DEFAULTS || section == TOPICS;
    if in_topics && KAFKA_ONLY.contains(&name) {
        return format!("{name} is a topic config of Kafka that is not supported yet; leave it out");
    }
    let written = |key_section: &str, key_name: &str| match (key_section, topic) {
        (TOPIC_DEFAULTS, Some(topic)) => format!("{TOPICS}.{topic}.{key_name}"),
        ("", _) => key_name.to_owned(),
        _ => format!("{key_section}.{key_name}"),
    };
    let home = if section == TOPICS { TOPIC_DEFAULTS } else { section };
    let siblings = KEYS.iter().filter(|key| key.section == home);
    if let Some(near) = nearest(name, siblings.map(|key| key.name)) {
        return format!("did you mean {}?", written(home, near));
    }
    if let Some(elsewhere) = KEYS.iter().find(|key| key.name == name) {
        return format!("did you mean {}?", written(elsewhere.section, elsewhere.name));
    }
    let sections: BTreeSet<&str> =
        KEYS.iter().map(|key| key.section).filter(|s| !s.is_empty()).chain([TOPICS, USERS]).collect();
    if !section.is_empty() && !sections.contains(section) {
        return match nearest(section, sections.iter().copied()) {
            Some(near) => format!("there is no section [{section}]; did you mean [{near}]?"),
            None => format!(
                "there is no section [{section}]; the sections are {}",
                sections.into_iter().collect::<Vec<_>>().join(", ")
            ),
        };
    }
    if let Some(near) = nearest(name, KEYS.iter().map(|key| key.name))
        && let Some(key) = KEYS.iter().find(|key| key.name == near)
    {
        return format!("did you mean {}?", written(key.section, key.name));
    }
    "`forebay config docs` lists every key".to_owned()
}

/// What to do about an unknown key of a `[[routes]]` table.
#[must_use]
pub(super) fn unknown_route_key(name: &str) -> String {
    match nearest(name, ROUTE_KEYS.iter().map(|(key, _)| *key)) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            format!("a route has the keys {}", ROUTE_KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The candidate that `name` is a misspelling of, if it is near enough to one.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['.', '-'], "_");
    let name = plain(name);
    let allowed = (name.len() / 3).clamp(1, 3);
    let scored = candidates.filter_map(|candidate| {
        let other = plain(candidate);
        let distance = strsim::damerau_levenshtein(&name, &other);
        let part = name.len() > 3 && other.len() > 3 && (other.contains(&name) || name.contains(&other));
        (distance <= allowed || part).then_some((distance, candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_meant_is_found() {
        for (section, topic, name, meant) in [
            ("listeners", None, "mqqt", "listeners.mqtt"),
            ("topic_defaults", None, "num.partition", "topic_defaults.num.partitions"),
            ("topics", Some("readings"), "partitions", "topics.readings.num.partitions"),
            ("topic_defaults", None, "segment_bytes", "topic_defaults.segment.bytes"),
            ("node", None, "certfile", "tls.certfile"),
            ("", None, "data_dir", "node.data_dir"),
            ("listener", None, "x", "[listeners]"),
            ("", None, "allow_anonimous", "allow_anonymous"),
        ] {
            let help = unknown_key(section, topic, name);
            assert!(help.contains(meant), "{section}.{name}: {help}");
        }
        assert!(unknown_route_key("filtr").contains("filter"));
    }

    #[test]
    fn a_config_of_kafka_that_is_not_honoured_is_said_to_be_so() {
        assert!(unknown_key("topic_defaults", None, "flush.messages").contains("not supported yet"));
    }
}
