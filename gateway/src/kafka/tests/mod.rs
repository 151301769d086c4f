//! Tests of the door from outside: hostile bytes, and clients on their connections.

mod acls;
mod admin;
mod cold;
mod compaction;
mod consumer_groups;
mod denied;
mod door;
mod fuzz;
mod fuzz_admin;
mod groups;
mod leadership;
mod login;
mod offsets;
mod quotas;
mod secured;

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_cluster::Log;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::{Groups, KafkaDoor, MAX_CONNECTIONS, Shared};
use crate::config::{Config, Sources};
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::security::Security;

/// A door on a log that tells clients to connect to `address`.
fn door(log: Log, reader: Reader, address: SocketAddr) -> Arc<KafkaDoor> {
    let config = Arc::new(Config::load(&Sources::default()).unwrap());
    let metrics = Arc::new(Metrics::new());
    log.advertise(address.ip().to_string(), address.port());
    Arc::new(KafkaDoor {
        reader,
        groups: Arc::new(Groups::new(metrics.clone(), config.kafka.groups)),
        metrics,
        security: Arc::new(Security::new(log.clone(), Arc::clone(&config))),
        tls: None,
        log,
        config,
        max_connections: MAX_CONNECTIONS,
    })
}

/// Who says nothing about itself.
pub(super) fn anybody(shared: &Arc<Shared>) -> Arc<Session> {
    Arc::new(Session::new(shared, ([127, 0, 0, 1], 9).into(), None))
}

/// What the connections of a door share, without any.
pub(super) fn shared(log: Log, reader: Reader) -> Shared {
    Shared::new(door(log, reader, ([127, 0, 0, 1], 0).into()), CancellationToken::new())
}
