//! `/api/v1/groups`: consumer groups, their members, and how far they are behind.

use std::collections::BTreeMap;

use axum::Json;
use forebay_cluster::Log;
use serde_json::{Value, json};

use super::error::ApiError;
use super::front::Opened;
use super::limits::MAX_GROUPS;
use crate::kafka::Overview;

pub(super) async fn list(Opened(gateway): Opened) -> Result<Json<Value>, ApiError> {
    let found = gateway.groups.overview(&gateway.log, MAX_GROUPS).await;
    let (count, groups) = found.map_err(|refusal| {
        ApiError::unavailable(refusal.message.unwrap_or_else(|| "the consumer groups cannot be read now".to_owned()))
    })?;
    let shown: Vec<Value> = groups.into_iter().map(|group| view(&gateway.log, group)).collect();
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

#[cfg(test)]
mod tests {
    use forebay_log::Offset;
    use serde_json::json;

    use super::super::tests::{node, request};
    use crate::client::kafka::{Client, Membership};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_is_shown_with_its_members_and_what_they_have_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder, &[]).await;
        let shown = async || request(&node, "GET", "/api/v1/groups", "", "").await.json();
        assert_eq!(shown().await, json!({"count": 0, "groups": []}));
        assert!(node.gateway.log.topic("__consumer_offsets").is_none(), "to look makes no topic");

        let mut client = Client::connect(&node.gateway.addresses.kafka.unwrap().to_string()).await.unwrap();
        client.create_topic("read", Some(2), None, &[]).await.unwrap();
        // Without keys, one after the other.
        for _ in 0..2 {
            request(&node, "POST", "/api/v1/topics/read/records", "", "{\"value\":1}").await;
        }
        let mut member = Membership { group: "billing".to_owned(), ..Membership::default() };
        let joined = client.join(&mut member, "read").await.unwrap();
        assert_eq!(client.sync(&member, joined).await.unwrap().len(), 2);
        client.commit(&member, "read", &[(1, Offset(0))]).await.unwrap();

        let shown = shown().await;
        let group = &shown["groups"][0];
        let of = |key: &str| group[key].clone();
        assert_eq!((of("group"), of("type"), of("state")), (json!("billing"), json!("classic"), json!("Stable")));
        assert_eq!((of("lag"), of("assignor"), of("epoch")), (json!(1), json!("range"), json!(1)));
        assert_eq!(group["members"][0]["id"], json!(member.id));
        let partition = |index: i32, committed: Option<i64>, end: i64, lag: Option<i64>| {
            let (topic, member) = ("read", member.id.clone());
            json!({"topic": topic, "partition": index, "committed": committed, "end": end, "lag": lag, "member": member})
        };
        let expected = json!([partition(0, None, 1, None), partition(1, Some(0), 1, Some(1))]);
        assert_eq!(group["partitions"], expected);

        let metrics = request(&node, "GET", "/metrics", "", "").await.body;
        assert!(metrics.contains("forebay_kafka_groups{type=\"classic\",state=\"Stable\"} 1"), "{metrics}");
        assert!(metrics.contains("forebay_kafka_group_rebalances_total{type=\"classic\"} 1"), "{metrics}");
    }
}
