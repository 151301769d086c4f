//! The controller: decides how the cluster's metadata changes, as a pure state machine.

mod refusal;
mod request;

pub use refusal::Refusal;
pub use request::{
    AlterPartition, Assignment, CreateTopic, Elected, ElectionType, HeartbeatReply, IsrMember, Reassign, Register,
    Reply, Request, SettingChange,
};
