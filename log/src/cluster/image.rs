//! The image: the cluster's metadata at one version, made by applying records in their order.
//!
//! A clone is cheap and shares all topics that do not change. The same records give the same image and the same
//! snapshot bytes on every node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::node::{Liveness, Node, Registration};
use super::record::{PartitionState, Record};
use super::shared::Shared;
use super::topic::Topic;
use crate::units::{Level, MetadataVersion, NodeId};

/// The cluster's metadata. It is also what a snapshot of it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Image {
    version: MetadataVersion,
    cluster: Option<Uuid>,
    level: Level,
    nodes: Shared<BTreeMap<NodeId, Node>>,
    topics: Shared<BTreeMap<Uuid, Shared<Topic>>>,
    settings: BTreeMap<String, Shared<BTreeMap<String, String>>>,
    next_producer_id: i64,
    #[serde(skip)]
    names: Shared<BTreeMap<String, Uuid>>,
    #[serde(skip)]
    partition_count: usize,
    #[serde(skip)]
    settings_bytes: usize,
}

/// What a snapshot holds; the rest follows from it.
#[derive(Deserialize)]
struct Stored {
    version: MetadataVersion,
    cluster: Option<Uuid>,
    level: Level,
    nodes: Shared<BTreeMap<NodeId, Node>>,
    topics: Shared<BTreeMap<Uuid, Shared<Topic>>>,
    settings: BTreeMap<String, Shared<BTreeMap<String, String>>>,
    next_producer_id: i64,
}

impl From<Stored> for Image {
    fn from(stored: Stored) -> Image {
        let Stored { version, cluster, level, nodes, topics, settings, next_producer_id } = stored;
        let names = topics.values().map(|topic| (topic.name.clone(), topic.id)).collect();
        let partition_count = topics.values().map(|topic| topic.partitions.len()).sum();
        let settings_bytes = settings
            .iter()
            .flat_map(|(namespace, of)| of.iter().map(|(key, value)| setting_bytes(namespace, key, value)))
            .sum();
        let names = Shared::new(names);
        Image {
            version,
            cluster,
            level,
            nodes,
            topics,
            settings,
            next_producer_id,
            names,
            partition_count,
            settings_bytes,
        }
    }
}

/// What a setting counts for.
pub(super) fn setting_bytes(namespace: &str, key: &str, value: &str) -> usize {
    namespace.len() + key.len() + value.len()
}

impl Image {
    /// How many records made it.
    #[must_use]
    pub fn version(&self) -> MetadataVersion {
        self.version
    }

    /// The cluster's id; none before the first record.
    #[must_use]
    pub fn cluster(&self) -> Option<Uuid> {
        self.cluster
    }

    /// The level that is finalised: records and messages of later ones are not written yet.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Whether the node may lead and be in sync.
    #[must_use]
    pub fn is_active(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(Node::is_active)
    }

    #[must_use]
    pub fn topic(&self, id: Uuid) -> Option<&Shared<Topic>> {
        self.topics.get(&id)
    }

    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Shared<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Shared<Topic>> {
        self.topics.values()
    }

