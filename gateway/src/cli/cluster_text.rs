//! The cluster's status as text.

use std::fmt::Write as _;

use super::table::table;
use crate::cluster::{ClusterStatus, FollowerStatus, NodeStatus, PartitionStatus};
use crate::figures::grouped;

/// Nodes first, then partitions, then what is wrong with them.
pub(super) fn text(status: &ClusterStatus) -> String {
    let controller = status.controller.map_or("none".to_owned(), |id| format!("node {id}"));
    let mut out = format!("cluster {}  controller {controller}  term {}\n\n", status.cluster_id, status.quorum.term);
    let heads = ["NODE", "STATE", "QUORUM", "RACK", "REPLICAS", "LEADS", "ADDRESS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(status.nodes.iter().map(node));
    out += &table(&rows);
    if !status.partitions.is_empty() {
        let heads = ["TOPIC", "PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", "BEHIND"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(status.partitions.iter().map(partition));
        out.push('\n');
        out += &table(&rows);
    }
    out.push('\n');
    let lists = [
        ("under-replicated", &status.under_replicated),
        ("without a leader", &status.offline),
        ("moving", &status.reassigning),
    ];
    for (what, partitions) in lists {
        let _ = write!(out, "{what}: {} of {} partitions", partitions.len(), status.partition_count);
        if !partitions.is_empty() {
            let _ = write!(out, ": {}", partitions.join(" "));
        }
        out.push('\n');
    }
    if let Some(rules) = &status.rules {
        let _ = writeln!(out, "alert rules: revision {}, from node {}", rules.revision, rules.node);
    }
    out
}

/// Partitions that are being reassigned.
pub(super) fn moving(partitions: &[PartitionStatus]) -> String {
    if partitions.is_empty() {
        return "no partition is moving\n".to_owned();
    }
    let heads = ["TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING", "IN SYNC", "BEHIND"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(partitions.iter().map(|one| {
        let lists = [&one.replicas, &one.adding, &one.removing, &one.isr].map(|list| ids(list));
        let mut row = vec![one.topic.clone(), one.partition.to_string()];
        row.extend(lists);
        row.push(behind(&one.behind));
        row
    }));
    table(&rows)
}

fn node(node: &NodeStatus) -> Vec<String> {
    let state = if node.draining { format!("{}, draining", node.state) } else { node.state.clone() };
    let role = match (node.controller, node.voter) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "follows",
    };
    let role = match node.quorum_lag {
        Some(lag) if lag > 0 => format!("{role}, {lag} entries behind"),
        _ => role.to_owned(),
    };
    let or_dash = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
    vec![
        node.id.to_string(),
        state,
        role,
        or_dash(node.rack.as_ref()),
        node.replicas.to_string(),
        node.leaderships.to_string(),
        or_dash(node.addresses.get("cluster").or_else(|| node.addresses.get("kafka"))),
    ]
}

fn partition(one: &PartitionStatus) -> Vec<String> {
    vec![
        one.topic.clone(),
        one.partition.to_string(),
        one.leader.map_or("none".to_owned(), |leader| leader.to_string()),
        one.leader_epoch.to_string(),
        ids(&one.replicas),
        ids(&one.isr),
        behind(&one.behind),
    ]
}

fn behind(followers: &[FollowerStatus]) -> String {
    let told = followers.iter().map(|one| {
        let (records, bytes) = (grouped(one.records), grouped(one.bytes));
        format!("node {}: {records} records, {bytes} bytes, {:.1} s", one.node, one.seconds)
    });
    told.collect::<Vec<_>>().join("; ")
}

fn ids(nodes: &[i32]) -> String {
    if nodes.is_empty() { "-".to_owned() } else { nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_come_first_then_partitions_then_what_is_wrong() {
        let status: ClusterStatus = serde_json::from_value(json!({
            "cluster_id": "abc", "node": 1, "controller": 2, "partition_count": 5,
            "quorum": { "term": 7, "committed": 9, "voters": [1, 2], "learners": [3] },
            "nodes": [
                { "id": 1, "state": "up", "draining": true, "controller": false, "voter": true, "rack": "a",
                  "addresses": { "cluster": "h:1" }, "replicas": 3, "leaderships": 1, "quorum_lag": 0 },
                { "id": 3, "state": "fenced", "draining": false, "controller": false, "voter": false, "rack": null,
                  "addresses": {}, "replicas": 0, "leaderships": 0, "quorum_lag": 4 },
            ],
            "under_replicated": ["t-0"], "offline": [], "reassigning": [],
            "rules": { "revision": 4, "node": 2, "digest": "d" },
            "partitions": [{
                "topic": "t", "partition": 0, "leader": null, "leader_epoch": 3, "replicas": [2, 1], "isr": [1], "adding": [],
                "removing": [],
                "behind": [{ "node": 2, "in_sync": false, "records": 12, "bytes": 2048, "seconds": 1.25 }],
            }],
        }))
        .unwrap();
        let text = text(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "cluster abc  controller node 2  term 7");
        assert_eq!(lines[3], "1     up, draining  votes                      a     3         1      h:1");
        assert_eq!(lines[4], "3     fenced        follows, 4 entries behind  -     0         0      -");
        assert!(
            lines[7].starts_with("t      0          none    3      2,1       1        node 2: 12 records, "),
            "{text}"
        );
        assert_eq!(lines[9], "under-replicated: 1 of 5 partitions: t-0");
        assert_eq!(lines[10], "without a leader: 0 of 5 partitions");
        assert_eq!(lines[12], "alert rules: revision 4, from node 2");
        assert!(moving(&status.partitions).contains("ADDING"));
        assert_eq!(moving(&[]), "no partition is moving\n");
    }
}
