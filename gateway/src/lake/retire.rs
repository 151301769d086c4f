//! What a deleted topic leaves behind: its table and objects go too, as Kafka's tiered storage does it.
//!
//! What goes is decided once and durably, before the first object does: half of a table can no more tell whose it is. One node
//! does it, the leader of the manifest; who leads it next, or after a restart, goes on with the topics that the manifest knows and
//! the log does not.

use std::time::{Duration, Instant};

use forebay_log::NodeId;
use forebay_tiering::manifest::{Removal, TopicEntry};
use forebay_tiering::table::{DeltaLake, Table, TableError};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::task::JoinHandle;

use super::Shared;
use super::told::Told;

/// Wait after a failure, while the store is out of reach.
const RETRY: Duration = Duration::from_secs(10);

/// How long the other nodes may take to end what they do for a deleted topic, and how often it is looked whether they have. Those of
/// earlier releases do not say so.
const REST_PATIENCE: Duration = Duration::from_secs(60);
const REST_LOOK: Duration = Duration::from_millis(50);

/// Topics that were deleted, and the lake has not followed to the end.
pub(super) fn unfinished(shared: &Shared) -> Vec<TopicEntry> {
    let topics = shared.log.topics();
    let there = |known: &TopicEntry| topics.values().any(|topic| topic.id == known.topic_id);
    shared.manifest.topics().into_iter().filter(|known| !there(known)).collect()
}

/// Deletes everything that the lake holds of a topic; returns when that is done, or another node has to do it.
pub(super) async fn retire(shared: &Shared, topic: TopicEntry, worker: Option<JoinHandle<()>>) {
    // A step that has begun ends first: what it writes must be there to be deleted.
    if let Some(worker) = worker
        && let Err(error) = worker.await
    {
        tracing::error!(topic = topic.name, %error, "the offload of a deleted topic broke off");
    }
    shared.metrics.lake.forget(&topic.name);
    let mut told = Told::default();
    others_rest(shared, &topic).await;
    while shared.manifest.is_keeper(&shared.log) {
        let Err(error) = attempt(shared, &topic).await else { return };
        if told.is_news(&error, Instant::now()) {
            tracing::warn!(topic = topic.name, error, "the lake of a deleted topic cannot be removed; trying again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits until no other node that is up has a step of the topic under way: what that writes must be there to be deleted, too.
async fn others_rest(shared: &Shared, topic: &TopicEntry) {
    let deadline = Instant::now() + REST_PATIENCE;
    while shared.manifest.is_keeper(&shared.log) && shared.manifest.topic(topic.topic_id).is_some() {
        let nodes = shared.log.nodes();
        let others = nodes.iter().map(|node| node.id).filter(|id| *id != shared.log.node_id());
        let waits_for: Vec<NodeId> = others.filter(|id| !shared.manifest.rests(topic.topic_id, *id)).collect();
        if waits_for.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!(topic = topic.name, nodes = ?waits_for, "nodes do not say that they have ended the offload of a deleted topic");
            return;
        }
        tokio::time::sleep(REST_LOOK).await;
    }
}

async fn attempt(shared: &Shared, topic: &TopicEntry) -> Result<(), String> {
    let Some(known) = shared.manifest.topic(topic.topic_id) else { return Ok(()) };
    let removal = match known.removal {
        Some(removal) => removal,
        None => {
            let removal = what_goes(shared, &known).await?;
            shared.manifest.put_topic(TopicEntry { removal: Some(removal), ..known }).await?;
            removal
        }
    };
    match removal {
        Removal::Folder => {
            // The table log first: a reader finds no table rather than one with holes.
            for folder in [Path::from_iter([topic.name.as_str(), "_delta_log"]), Path::from(topic.name.as_str())] {
                delete(shared, shared.store.list(Some(&folder)).map_ok(|object| object.location).boxed()).await?;
            }
        }
        Removal::OwnObjects => {
            let entries = shared.manifest.all_objects(topic.topic_id);
            let paths: Vec<_> = entries.iter().map(|entry| Ok(Path::from(entry.path.as_str()))).collect();
            delete(shared, stream::iter(paths).boxed()).await?;
        }
    }
    shared.manifest.forget_topic(topic.topic_id).await
}

/// Another topic's table may lie at the same place: of another node, or of this one before its data directory was lost.
async fn what_goes(shared: &Shared, topic: &TopicEntry) -> Result<Removal, String> {
    match DeltaLake::new(shared.store.clone(), &topic.name, topic.topic_id).contents().await {
        Ok(table) if table.version.is_some() => Ok(Removal::Folder),
        Ok(_) | Err(TableError::Foreign { .. }) => Ok(Removal::OwnObjects),
        Err(error) => Err(error.to_string()),
    }
}

async fn delete(shared: &Shared, paths: BoxStream<'static, object_store::Result<Path>>) -> Result<(), String> {
    // A new leader of the manifest may have finished, and a new topic have begun there.
    let (manifest, log) = (shared.manifest.clone(), shared.log.clone());
    let paths = paths.take_while(move |_| std::future::ready(manifest.is_keeper(&log)));
    let mut deleted = shared.store.delete_stream(paths.boxed());
    while let Some(object) = deleted.next().await {
        match object {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if shared.manifest.is_keeper(&shared.log) { Ok(()) } else { Err("another node leads the manifest now".to_owned()) }
}
