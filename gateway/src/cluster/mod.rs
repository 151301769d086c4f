//! The cluster as those who run it see and change it: for the HTTP door and the command line.

mod change;
mod controller;
mod status;

pub(crate) use change::{ChangeError, Move, MoveOutcome, Place};
pub(crate) use change::{add, drain, elect, reassign, remove};
pub(crate) use controller::{Controller, LOOK, SILENT, decides};
pub(crate) use status::{ClusterStatus, FollowerStatus, NodeStatus, PartitionStatus, status};