    /// The topics' names in their order, and their ids.
    pub fn topic_names(&self) -> impl ExactSizeIterator<Item = (&str, Uuid)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id))
    }

    #[must_use]
    pub fn partition(&self, topic: Uuid, index: u32) -> Option<&PartitionState> {
        self.topics.get(&topic)?.partition(index)
    }

    /// All partitions with their topics and indexes.
    pub fn partitions(&self) -> impl Iterator<Item = (&Topic, u32, &PartitionState)> {
        self.topics.values().flat_map(|topic| topic.partitions().map(|(index, state)| (&**topic, index, state)))
    }

    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    #[must_use]
    pub fn setting(&self, namespace: &str, key: &str) -> Option<&str> {
        self.settings.get(namespace)?.get(key).map(String::as_str)
    }

    /// The settings of a namespace, by key.
    pub fn settings(&self, namespace: &str) -> impl Iterator<Item = (&str, &str)> {
        self.settings.get(namespace).into_iter().flat_map(|of| of.iter().map(|(key, value)| (&**key, &**value)))
    }

    /// Whether the settings of a namespace are as in `other`, of which this is a later version or the other way round: told by what
    /// versions share, so that settings changed there and back may count as changed.
    #[must_use]
    pub fn shares_settings(&self, other: &Image, namespace: &str) -> bool {
        match (self.settings.get(namespace), other.settings.get(namespace)) {
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        }
    }

    /// Bytes of all settings: their namespaces, keys and values.
    #[must_use]
    pub fn settings_bytes(&self) -> usize {
        self.settings_bytes
    }

    /// Producer ids below this one are given out.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Applies one record. What it names and is not there (any more) stays untouched.
    pub fn apply(&mut self, record: &Record) {
        self.version = self.version.next();
        match record {
            Record::ClusterCreated { id, level, nodes } => {
                self.cluster = Some(*id);
                self.level = *level;
                self.nodes.make_mut().extend(nodes.iter().map(|id| (*id, Node::default())));
            }
            Record::LevelFinalised { level } => self.level = *level,
            Record::NodeAdded { id } => {
                self.nodes.make_mut().entry(*id).or_default();
            }
            Record::NodeRegistered { id, incarnation, process, directory, addresses, rack, levels } => {
                let registration = Registration {
                    incarnation: *incarnation,
                    process: *process,
                    directory: *directory,
                    addresses: addresses.clone(),
                    rack: rack.clone(),
                    levels: *levels,
                    since: self.version,
                };
                self.change_node(*id, |node| {
                    node.registration = Some(registration);
                    node.liveness = Liveness::Fenced;
                });
            }
            Record::NodeFenced { id } => self.change_node(*id, |node| node.liveness = Liveness::Fenced),
            Record::NodeUnfenced { id } => self.change_node(*id, |node| node.liveness = Liveness::Unfenced),
            Record::NodeStopping { id } => self.change_node(*id, |node| node.liveness = Liveness::Stopping),
            Record::NodeDraining { id, draining } => self.change_node(*id, |node| node.draining = *draining),
            Record::NodeRemoved { id } => {
                self.nodes.make_mut().remove(id);
            }
            Record::TopicCreated { id, name, config } => {
                if self.topics.contains_key(id) || self.names.contains_key(name) {
                    return;
                }
                let topic = Topic { id: *id, name: name.clone(), config: config.clone(), partitions: Vec::new() };
                self.topics.make_mut().insert(*id, Shared::new(topic));
                self.names.make_mut().insert(name.clone(), *id);
            }
            Record::TopicConfigChanged { id, config } => {
                if let Some(topic) = self.topics.make_mut().get_mut(id) {
                    topic.make_mut().config = config.clone();
                }
            }
            Record::TopicDeleted { id } => {
                if let Some(topic) = self.topics.make_mut().remove(id) {
                    self.names.make_mut().remove(&topic.name);
                    self.partition_count -= topic.partitions.len();
                }
            }
            Record::Partition { topic, index, state } => self.put_partition(*topic, *index, state),
            Record::Setting { namespace, key, value } => self.put_setting(namespace, key, value.as_deref()),
            Record::ProducerIds { next } => self.next_producer_id = *next,
        }
    }

    fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.make_mut().get_mut(&id) {
            change(node);
        }
    }

    fn put_partition(&mut self, topic: Uuid, index: u32, state: &PartitionState) {
        let Some(topic) = self.topics.make_mut().get_mut(&topic) else { return };
        let partitions = &mut topic.make_mut().partitions;
        let Ok(index) = usize::try_from(index) else { return };
        if let Some(slot) = partitions.get_mut(index) {
            *slot = Shared::new(state.clone());
        } else if index == partitions.len() {
            partitions.push(Shared::new(state.clone()));
            self.partition_count += 1;
        }
    }

    fn put_setting(&mut self, namespace: &str, key: &str, value: Option<&str>) {
        let of = self.settings.entry(namespace.to_owned()).or_default().make_mut();
        let before = match value {
            Some(value) => {
                self.settings_bytes += setting_bytes(namespace, key, value);
                of.insert(key.to_owned(), value.to_owned())
            }
            None => of.remove(key),
        };
        if let Some(before) = before {
            self.settings_bytes -= setting_bytes(namespace, key, &before);
        }
        if of.is_empty() {
            self.settings.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::LevelRange;
    use crate::units::Incarnation;

    fn with_topic() -> Image {
        let mut image = Image::default();
        let id = Uuid::from_u128(1);
        image.apply(&Record::ClusterCreated { id, level: Level(1), nodes: vec![NodeId(1)] });
        image.apply(&Record::TopicCreated { id, name: "t".to_owned(), config: BTreeMap::new() });
        image.apply(&Record::Partition { topic: id, index: 0, state: PartitionState::default() });
        image
    }

    #[test]
    fn a_new_process_is_fenced_and_registered_at_its_record() {
        let mut image = with_topic();
        image.apply(&Record::NodeUnfenced { id: NodeId(1) });
        image.apply(&Record::NodeRegistered {
            id: NodeId(1),
            incarnation: Incarnation(1),
            process: Uuid::nil(),
            directory: Uuid::nil(),
            addresses: BTreeMap::from([("mqtt".to_owned(), "a:1".to_owned())]),
            rack: None,
            levels: LevelRange::OURS,
        });
        let node = image.node(NodeId(1)).unwrap();
        assert!(!node.is_active());
        assert_eq!(node.registration.as_ref().unwrap().since, image.version());
        assert_eq!((node.address("mqtt"), node.address("kafka")), (Some("a:1"), None));
    }

    #[test]
    fn what_is_not_there_stays_away() {
        let before = with_topic();
        let (id, state) = (Uuid::from_u128(2), PartitionState::default());
        for record in [
            Record::NodeUnfenced { id: NodeId(2) },
            Record::NodeRemoved { id: NodeId(2) },
            Record::TopicConfigChanged { id, config: BTreeMap::new() },
            Record::TopicDeleted { id },
            Record::TopicCreated { id, name: "t".to_owned(), config: BTreeMap::new() },
            Record::Partition { topic: id, index: 0, state: state.clone() },
            Record::Partition { topic: Uuid::from_u128(1), index: 2, state },
            Record::Setting { namespace: "users".to_owned(), key: "a".to_owned(), value: None },
        ] {
            let mut after = before.clone();
            after.apply(&record);
            assert_eq!(after, Image { version: before.version.next(), ..before.clone() }, "{record:?}");
        }
    }

    #[test]
    fn a_clone_shares_what_does_not_change() {
        let before = with_topic();
        let mut after = before.clone();
        after.apply(&Record::TopicCreated { id: Uuid::from_u128(2), name: "u".to_owned(), config: BTreeMap::new() });
        let topic = |image: &Image| std::ptr::from_ref::<Topic>(image.topic(Uuid::from_u128(1)).unwrap());
        assert_eq!(topic(&before), topic(&after));
        assert_eq!((before.topics().len(), after.topics().len()), (1, 2));
    }
}
