//! Whether a partition can be asked here: this node leads it, in the epoch that the client knows of (KIP-320).

use forebay_cluster::Partition;
use forebay_log::{AppendError, Epoch, NodeId};
use kafka_protocol::ResponseError;

use super::errors::Refusal;

/// In place of a leader epoch: the client knows of none.
pub(crate) const ANY_EPOCH: i32 = -1;

/// As Kafka, the epoch first: a client whose metadata is older or newer than ours learns that, whoever leads.
///
/// # Errors
/// `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH` or `NOT_LEADER_OR_FOLLOWER`.
pub(crate) fn check_leader(partition: &Partition, asked: i32) -> Result<(), Refusal> {
    check_epoch(asked, partition.leader_epoch())?;
    if partition.leads() { Ok(()) } else { Err(AppendError::NotLeader.into()) }
}

/// As [`check_leader`], for reads that may go to followers as well (KIP-392).
///
/// # Errors
/// As `check_leader`; `NOT_LEADER_OR_FOLLOWER` where no replica of it is here, or one that leaves.
pub(crate) fn check_replica(partition: &Partition, here: NodeId, asked: i32) -> Result<(), Refusal> {
    check_epoch(asked, partition.leader_epoch())?;
    let follows = || partition.is_here() && partition.placement().replicas.contains(&here);
    if partition.leads() || follows() { Ok(()) } else { Err(AppendError::NotLeader.into()) }
}

fn check_epoch(asked: i32, ours: Epoch) -> Result<(), ResponseError> {
    match asked {
        ANY_EPOCH => Ok(()),
        epoch if epoch < ours.0 => Err(ResponseError::FencedLeaderEpoch),
        epoch if epoch > ours.0 => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
