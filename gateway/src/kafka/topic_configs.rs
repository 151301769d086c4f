//! Topic configs by Kafka's names: what each key says of a topic, and how a value changes it.

use forebay_log::TopicConfig;
use forebay_log::limits::MAX_BATCH_BYTES;
use forebay_log::topic::{CompressionType, LakeFormat};

/// The type codes of DescribeConfigs v3 (Kafka's `ConfigDef.Type`).
pub(crate) const BOOLEAN: i8 = 1;
pub(crate) const STRING: i8 = 2;
pub(crate) const INT: i8 = 3;
pub(crate) const LONG: i8 = 5;
pub(crate) const LIST: i8 = 7;

/// One topic config.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: i8,
    pub(crate) doc: &'static str,
    pub(crate) get: fn(&TopicConfig) -> String,
    set: fn(&mut TopicConfig, &str) -> Result<(), String>,
}

/// Configs of Kafka that have one meaning here: shown, and accepted when they ask for what is so anyway.
pub(crate) const FIXED: [(&str, &str, i8); 3] = [
    ("message.timestamp.type", "CreateTime", STRING),
    ("min.insync.replicas", "1", INT),
    ("preallocate", "false", BOOLEAN),
];

/// Every config that can be set.
pub(crate) static KEYS: [Key; 12] = [
    Key {
        name: "cleanup.policy",
        kind: LIST,
        doc: "What becomes of old records: delete, compact or both.",
        get: |c| match (c.compact, c.delete) {
            (true, true) => "compact,delete".into(),
            (true, false) => "compact".into(),
            (false, _) => "delete".into(),
        },
        set: |c, value| {
            let (mut compact, mut delete) = (false, false);
            for policy in value.split(',').map(str::trim) {
                match policy {
                    "compact" => compact = true,
                    "delete" => delete = true,
                    other => return Err(format!("{other:?} is neither delete nor compact")),
                }
            }
            (c.compact, c.delete) = (compact, delete);
            Ok(())
        },
    },
    Key {
        name: "compression.type",
        kind: STRING,
        doc: "Codec of batches gathered here; batches of Kafka producers are kept as they came.",
        get: |c| {
            match c.compression_type {
                CompressionType::None => "uncompressed",
                CompressionType::Gzip => "gzip",
                CompressionType::Snappy => "snappy",
                CompressionType::Lz4 => "lz4",
                CompressionType::Zstd => "zstd",
                CompressionType::Producer => "producer",
            }
            .into()
        },
        set: |c, value| {
            c.compression_type = match value {
                "uncompressed" | "none" => CompressionType::None,
                "gzip" => CompressionType::Gzip,
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4,
                "zstd" => CompressionType::Zstd,
                "producer" => CompressionType::Producer,
                other => {
                    return Err(format!("{other:?} is not one of uncompressed, gzip, snappy, lz4, zstd, producer"));
                }
            };
            Ok(())
        },
    },
    Key {
        name: "lake.commit.interval.ms",
        kind: LONG,
        doc: "Longest time between two commits of the lake table while there are new records, in milliseconds.",
        get: |c| c.lake_commit_interval_ms.to_string(),
        set: |c, value| at_least(value, 1).map(|n| c.lake_commit_interval_ms = n),
    },
    Key {
        name: "lake.format",
        kind: STRING,
        doc: "Table format of the cold tier: delta or none.",
        get: |c| match c.lake_format {
            LakeFormat::Delta => "delta".into(),
            LakeFormat::None => "none".into(),
        },
        set: |c, value| {
            c.lake_format = match value {
                "delta" => LakeFormat::Delta,
                "none" => LakeFormat::None,
                other => return Err(format!("{other:?} is neither delta nor none")),
            };
            Ok(())
        },
    },
    Key {
        name: "local.retention.bytes",
        kind: LONG,
        doc: "Bytes of each partition kept on the local disk once they are in the lake; -1 and -2 keep all.",
        get: |c| or_minus_one(c.local_retention_bytes),
        set: |c, value| limit(value, -2).map(|n| c.local_retention_bytes = n.map(i64::unsigned_abs)),
    },
    Key {
        name: "local.retention.ms",
        kind: LONG,
        doc: "Time for which records stay on the local disk once they are in the lake; -1 and -2 keep all.",
        get: |c| or_minus_one(c.local_retention_ms),
        set: |c, value| limit(value, -2).map(|n| c.local_retention_ms = n),
    },
    Key {
        name: "max.message.bytes",
        kind: INT,
        doc: "Largest record batch, as it is stored.",
        get: |c| c.max_message_bytes.to_string(),
        set: |c, value| {
            let bytes = usize::try_from(at_least(value, 0)?).unwrap_or(usize::MAX);
            if bytes > MAX_BATCH_BYTES {
                return Err(format!("{value} is more than {MAX_BATCH_BYTES}"));
            }
            c.max_message_bytes = bytes;
            Ok(())
        },
    },
    Key {
        name: "remote.storage.enable",
        kind: BOOLEAN,
        doc: "Whether closed segments go to the lake.",
        get: |c| c.remote_storage_enable.to_string(),
        set: |c, value| {
            c.remote_storage_enable = value.parse().map_err(|_| format!("{value:?} is neither true nor false"))?;
            Ok(())
        },
    },
    Key {
        name: "retention.bytes",
        kind: LONG,
        doc: "Bytes of each partition after which the oldest segments go; -1 is no limit.",
        get: |c| or_minus_one(c.retention_bytes),
        set: |c, value| limit(value, -1).map(|n| c.retention_bytes = n.map(i64::unsigned_abs)),
    },
    Key {
        name: "retention.ms",
        kind: LONG,
        doc: "Time for which records are kept, cold tier included; -1 is no limit.",
        get: |c| or_minus_one(c.retention_ms),
        set: |c, value| limit(value, -1).map(|n| c.retention_ms = n),
    },
    Key {
        name: "segment.bytes",
        kind: INT,
        doc: "Size at which a segment is closed.",
        get: |c| c.segment_bytes.to_string(),
        set: |c, value| at_least(value, 1024).map(|n| c.segment_bytes = n.unsigned_abs()),
    },
    Key {
        name: "segment.ms",
        kind: LONG,
        doc: "Age at which a segment is closed, in milliseconds.",
        get: |c| c.segment_ms.to_string(),
        set: |c, value| at_least(value, 1).map(|n| c.segment_ms = n),
    },
];

