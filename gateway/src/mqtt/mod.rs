//! The MQTT doors: codec, sessions, delivery to subscribers, and the connection loop that TCP, TLS and QUIC share.

mod broker;
pub mod codec;
pub mod connection;
mod delivery;
mod held;
mod intents;
mod keeping;
mod limits;
mod listener;
mod orphans;
mod ownership;
pub mod packet;
mod reason;
mod record;
mod registry;
mod retained;
mod session;
mod taking;
#[cfg(test)]
mod tests;
pub mod topic;

pub use broker::{Broker, ClientInfo};
pub(crate) use broker::{RETAINED_TOPIC, SESSIONS_TOPIC};
pub use listener::serve;
