//! A topic's name and its configs, with Kafka's names, meanings and units.

use crate::limits;

/// Kafka's `compression.type`: what gathered batches are compressed with; `Producer` keeps what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
    Producer,
}

/// `lake.format`: the table that the cold tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeFormat {
    Delta,
    None,
}

/// The configs of one topic. `None` in a retention means no limit (Kafka's -1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `retention.ms` of the whole log, cold tier included
    pub retention_ms: Option<i64>,
    /// `retention.bytes` per partition
    pub retention_bytes: Option<u64>,
    /// `local.retention.ms`: of the local copy, once the segment is in the lake
    pub local_retention_ms: Option<i64>,
    /// `local.retention.bytes`
    pub local_retention_bytes: Option<u64>,
    /// `remote.storage.enable`
    pub remote_storage_enable: bool,
    /// `compression.type`
    pub compression_type: CompressionType,
    /// `max.message.bytes`
    pub max_message_bytes: usize,
    /// `cleanup.policy` contains `compact`
    pub compact: bool,
    /// `cleanup.policy` contains `delete`
    pub delete: bool,
    /// `lake.format`
    pub lake_format: LakeFormat,
    /// `lake.commit.interval.ms`
    pub lake_commit_interval_ms: i64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            segment_bytes: 64 << 20,
            segment_ms: 600_000,
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
            local_retention_ms: Some(86_400_000),
            local_retention_bytes: Some(10 << 30),
            remote_storage_enable: true,
            compression_type: CompressionType::Zstd,
            max_message_bytes: limits::MAX_MESSAGE_BYTES,
            compact: false,
            delete: true,
            lake_format: LakeFormat::Delta,
            lake_commit_interval_ms: 60_000,
        }
    }
}

impl TopicConfig {
    /// The configs of a topic that holds the program's own state: small, local, kept whole.
    #[must_use]
    pub fn internal() -> Self {
        TopicConfig {
            segment_bytes: 4 << 20,
            retention_ms: None,
            remote_storage_enable: false,
            compact: true,
            delete: false,
            lake_format: LakeFormat::None,
            // What changes together is one batch, whatever its size.
            max_message_bytes: limits::MAX_BATCH_BYTES,
            ..TopicConfig::default()
        }
    }
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
