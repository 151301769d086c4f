//! Topic names and topic filters: what is valid, and which filter matches which topic (MQTT 5.0 and 3.1.1 section 4.7).

/// Most levels of a name or filter (mosquitto's limit): bounds the depth of every structure keyed by level.
pub const MAX_LEVELS: usize = 200;

/// Most bytes of a name or filter [MQTT-4.7.3-3].
const MAX_BYTES: usize = 65_535;

/// Whether `topic` may be published to: not empty, no wildcards, no U+0000 [MQTT-4.7.3-1, 3.3.2-2].
pub fn valid_topic(topic: &str) -> bool {
    valid_shape(topic) && !topic.bytes().any(|b| b == b'+' || b == b'#')
}

/// Whether `filter` may be subscribed to: wildcards fill whole levels, `#` stands last [MQTT-4.7.1-1, 4.7.1-2]; a shared
/// subscription names its group and a filter [MQTT-4.8.2-1, 4.8.2-2].
pub fn valid_filter(filter: &str) -> bool {
    if let Some(shared) = filter.strip_prefix("$share/") {
        return match shared.split_once('/') {
            Some((group, rest)) => !group.is_empty() && !group.contains(['+', '#']) && valid_plain_filter(rest),
            None => false,
        };
    }
    valid_plain_filter(filter)
}

/// Whether `filter` asks for a shared subscription (section 4.8.2).
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

fn valid_plain_filter(filter: &str) -> bool {
    if !valid_shape(filter) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let good = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            level => !level.contains(['+', '#']),
        };
        if !good {
            return false;
        }
    }
    true
}

fn valid_shape(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_BYTES && !text.contains('\0') && levels(text) <= MAX_LEVELS
}

fn levels(text: &str) -> usize {
    1 + text.bytes().filter(|b| *b == b'/').count()
}

/// Whether a valid `filter` (without `$share/`) matches a valid `topic`. A wildcard in the first level does not match topics
/// that begin with `$` [MQTT-4.7.2-1]; `a/#` matches `a` itself (section 4.7.1.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/x"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("+/zähler/#", "straße/zähler/1"),
        ] {
            assert!(matches(filter, topic), "{filter} should match {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("a", "A"),
        ] {
            assert!(!matches(filter, topic), "{filter} should not match {topic}");
        }
    }

    #[test]
    fn filters_with_misplaced_wildcards_are_refused() {
        for good in ["#", "+", "/", "a/+/b/#", "+/+", "$share/g/a/+", "/#", " "] {
            assert!(valid_filter(good), "{good:?}");
        }
        for bad in ["", "a#", "a/#/b", "a+/b", "+a", "##", "a\0", "$share/g", "$share//a", "$share/g+/a", "$share/g/"] {
            assert!(!valid_filter(bad), "{bad:?}");
        }
        assert!(!valid_filter(&"a/".repeat(MAX_LEVELS)));
        assert!(valid_filter(&"/".repeat(MAX_LEVELS - 1)));
    }

    #[test]
    fn topic_names_with_wildcards_or_nul_are_refused() {
        assert!(valid_topic("meters/ü/readings"));
        for bad in ["", "a/+", "#", "a\0b"] {
            assert!(!valid_topic(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_topic_matches_itself_and_its_wildcarded_forms(levels in prop::collection::vec("[a-zé日 ]{0,4}", 1..6), at in 0usize..6) {
            let topic = levels.join("/");
            prop_assume!(!topic.is_empty());
            prop_assert!(matches(&topic, &topic));
            let at = at % levels.len();
            let mut plus = levels.clone();
            plus[at] = "+".to_owned();
            prop_assert!(matches(&plus.join("/"), &topic));
            let mut hash = levels[..at].to_vec();
            hash.push("#".to_owned());
            prop_assert!(matches(&hash.join("/"), &topic));
        }

        #[test]
        fn any_text_is_judged_without_panic(filter in "\\PC{0,20}", topic in "\\PC{0,20}") {
            let _ = (valid_filter(&filter), valid_topic(&topic), matches(&filter, &topic));
        }
    }
}
