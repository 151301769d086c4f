//! Tests of the door from outside: hostile bytes, and clients on their connections.

mod cold;
mod consumer_groups;
mod door;
mod fuzz;
mod groups;
mod offsets;

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_disk::Log;
use tokio_util::sync::CancellationToken;

use super::{Groups, KafkaDoor, MAX_CONNECTIONS, Shared};
use crate::config::{Config, Sources};
use crate::metrics::Metrics;
use crate::reader::Reader;

/// A door on a log that tells clients to connect to `address`.
fn door(log: Log, reader: Reader, address: SocketAddr) -> Arc<KafkaDoor> {
    let metrics = Arc::new(Metrics::new());
    Arc::new(KafkaDoor {
        log,
        reader,
        config: Arc::new(Config::load(&Sources::default()).unwrap()),
        groups: Arc::new(Groups::new(metrics.clone())),
        metrics,
        advertised: (address.ip().to_string(), address.port()),
        max_connections: MAX_CONNECTIONS,
    })
}

/// What the connections of a door share, without any.
pub(super) fn shared(log: Log, reader: Reader) -> Shared {
    Shared::new(door(log, reader, ([127, 0, 0, 1], 0).into()), CancellationToken::new())
}
