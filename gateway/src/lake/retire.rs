//! What a deleted topic leaves behind: its table and objects go too, as Kafka's tiered storage does it.
//!
//! The manifest is marked first, so that a restart goes on with the deletion; entries of a topic that is merely missing are
//! left alone.

use std::sync::Arc;
use std::time::Duration;

use forebay_tiering::manifest::{Entry, State};
use forebay_tiering::offload::{Change, ManifestStore};
use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use uuid::Uuid;

use super::Shared;

/// Wait after a failure, while the store is out of reach.
const RETRY: Duration = Duration::from_secs(10);

/// A topic that is gone.
pub(super) struct Deleted {
    pub(super) id: Uuid,
    pub(super) name: String,
}

/// Topics of which the manifest says that their deletion had begun.
pub(super) fn unfinished(shared: &Shared) -> Vec<Deleted> {
    let topics = shared.log.topics();
    let there = |id: Uuid| topics.values().any(|topic| topic.id == id);
    let begun = |entries: &[Arc<Entry>]| entries.iter().all(|entry| entry.state == State::DeleteStarted);
    let orphans = shared.manifest.topics().into_iter().filter(|id| !there(*id));
    orphans
        .filter_map(|id| {
            let entries = shared.manifest.all(id);
            let name = entries.first().filter(|_| begun(&entries))?.path.split('/').next()?.to_owned();
            Some(Deleted { id, name })
        })
        .collect()
}

/// Deletes everything that the lake holds of a topic; returns when that is done.
pub(super) async fn retire(shared: &Shared, topic: &Deleted) {
    while let Err(error) = attempt(shared, topic).await {
        tracing::warn!(topic = topic.name, error, "the lake of a deleted topic cannot be removed; trying again");
        tokio::time::sleep(RETRY).await;
    }
}

async fn attempt(shared: &Shared, topic: &Deleted) -> Result<(), String> {
    let entries = shared.manifest.all(topic.id);
    if entries.is_empty() {
        return Ok(());
    }
    let unmarked = entries.iter().filter(|entry| entry.state != State::DeleteStarted);
    let marks: Vec<_> = unmarked
        .map(|entry| Change::Put(Box::new(Entry { state: State::DeleteStarted, ..entry.as_ref().clone() })))
        .collect();
    if !marks.is_empty() {
        shared.manifest.persist(topic.id, &marks).await?;
    }
    // The table log first: a reader finds no table rather than one with holes.
    for prefix in [Path::from_iter([topic.name.as_str(), "_delta_log"]), Path::from(topic.name.as_str())] {
        let found = shared.store.list(Some(&prefix)).map_ok(|object| object.location).boxed();
        let mut deleted = shared.store.delete_stream(found);
        while let Some(object) = deleted.next().await {
            match object {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    shared.manifest.forget_topic(topic.id).await
}
