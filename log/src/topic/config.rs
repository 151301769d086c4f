//! The configs of a topic: one table of names, how each is read from Kafka's plain text and written as such.

use super::values::{CompressionType, LakeFormat, Ratio, TimestampType};
use crate::limits;

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
    /// `min.cleanable.dirty.ratio`: share of the log that was never compacted at which compaction begins
    pub min_cleanable_dirty_ratio: Ratio,
    /// `min.compaction.lag.ms`: how long a record stays as it is at least
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: after how long a record is compacted at the latest, whatever the dirty ratio
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays after the compaction that met it first
    pub delete_retention_ms: i64,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `min.insync.replicas`: replicas that must hold a record before it is acknowledged to all
    pub min_insync_replicas: u32,
    /// `lake.format`
    pub lake_format: LakeFormat,
    /// `lake.commit.interval.ms`
    pub lake_commit_interval_ms: i64,
    /// Of earlier releases, whose state topics were kept short by their one writer and by nobody else: such a topic is compacted
    /// once this is taken from it. Not a config of Kafka.
    pub self_compacting: bool,
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
            min_cleanable_dirty_ratio: Ratio::percent(50),
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
            timestamp_type: TimestampType::CreateTime,
            min_insync_replicas: 1,
            lake_format: LakeFormat::Delta,
            lake_commit_interval_ms: 60_000,
            self_compacting: false,
        }
    }
}

impl TopicConfig {
    /// The name of every config.
    pub const NAMES: [&'static str; 18] = [
        "segment.bytes",
        "segment.ms",
        "retention.ms",
        "retention.bytes",
        "local.retention.ms",
        "local.retention.bytes",
        "remote.storage.enable",
        "compression.type",
        "max.message.bytes",
        "cleanup.policy",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "max.compaction.lag.ms",
        "delete.retention.ms",
        "message.timestamp.type",
        "min.insync.replicas",
        "lake.format",
        "lake.commit.interval.ms",
    ];

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

    /// Whether closed segments go to the cold tier. What is compacted changes, and the cold tier's objects do not.
    #[must_use]
    pub fn is_tiered(&self) -> bool {
        self.remote_storage_enable && !self.compact
    }

