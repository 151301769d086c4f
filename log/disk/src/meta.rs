//! The node's metadata file: the cluster's id and its topics with their configs, replaced as a whole at each change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use forebay_log::TopicConfig;
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::topic::check_topic_name;
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
    /// The partitions that are here, rising.
    pub(crate) partitions: Vec<u32>,
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
            let partitions = partitions_text(&topic.partitions);
            let _ = writeln!(text, "topic {name} {} {partitions} {state}{}", topic.id, configs(&topic.config));
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
        partitions: parse_partitions(words.next()?)?,
        deleting: words.next()? == "deleting",
        config: TopicConfig::default(),
    };
    for word in words {
        let (key, value) = word.split_once('=')?;
        set(&mut topic.config, key, value)?;
    }
    Some((name.to_owned(), topic))
}

/// How many there are when it is the first ones, as ever on a node alone; else which, as `=0,2,5`.
fn partitions_text(partitions: &[u32]) -> String {
    if partitions.iter().copied().eq(0..u32::try_from(partitions.len()).unwrap_or(u32::MAX)) {
        return partitions.len().to_string();
    }
    let indexes: Vec<String> = partitions.iter().map(u32::to_string).collect();
    format!("={}", indexes.join(","))
}

fn parse_partitions(text: &str) -> Option<Vec<u32>> {
    let partitions: Vec<u32> = match text.strip_prefix('=') {
        Some(list) => list.split(',').map(str::parse).collect::<Result<_, _>>().ok()?,
        None => (0..text.parse().ok().filter(|&count| count <= MAX_PARTITIONS_PER_TOPIC)?).collect(),
    };
    let in_range = partitions.last().is_some_and(|&last| last < MAX_PARTITIONS_PER_TOPIC);
    (in_range && partitions.is_sorted_by(|a, b| a < b)).then_some(partitions)
}

fn configs(config: &TopicConfig) -> String {
    let mut text = String::new();
    for name in TopicConfig::NAMES {
        let _ = write!(text, " {name}={}", config.get(name).unwrap_or_default());
    }
    if config.self_compacting {
        let _ = write!(text, " {SELF_COMPACTING}=true");
    }
    text
}

const SELF_COMPACTING: &str = "self.compacting";

fn set(config: &mut TopicConfig, key: &str, value: &str) -> Option<()> {
    match key {
        SELF_COMPACTING => config.self_compacting = value.parse().ok()?,
        // As the first versions of this file wrote `cleanup.policy`.
        "compact" => config.compact = value.parse().ok()?,
        "delete" => config.delete = value.parse().ok()?,
        _ => config.set(key, value)?,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_config_comes_back_from_the_file() {
        let mut config = TopicConfig { self_compacting: true, ..TopicConfig::default() };
        config.set("cleanup.policy", "compact").unwrap();
        config.set("retention.ms", "-1").unwrap();
        config.set("min.cleanable.dirty.ratio", "0.25").unwrap();
        let topic = TopicMeta { id: Uuid::from_u128(7), partitions: vec![0, 1, 2], config, deleting: true };
        let some = vec![1, 4];
        let plain = TopicMeta { partitions: some, config: TopicConfig::default(), deleting: false, ..topic.clone() };
        let topics = BTreeMap::from([("a".to_owned(), topic), ("b".to_owned(), plain)]);
        let metadata = Metadata { cluster_id: "x".to_owned(), topics };
        assert_eq!(parse(&metadata.to_text()), Ok(metadata));
    }

    #[test]
    fn partitions_that_no_topic_can_have_are_refused() {
        for text in ["", "0", "=", "=1,1", "=2,1", "=4096", "4097", "=-1", "=1,", "x"] {
            assert_eq!(parse_partitions(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_file_of_the_first_versions_is_read() {
        let text =
            "cluster x\ntopic a 00000000-0000-0000-0000-000000000007 2 online segment.ms=9 compact=true delete=false\n";
        let config = &parse(text).unwrap().topics["a"].config;
        assert_eq!((config.segment_ms, config.get("cleanup.policy").as_deref()), (9, Some("compact")));
    }
}
