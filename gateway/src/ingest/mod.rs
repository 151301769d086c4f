//! From a published message to a durable record: route, gather by partition, append.

mod gather;
mod router;

pub use gather::{Gather, Publish, Tickets};
pub use router::{DEFAULT_TOPIC, RouteError, Routed, Router};
