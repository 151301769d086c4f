//! Appends that reach a node which does not lead their partition go to the one that does, which answers when they are durable.

mod receiver;
mod sender;
mod wire;

pub(crate) use receiver::Receiver;
pub(crate) use sender::{Append, Connected, Forwarder, Remote};
