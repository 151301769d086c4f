//! The links between nodes: requests and answers over one TCP connection, plain or mutual TLS, for each pair of nodes
//! and lane.
//!
//! ```text
//! client                                     server
//! hello {protocol min..max, cluster id, node, incarnation, directory, node meant, lane, kinds}  ->
//!        <- welcome {accepted or refused with code and text, protocol, cluster id, node, .., kinds}
//! frame  {u32 length, u8 type, u16 kind, u16 version, u64 correlation, body}  <->
//! ```
//!
//! The side that needs something dials: [`Links`] keeps a connection to each peer that is set, [`Server`] answers with
//! a [`Service`]. A link carries requests one way only. Both sides say which kinds of messages they speak in which
//! versions, so that each sends what the other understands, from one release to the next.
//!
//! A link that is silent is noticed by pings, a process that is gone by its socket ([`PeerState`]). What is not read is
//! not answered: a server that handles as much as it may stops reading, and says by pongs that it lives.

mod body;
mod budget;
mod counters;
mod dial;
mod error;
mod frame;
mod greet;
mod hello;
mod identity;
mod kinds;
pub mod limits;
mod line;
mod links;
mod live;
mod reading;
mod reports;
mod server;
mod service;
mod serving;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod writing;

pub use body::Body;
pub use counters::{Counters, PeerCounters};
pub use error::{LinkError, Refusal, RefusalCode, ServiceError};
pub use identity::{Admission, Identity, Lane, Local, NodeId, Peer};
pub use kinds::{Kinds, Versions};
pub use limits::Options;
pub use links::Links;
pub use live::{Link, Pending};
pub(crate) use reports::Reports;
pub use server::Server;
pub use service::{Answer, Begun, BoxFuture, Request, Rest, Service};
pub use state::PeerState;
