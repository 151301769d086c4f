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

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use forebay_cluster::{Cluster, Files, LocalLog, Log, LogOptions, Options};
use forebay_log::NodeId;
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
        groups: Arc::new(Groups::new(metrics.clone(), &config)),
        metrics,
        security: Arc::new(Security::new(log.clone(), Arc::clone(&config))),
        tls: None,
        log,
        config,
        max_connections: MAX_CONNECTIONS,
    })
}

/// The log of a cluster of one node, which clients reach at `kafka`.
pub(super) async fn clustered(files: Arc<dyn Files>, fsync: bool, kafka: SocketAddr) -> Log {
    let options = LogOptions { shards: 1, fsync, alone: false };
    let local = LocalLog::open_as(1, Arc::clone(&files), options).unwrap();
    let addresses = BTreeMap::from([("kafka".to_owned(), kafka.to_string())]);
    let options = Options { addresses, ..Options::alone(NodeId(1)) };
    let cluster = Cluster::start(options, files, local.clone()).await.unwrap();
    cluster.standing().wait_for(|standing| standing.active).await.unwrap();
    Log::of_cluster(local, cluster, 1)
}

/// Who says nothing about itself.
pub(super) fn anybody(shared: &Arc<Shared>) -> Arc<Session> {
    Arc::new(Session::new(shared, ([127, 0, 0, 1], 9).into(), None))
}

/// What the connections of a door share, without any.
pub(super) fn shared(log: Log, reader: Reader) -> Shared {
    Shared::new(door(log, reader, ([127, 0, 0, 1], 0).into()), CancellationToken::new())
}