    /// Sets the config `name` from Kafka's text: plain numbers, -1 for no limit. `None` when there is no such config, or it
    /// cannot have that value.
    #[must_use]
    pub fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let number = || value.parse::<i64>().ok();
        let limit_ms = || number().map(|ms| (ms >= 0).then_some(ms));
        let limit_bytes = || number().map(|bytes| u64::try_from(bytes).ok());
        match name {
            "segment.bytes" => self.segment_bytes = value.parse().ok()?,
            "segment.ms" => self.segment_ms = number()?,
            "retention.ms" => self.retention_ms = limit_ms()?,
            "retention.bytes" => self.retention_bytes = limit_bytes()?,
            "local.retention.ms" if value == "-2" => self.local_retention_ms = self.retention_ms,
            "local.retention.ms" => self.local_retention_ms = limit_ms()?,
            "local.retention.bytes" if value == "-2" => self.local_retention_bytes = self.retention_bytes,
            "local.retention.bytes" => self.local_retention_bytes = limit_bytes()?,
            "remote.storage.enable" => self.remote_storage_enable = value.parse().ok()?,
            "compression.type" => self.compression_type = CompressionType::named(value)?,
            "max.message.bytes" => self.max_message_bytes = value.parse().ok()?,
            "cleanup.policy" => (self.compact, self.delete) = cleanup_policy(value)?,
            "min.cleanable.dirty.ratio" => self.min_cleanable_dirty_ratio = Ratio::from_text(value)?,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = number()?,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = number()?,
            "delete.retention.ms" => self.delete_retention_ms = number()?,
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return None,
                }
            }
            "min.insync.replicas" => self.min_insync_replicas = value.parse().ok()?,
            "lake.format" => {
                self.lake_format = match value {
                    "delta" => LakeFormat::Delta,
                    "none" => LakeFormat::None,
                    _ => return None,
                }
            }
            "lake.commit.interval.ms" => self.lake_commit_interval_ms = number()?,
            _ => return None,
        }
        Some(())
    }

    /// The value of the config `name` as [`TopicConfig::set`] reads it; `None` when there is no such config.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let limit_ms = |limit: Option<i64>| limit.unwrap_or(-1).to_string();
        let limit_bytes = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        Some(match name {
            "segment.bytes" => self.segment_bytes.to_string(),
            "segment.ms" => self.segment_ms.to_string(),
            "retention.ms" => limit_ms(self.retention_ms),
            "retention.bytes" => limit_bytes(self.retention_bytes),
            "local.retention.ms" => limit_ms(self.local_retention_ms),
            "local.retention.bytes" => limit_bytes(self.local_retention_bytes),
            "remote.storage.enable" => self.remote_storage_enable.to_string(),
            "compression.type" => self.compression_type.name().to_owned(),
            "max.message.bytes" => self.max_message_bytes.to_string(),
            "cleanup.policy" => match (self.compact, self.delete) {
                (true, true) => "compact,delete".to_owned(),
                (true, false) => "compact".to_owned(),
                (false, _) => "delete".to_owned(),
            },
            "min.cleanable.dirty.ratio" => self.min_cleanable_dirty_ratio.to_string(),
            "min.compaction.lag.ms" => self.min_compaction_lag_ms.to_string(),
            "max.compaction.lag.ms" => self.max_compaction_lag_ms.to_string(),
            "delete.retention.ms" => self.delete_retention_ms.to_string(),
            "message.timestamp.type" => match self.timestamp_type {
                TimestampType::CreateTime => "CreateTime".to_owned(),
                TimestampType::LogAppendTime => "LogAppendTime".to_owned(),
            },
            "min.insync.replicas" => self.min_insync_replicas.to_string(),
            "lake.format" => match self.lake_format {
                LakeFormat::Delta => "delta".to_owned(),
                LakeFormat::None => "none".to_owned(),
            },
            "lake.commit.interval.ms" => self.lake_commit_interval_ms.to_string(),
            _ => return None,
        })
    }
}

/// Whether a `cleanup.policy` compacts and whether it deletes.
fn cleanup_policy(value: &str) -> Option<(bool, bool)> {
    let (mut compact, mut delete) = (false, false);
    for policy in value.split(',').map(str::trim) {
        match policy {
            "compact" => compact = true,
            "delete" => delete = true,
            _ => return None,
        }
    }
    Some((compact, delete))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another value than the default of each config.
    const OTHERS: [&str; 18] = [
        "16384",
        "1",
        "-1",
        "4",
        "0",
        "-1",
        "false",
        "producer",
        "2048",
        "compact,delete",
        "0.01",
        "7",
        "8",
        "9",
        "LogAppendTime",
        "2",
        "none",
        "100",
    ];

    #[test]
    fn every_config_is_set_and_read_back_by_its_name() {
        for (name, value) in TopicConfig::NAMES.iter().zip(OTHERS) {
            let mut config = TopicConfig::default();
            assert_ne!(config.get(name).as_deref(), Some(value), "{name}");
            config.set(name, value).unwrap();
            assert_eq!(config.get(name).as_deref(), Some(value), "{name}");
            assert_ne!(config, TopicConfig::default(), "{name}");
        }
    }

    #[test]
    fn unknown_configs_and_values_change_nothing() {
        let mut config = TopicConfig::default();
        for (name, value) in
            [("retention.sm", "1"), ("retention.ms", "soon"), ("cleanup.policy", "shred"), ("lake.format", "iceberg")]
        {
            assert_eq!(config.set(name, value), None, "{name}={value}");
        }
        assert_eq!(config, TopicConfig::default());
        assert_eq!(config.get("retention.sm"), None);
    }

    #[test]
    fn what_is_compacted_is_not_tiered() {
        let mut config = TopicConfig::default();
        assert!(config.is_tiered());
        config.set("cleanup.policy", "compact").unwrap();
        assert!(!config.is_tiered());
    }
}
