//! `/api/v1/groups`: consumer groups, their members, and how far they are behind.

use std::collections::BTreeMap;

use axum::Json;
use forebay_disk::Log;
use serde_json::{Value, json};

use super::error::ApiError;
use super::front::Opened;
use super::limits::MAX_GROUPS;
use crate::kafka::Overview;

pub(super) async fn list(Opened(gateway): Opened) -> Result<Json<Value>, ApiError> {
    let groups = gateway.groups.overview(&gateway.log).await.map_err(|refusal| {
        ApiError::unavailable(refusal.message.unwrap_or_else(|| "the consumer groups cannot be read now".to_owned()))
    })?;
    let count = groups.len();
    let shown: Vec<Value> = groups.into_iter().take(MAX_GROUPS).map(|group| view(&gateway.log, group)).collect();
    Ok(Json(json!({ "count": count, "groups": shown })))
}

fn view(log: &Log, group: Overview) -> Value {
    let mut owners = BTreeMap::new();
    let mut members = Vec::with_capacity(group.members.len());
    for member in &group.members {
        for of in &member.partitions {
            owners.insert((of.topic.clone(), of.partition), member.id.clone());
        }
        members.push(json!({
            "id": &*member.id,
            "instance": member.instance.as_deref(),
            "client_id": &*member.client_id,
            "host": &*member.host,
            "epoch": member.epoch,
        }));
    }
    let mut committed: BTreeMap<_, Option<i64>> = owners.keys().map(|of| (of.clone(), None)).collect();
    let offsets = group.offsets.into_iter().map(|(of, at)| ((of.topic, of.partition), Some(at.offset)));
    committed.extend(offsets);
    let mut lag = 0;
    let partitions = committed.into_iter().map(|((topic, partition), committed)| {
        let found = log.topic(&topic).and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?).cloned());
        let end = found.map(|partition| partition.watermarks().high_watermark.0);
        let behind = end.zip(committed).map(|(end, committed)| (end - committed).max(0));
        lag += behind.unwrap_or(0);
        json!({
            "topic": &*topic,
            "partition": partition,
            "committed": committed,
            "end": end,
            "lag": behind,
            "member": owners.get(&(topic, partition)).map(|id| &**id),
        })
    });
    let partitions: Vec<Value> = partitions.collect();
    json!({
        "group": &*group.listed.group,
        "type": group.listed.kind,
        "state": group.listed.state,
        "epoch": group.epoch,
        "assignor": &*group.assignor,
        "lag": lag,
        "members": members,
        "partitions": partitions,
    })
}
