//! What nodes tell each other over the manifest, which all of them see: how far a topic is to be flushed, and that one does nothing
//! more for a topic that was deleted. Nodes of earlier releases do neither, and nobody waits for them for ever.

use std::collections::BTreeMap;

use forebay_log::{NodeId, Offset};
use forebay_tiering::manifest;
use uuid::Uuid;

use super::manifest::Manifest;

impl Manifest {
    /// Up to where each partition of a topic is to be flushed.
    pub(super) fn asked(&self, topic_id: Uuid) -> BTreeMap<u32, Offset> {
        let stored = self.state().ok().and_then(|state| state.get(&manifest::flush_key(topic_id)));
        stored.and_then(|stored| manifest::decode_ends(&stored).ok()).unwrap_or_default()
    }

    /// Asks all leaders of a topic to flush it up to these ends; with none it is over.
    pub(super) async fn ask(&self, topic_id: Uuid, ends: &BTreeMap<u32, Offset>) -> Result<(), String> {
        let value = (!ends.is_empty()).then(|| manifest::encode_ends(ends));
        self.state()?.put(manifest::flush_key(topic_id), value).await.map_err(|error| error.to_string())
    }

    /// Whether a node has said that it does nothing more for a topic.
    pub(super) fn rests(&self, topic_id: Uuid, node: NodeId) -> bool {
        self.state().is_ok_and(|state| state.get(&manifest::rest_key(topic_id, node)).is_some())
    }

    /// Says so for this node, where the topic is known and it has not.
    pub(super) async fn rest(&self, topic_id: Uuid, node: NodeId) -> Result<(), String> {
        if self.topic(topic_id).is_none() || self.rests(topic_id, node) {
            return Ok(());
        }
        let said = Some(manifest::encode_ends(&BTreeMap::new()));
        self.state()?.put(manifest::rest_key(topic_id, node), said).await.map_err(|error| error.to_string())
    }
}
