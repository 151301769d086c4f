//! What reaches a node that cannot do it goes to the partition's leader: appends, which it answers when they are durable, and
//! reads of partitions that have no replica here.

mod claimed;
mod fence;
mod outbox;
mod read;
mod receiver;
mod sender;
mod wire;

pub(crate) use claimed::Claimed;
pub(crate) use fence::Fence;
pub(crate) use read::{Read, SUCCEEDED};
pub(crate) use receiver::Receiver;
pub(crate) use sender::{Append, Connected, Forwarder, Remote};