/// Changes one config of a topic.
///
/// # Errors
/// The reason, for a person, when the key is unknown or the value does not fit.
pub(crate) fn set(config: &mut TopicConfig, name: &str, value: &str) -> Result<(), String> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return (key.set)(config, value).map_err(|why| format!("{name}: {why}"));
    }
    match FIXED.iter().find(|(fixed, ..)| *fixed == name) {
        Some((_, only, _)) if *only == value => Ok(()),
        Some((_, only, _)) => Err(format!("{name}: only {only} is supported")),
        None => Err(format!("unknown topic config {name}")),
    }
}

/// Takes one config back to what the node's defaults say.
pub(crate) fn reset(config: &mut TopicConfig, defaults: &TopicConfig, name: &str) -> Result<(), String> {
    match KEYS.iter().find(|key| key.name == name) {
        Some(key) => (key.set)(config, &(key.get)(defaults)),
        None if FIXED.iter().any(|(fixed, ..)| *fixed == name) => Ok(()),
        None => Err(format!("unknown topic config {name}")),
    }
}

fn at_least(value: &str, least: i64) -> Result<i64, String> {
    match value.trim().parse::<i64>() {
        Ok(n) if n >= least => Ok(n),
        Ok(n) => Err(format!("{n} is less than {least}")),
        Err(_) => Err(format!("{value:?} is not a whole number")),
    }
}

/// A limit, where a negative number down to `least` is none.
fn limit(value: &str, least: i64) -> Result<Option<i64>, String> {
    at_least(value, least).map(|n| (n >= 0).then_some(n))
}

fn or_minus_one<T: ToString>(limit: Option<T>) -> String {
    limit.map_or_else(|| "-1".into(), |n| n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_that_is_shown_can_be_set_again() {
        for config in [TopicConfig::default(), TopicConfig::internal()] {
            for key in &KEYS {
                let mut again = config.clone();
                set(&mut again, key.name, &(key.get)(&config)).unwrap();
                assert_eq!(again, config, "{}", key.name);
            }
        }
    }

    #[test]
    fn kafkas_words_for_no_limit_are_understood() {
        let mut config = TopicConfig::default();
        set(&mut config, "retention.ms", "-1").unwrap();
        set(&mut config, "local.retention.ms", "-2").unwrap();
        assert_eq!((config.retention_ms, config.local_retention_ms), (None, None));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_with_the_reason() {
        let mut config = TopicConfig::default();
        for (name, value, why) in [
            ("retention.sm", "1", "unknown topic config retention.sm"),
            ("retention.ms", "soon", "retention.ms: \"soon\" is not a whole number"),
            ("cleanup.policy", "shred", "cleanup.policy: \"shred\" is neither delete nor compact"),
            ("min.insync.replicas", "2", "min.insync.replicas: only 1 is supported"),
        ] {
            assert_eq!(set(&mut config, name, value), Err(why.to_owned()));
        }
        assert_eq!(config, TopicConfig::default());
    }
}
