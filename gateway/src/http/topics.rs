//! `/api/v1/topics`: topics, their partitions and their configs.

use axum::Json;
use axum::extract::Path;
use forebay_cluster::{Partition, Topic};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::topic_config;

use super::error::ApiError;
use super::front::Opened;

/// Where a partition's records are. Offsets below `local_start` are in the lake alone.
#[derive(Debug, Serialize)]
pub(super) struct PartitionView {
    partition: u32,
    leader: u32,
    leader_epoch: i32,
    log_start: i64,
    local_start: i64,
    high_watermark: i64,
    log_end: i64,
    local_bytes: u64,
    offline: Option<String>,
}

impl PartitionView {
    fn of(node: u32, partition: &Partition) -> PartitionView {
        let marks = partition.watermarks();
        PartitionView {
            partition: partition.index(),
            leader: node,
            leader_epoch: partition.leader_epoch().0,
            log_start: marks.log_start.0,
            local_start: marks.local_start.0,
            high_watermark: marks.high_watermark.0,
            log_end: marks.log_end.0,
            local_bytes: partition.local_bytes(),
            offline: partition.offline(),
        }
    }
}

/// A topic with its partitions.
pub(super) fn view(node: u32, topic: &Topic) -> Value {
    let partitions: Vec<_> = topic.partitions.iter().map(|p| PartitionView::of(node, p)).collect();
    json!({
        "name": topic.name,
        "id": topic.id,
        "internal": topic.is_internal(),
        "records": partitions.iter().map(|p| p.high_watermark - p.log_start).sum::<i64>(),
        "local_bytes": partitions.iter().map(|p| p.local_bytes).sum::<u64>(),
        "partitions": partitions,
    })
}

pub(super) async fn list(Opened(gateway): Opened) -> Json<Value> {
    let node = gateway.config.node.id;
    let topics: Vec<Value> = gateway.log.topics().values().map(|topic| view(node, topic)).collect();
    Json(json!({ "topics": topics }))
}

pub(super) async fn describe(Opened(gateway): Opened, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let topic = gateway.log.topic(&name).ok_or_else(|| ApiError::unknown_topic(&name))?;
    let mut view = view(gateway.config.node.id, &topic);
    let configs = topic_config::list(&topic.config()).into_iter();
    view["config"] =
        Value::Object(configs.map(|entry| (entry.name.to_owned(), entry.value.into())).collect::<Map<_, _>>());
    Ok(Json(view))
}
