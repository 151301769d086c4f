//! Asks the cluster's controller for handlers, and finds what they name in the cluster's metadata.

use std::time::Duration;

use forebay_cluster::{Cluster, Log};
use forebay_log::cluster::{Image, Reply, Request};
use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::errors::Refusal;
use super::limits::CONTROLLER_WAIT;

/// The cluster that this node is in.
///
/// # Errors
/// It is in none, so that there is nobody to ask.
pub(crate) fn cluster(log: &Log) -> Result<&Cluster, Refusal> {
    log.cluster().ok_or_else(|| Refusal::new(ResponseError::NotController, "this node is not in a cluster"))
}

/// Asks the controller for as long as the client would wait, within reason.
///
/// # Errors
/// Why it does not do so, or that it has not answered in time.
pub(crate) async fn ask(log: &Log, request: Request, timeout_ms: i32) -> Result<Reply, Refusal> {
    let wait = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    let wait = wait.clamp(Duration::from_secs(1), CONTROLLER_WAIT);
    Ok(cluster(log)?.ask(request, wait).await?)
}

/// The cluster's metadata as this node knows it; nothing is in that of a node without a cluster.
pub(crate) fn image(log: &Log) -> Image {
    log.cluster().map(|cluster| cluster.metadata().borrow().image.clone()).unwrap_or_default()
}

/// A partition that a request names.
///
/// # Errors
/// There is none.
pub(crate) fn find(image: &Image, topic: &str, index: i32) -> Result<(Uuid, u32), ResponseError> {
    let topic = image.topic_named(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let index = u32::try_from(index).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    topic.partition(index).map(|_| (topic.id, index)).ok_or(ResponseError::UnknownTopicOrPartition)
}
