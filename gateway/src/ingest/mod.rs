//! From a published message to a durable record: route, gather by partition, append.

mod filter;
mod gather;
mod json_pointer;
mod router;

pub use gather::{Gather, Publish, Tickets};
pub use router::{DEFAULT_TOPIC, RouteError, Routed, Router};
