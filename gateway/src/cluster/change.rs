//! Changes to the cluster that a person asks for: nodes come and go, replicas and leaderships move.

use std::time::Duration;

use forebay_cluster::{AskError, Cluster, VoterError};
use forebay_log::NodeId;
use forebay_log::cluster::controller::{ElectionType, Reassign};
use forebay_log::cluster::{Image, Liveness, Refusal, Reply, Request};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long the controller may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("{0}")]
    Refused(String),
    /// There is no such node.
    #[error("{0}")]
    Unknown(String),
    /// It may be made all the same.
    #[error("{0}")]
    Unavailable(String),
}

impl From<AskError> for ChangeError {
    fn from(error: AskError) -> ChangeError {
        match error {
            AskError::Refused(refusal @ Refusal::UnknownNode { .. }) => ChangeError::Unknown(refusal.to_string()),
            AskError::Refused(refusal) => ChangeError::Refused(refusal.to_string()),
            error @ AskError::Unavailable(_) => ChangeError::Unavailable(error.to_string()),
        }
    }
}

impl From<VoterError> for ChangeError {
    fn from(error: VoterError) -> ChangeError {
        match error {
            VoterError::Refused(why) => ChangeError::Refused(why),
            error @ VoterError::Unavailable(_) => ChangeError::Unavailable(error.to_string()),
        }
    }
}

/// A partition by its topic's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: u32,
}

/// Where a partition is to go. Without replicas, what is under way is cancelled: that has to be said (null), so that a
/// misspelt name cancels nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) replicas: Option<Vec<i32>>,
}

/// What became of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoveOutcome {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// Why it stays as it was.
    pub(crate) error: Option<String>,
}

/// Lets a node into the cluster; as a voter it has a say in the controller quorum as soon as it follows that.
pub(crate) async fn add(cluster: &Cluster, node: i32, voter: bool) -> Result<(), ChangeError> {
    let id = NodeId(node);
    match cluster.ask(Request::AddNode { id }, PATIENCE).await {
        Err(AskError::Refused(Refusal::NodeExists { .. })) if voter => {}
        added => drop(added?),
    }
    if voter {
        cluster.set_voter(id, true, PATIENCE).await?;
    }
    Ok(())
}

/// Moves everything off a node, or stops doing so.
pub(crate) async fn drain(cluster: &Cluster, node: i32, cancel: bool) -> Result<(), ChangeError> {
    Ok(cluster.ask(Request::DrainNode { id: NodeId(node), draining: !cancel }, PATIENCE).await.map(drop)?)
}

/// Takes an empty, stopped node out of the cluster, and out of the controller quorum if it votes there.
pub(crate) async fn remove(cluster: &Cluster, node: i32) -> Result<(), ChangeError> {
    let id = NodeId(node);
    let removal = Request::RemoveNode { id };
    match cluster.ask(removal.clone(), PATIENCE).await {
        Err(AskError::Refused(Refusal::NodeVotes { .. })) => {}
        removed => return Ok(removed.map(drop)?),
    }
    let fenced = {
        let metadata = cluster.metadata();
        let known = metadata.borrow();
        known.image.node(id).is_none_or(|node| node.liveness == Liveness::Fenced)
    };
    if !fenced {
        return Err(ChangeError::Refused(Refusal::NodeAlive { id }.to_string()));
    }
    cluster.set_voter(id, false, PATIENCE).await?;
    Ok(cluster.ask(removal, PATIENCE).await.map(drop)?)
}

/// Moves replicas; one outcome for each of `moves`.
pub(crate) async fn reassign(cluster: &Cluster, moves: Vec<Move>) -> Result<Vec<MoveOutcome>, ChangeError> {
    let image = cluster.metadata().borrow().image.clone();
    let found: Vec<_> = moves.iter().map(|one| find(&image, &one.topic, one.partition)).collect();
    let known = moves.iter().zip(&found).filter_map(|(one, found)| {
        let (topic, index) = found.as_ref().ok().copied()?;
        let target = one.replicas.as_ref().map(|replicas| replicas.iter().copied().map(NodeId).collect());
        Some(Reassign { topic, index, target })
    });
    let partitions: Vec<Reassign> = known.collect();
    let mut decided = Vec::new().into_iter();
    if !partitions.is_empty()
        && let Reply::Reassigned { partitions } =
            cluster.ask(Request::AlterReassignments { partitions }, PATIENCE).await?
    {
        decided = partitions.into_iter();
    }
    let outcomes = moves.into_iter().zip(found).map(|(one, found)| MoveOutcome {
        error: match found {
            Ok(_) => decided.next().and_then(Result::err).map(|refusal| refusal.to_string()),
            Err(why) => Some(why),
        },
        topic: one.topic,
        partition: one.partition,
    });
    Ok(outcomes.collect())
}

/// Gives leaderships to the preferred leaders, of all partitions if none are named. Of all, those are returned that were led by
/// another node.
pub(crate) async fn elect(cluster: &Cluster, places: Option<Vec<Place>>) -> Result<Vec<MoveOutcome>, ChangeError> {
    let image = cluster.metadata().borrow().image.clone();
    let mut outcomes = Vec::new();
    let partitions = places.map(|places| {
        let mut known = Vec::new();
        for Place { topic, partition } in places {
            match find(&image, &topic, partition) {
                Ok(at) => known.push(at),
                Err(why) => outcomes.push(MoveOutcome { topic, partition, error: Some(why) }),
            }
        }
        known
    });
    if partitions.as_ref().is_some_and(Vec::is_empty) {
        return Ok(outcomes);
    }
    let request = Request::ElectLeaders { election: ElectionType::Preferred, partitions };
    if let Reply::Elected { partitions } = cluster.ask(request, PATIENCE).await? {
        outcomes.extend(partitions.into_iter().filter_map(|elected| {
            let error = match elected.outcome {
                // It is as it should be.
                Ok(()) | Err(Refusal::ElectionNotNeeded) => None,
                Err(refusal) => Some(refusal.to_string()),
            };
            Some(MoveOutcome { topic: image.topic(elected.topic)?.name.clone(), partition: elected.index, error })
        }));
    }
    Ok(outcomes)
}

fn find(image: &Image, topic: &str, index: u32) -> Result<(Uuid, u32), String> {
    let known = image.topic_named(topic).ok_or_else(|| format!("there is no topic {topic}"))?;
    let there = known.partition(index).is_some();
    if there { Ok((known.id, index)) } else { Err(format!("topic {topic} has no partition {index}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_where_to_or_that_it_is_cancelled() {
        let read = |more: &str| serde_json::from_str::<Move>(&format!(r#"{{"topic": "t", "partition": 0{more}}}"#));
        assert_eq!(read(r#", "replicas": [2, 1]"#).unwrap().replicas, Some(vec![2, 1]));
        assert_eq!(read(r#", "replicas": null"#).unwrap().replicas, None);
        assert!(read("").unwrap_err().to_string().contains("missing field `replicas`"));
        let misspelt = read(r#", "replicas": [1], "replica": [2, 1]"#).unwrap_err().to_string();
        assert!(misspelt.contains("unknown field `replica`"), "{misspelt}");
    }
}
