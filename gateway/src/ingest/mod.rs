//! From a published message to a durable record: route, gather by partition, append.

mod filter;
mod gather;
mod json_pointer;
mod publish;
mod router;

pub use gather::{Gather, Tickets};
pub use publish::Publish;
pub use router::{DEFAULT_TOPIC, RouteError, Routed, Router};
