//! Puts a damaged state topic in order: what is known is written again at the tail, then the log start moves past the damage.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use forebay_log::{AppendError, Offset};

use super::{Change, StateTopic};

/// Bytes that are written again in one batch.
const CHUNK_BYTES: usize = 256 << 10;

/// A crash on the way leaves old records and new: applied in order, they give the same. Nobody else may write meanwhile.
pub(super) async fn mend(state: Arc<StateTopic>) {
    let topic = state.partition.topic();
    if !state.alone || state.partition.placement().replicas.len() > 1 {
        tracing::error!(
            topic,
            "the damaged replica of the node's own state stays as it is: move its directory away while the node is stopped, \
             and it is copied from another node"
        );
    } else {
        match rewrite(&state).await {
            Ok(start) => tracing::warn!(topic, %start, "the node's own state goes on without what was damaged"),
            Err(error) => {
                tracing::error!(topic, %error, "the damage in the node's own state stays; it is tried again at the next start");
            }
        }
    }
    state.mending.under_way.store(false, Ordering::Release);
    state.mending.over.notify_waiters();
}

async fn rewrite(state: &StateTopic) -> Result<Offset, AppendError> {
    let entries = state.scan(b"");
    let start = state.shared.view().next();
    let mut chunk: Vec<Change> = Vec::new();
    let mut bytes = 0;
    for (key, value) in entries {
        bytes += key.len() + value.len();
        chunk.push((key, Some(value)));
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            put(state, std::mem::take(&mut chunk)).await?;
        }
    }
    // Never nothing: what is damaged may be the last of the log, and the log start does not pass its end.
    chunk.push((Bytes::from_static(super::SYNC_KEY), None));
    put(state, chunk).await?;
    state.partition.set_log_start(start).await?;
    Ok(start)
}

async fn put(state: &StateTopic, changes: Vec<Change>) -> Result<(), AppendError> {
    state.submit_now(changes).await.await.unwrap_or(Err(AppendError::Closed))
}
