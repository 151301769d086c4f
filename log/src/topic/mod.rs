//! A topic's name and its configs, with Kafka's names, meanings and units.

mod config;
mod values;

pub use config::TopicConfig;
pub use values::{CompressionType, LakeFormat, Ratio, TimestampType};

use crate::limits;

/// Topics that hold the program's own state, and the one of Kafka's that is still to come. Other names that begin with `_` are
/// users' (`_schemas` is a schema registry's).
const INTERNAL: [&str; 9] = [
    "__consumer_offsets",
    "__transaction_state",
    "_alert_state",
    "_alerts",
    "_client_quotas",
    "_lake_manifest",
    "_mqtt_retained",
    "_mqtt_sessions",
    "_security",
];

/// Whether the topic holds the program's own state: clients read it but do not write, make, alter or delete it.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Checks a topic name by Kafka's rules: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
///
/// # Errors
/// The reason, for a person.
pub fn check_topic_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a topic name cannot be empty");
    }
    if name == "." || name == ".." {
        return Err("a topic name cannot be \".\" or \"..\"");
    }
    if name.len() > limits::MAX_TOPIC_NAME {
        return Err("a topic name is at most 249 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err("a topic name holds only letters, digits, '.', '_' and '-'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        assert!(check_topic_name("readings.v1_a-b").is_ok());
        for bad in ["", ".", "..", "a/b", "ä", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
    }
}
