//! The node's metadata file: the cluster's id and its topics with their configs, replaced as a whole at each change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use forebay_log::TopicConfig;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::topic::{CompressionType, LakeFormat, check_topic_name};
use uuid::Uuid;

use crate::LogError;
use crate::files::{Files, replace_file};
use crate::sealed::{read_sealed, seal};

const FILE: &str = "metadata";
const HEADING: &str = "forebay-metadata 1";

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicMeta {
    pub(crate) id: Uuid,
    pub(crate) partitions: u32,
    pub(crate) config: TopicConfig,
    /// Deleted, but its files may still be there: it is not to be seen, and deletion goes on at the next start.
    pub(crate) deleting: bool,
}

/// The node's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) cluster_id: String,
    pub(crate) topics: BTreeMap<String, TopicMeta>,
}

impl Metadata {
    pub(crate) fn save(&self, files: &dyn Files) -> io::Result<()> {
        replace_file(files, Path::new(FILE), seal(HEADING, &self.to_text()).as_bytes())
    }

    /// Reads the metadata; `None` at the first start.
    pub(crate) fn load(files: &dyn Files) -> Result<Option<Metadata>, LogError> {
        let format = |what: &str| LogError::Format { path: FILE.to_owned(), what: what.to_owned() };
        let body = match read_sealed(files, Path::new(FILE), HEADING) {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(format(&error.to_string())),
            Err(source) => return Err(LogError::Io { path: FILE.to_owned(), source }),
        };
        body.map(|body| parse(&body).map_err(|what| format(&what))).transpose()
    }

    fn to_text(&self) -> String {
        let mut text = format!("cluster {}\n", self.cluster_id);
        for (name, topic) in &self.topics {
            let state = if topic.deleting { "deleting" } else { "online" };
            let _ = writeln!(text, "topic {name} {} {} {state}{}", topic.id, topic.partitions, configs(&topic.config));
        }
        text
    }
}

/// # Errors
/// The line that is not understood: the file is whole, so another version has written it.
fn parse(body: &str) -> Result<Metadata, String> {
    let mut metadata = Metadata { cluster_id: String::new(), topics: BTreeMap::new() };
    for line in body.lines() {
        let strange = || format!("{line:?} is not understood: written by a newer version of the program?");
        match line.split_once(' ') {
            Some(("cluster", id)) => metadata.cluster_id = id.to_owned(),
            Some(("topic", rest)) => {
                let (name, topic) = parse_topic(rest).ok_or_else(strange)?;
                metadata.topics.insert(name, topic);
            }
            _ => return Err(strange()),
        }
    }
    Ok(metadata)
}

fn parse_topic(line: &str) -> Option<(String, TopicMeta)> {
    let mut words = line.split(' ');
    let name = words.next().filter(|name| check_topic_name(name).is_ok())?;
    let mut topic = TopicMeta {
        id: words.next()?.parse().ok()?,
        partitions: words.next()?.parse().ok().filter(|count| (1..=MAX_PARTITIONS_PER_TOPIC).contains(count))?,
        deleting: words.next()? == "deleting",
        config: TopicConfig::default(),
    };
    for word in words {
        let (key, value) = word.split_once('=')?;
        set(&mut topic.config, key, value)?;
    }
    Some((name.to_owned(), topic))
}

fn configs(config: &TopicConfig) -> String {
    let mut text = String::new();
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, " {key}={value}");
    };
    put("segment.bytes", &config.segment_bytes);
    put("segment.ms", &config.segment_ms);
    put("retention.ms", &config.retention_ms.unwrap_or(-1));
    put("retention.bytes", &config.retention_bytes.map_or(-1, u64::cast_signed));
    put("local.retention.ms", &config.local_retention_ms.unwrap_or(-1));
    put("local.retention.bytes", &config.local_retention_bytes.map_or(-1, u64::cast_signed));
    put("remote.storage.enable", &config.remote_storage_enable);
    put("compression.type", &compression(config.compression_type));
    put("max.message.bytes", &config.max_message_bytes);
    put("compact", &config.compact);
    put("delete", &config.delete);
    put("lake.format", &if config.lake_format == LakeFormat::Delta { "delta" } else { "none" });
    put("lake.commit.interval.ms", &config.lake_commit_interval_ms);
    text
}

fn set(config: &mut TopicConfig, key: &str, value: &str) -> Option<()> {
    let limit_ms = || value.parse::<i64>().ok().map(|ms| (ms >= 0).then_some(ms));
    let limit_bytes = || value.parse::<i64>().ok().map(|bytes| u64::try_from(bytes).ok());
    match key {
        "segment.bytes" => config.segment_bytes = value.parse().ok()?,
        "segment.ms" => config.segment_ms = value.parse().ok()?,
        "retention.ms" => config.retention_ms = limit_ms()?,
        "retention.bytes" => config.retention_bytes = limit_bytes()?,
        "local.retention.ms" => config.local_retention_ms = limit_ms()?,
        "local.retention.bytes" => config.local_retention_bytes = limit_bytes()?,
        "remote.storage.enable" => config.remote_storage_enable = value.parse().ok()?,
        "compression.type" => config.compression_type = CODECS.iter().find(|(_, name)| *name == value)?.0,
        "max.message.bytes" => config.max_message_bytes = value.parse().ok()?,
        "compact" => config.compact = value.parse().ok()?,
        "delete" => config.delete = value.parse().ok()?,
        "lake.format" => config.lake_format = if value == "delta" { LakeFormat::Delta } else { LakeFormat::None },
        "lake.commit.interval.ms" => config.lake_commit_interval_ms = value.parse().ok()?,
        _ => return None,
    }
    Some(())
}

const CODECS: [(CompressionType, &str); 6] = [
    (CompressionType::None, "uncompressed"),
    (CompressionType::Gzip, "gzip"),
    (CompressionType::Snappy, "snappy"),
    (CompressionType::Lz4, "lz4"),
    (CompressionType::Zstd, "zstd"),
    (CompressionType::Producer, "producer"),
];

fn compression(codec: CompressionType) -> &'static str {
    CODECS.iter().find(|(known, _)| *known == codec).map_or("uncompressed", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_config_comes_back_from_the_file() {
        let config = TopicConfig {
            segment_bytes: 1,
            segment_ms: 2,
            retention_ms: None,
            retention_bytes: Some(4),
            local_retention_ms: Some(0),
            local_retention_bytes: None,
            remote_storage_enable: false,
            compression_type: CompressionType::Producer,
            max_message_bytes: 5,
            compact: true,
            delete: false,
            lake_format: LakeFormat::None,
            lake_commit_interval_ms: 6,
        };
        let topic = TopicMeta { id: Uuid::from_u128(7), partitions: 3, config, deleting: true };
        let plain = TopicMeta { config: TopicConfig::default(), deleting: false, ..topic.clone() };
        let topics = BTreeMap::from([("a".to_owned(), topic), ("b".to_owned(), plain)]);
        let metadata = Metadata { cluster_id: "x".to_owned(), topics };
        assert_eq!(parse(&metadata.to_text()), Ok(metadata));
    }
}
