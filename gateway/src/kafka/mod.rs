//! The Kafka door: framing, negotiation, and one file for each API that is served.

mod acl_codes;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_user_scram_credentials;
mod api;
mod api_versions;
mod authentication;
mod brokers;
mod connection;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod controller;
mod controller_codes;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_user_scram_credentials;
mod dispatch;
mod elect_leaders;
mod errors;
mod fetch;
mod fetch_cold;
mod fetch_compacted;
mod fetch_replica;
mod fetch_response;
mod fetch_session;
mod fetch_targets;
mod find_coordinator;
pub(crate) mod groups;
mod guard;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leadership;
mod leave_group;
mod limits;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod producer_ids;
mod quotas;
mod request;
mod sasl_authenticate;
mod sasl_handshake;
mod session;
mod sync_group;
#[cfg(test)]
mod tests;
mod tls;
mod topic_configs;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_cluster::Log;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::security::Security;

use authentication::Login;
use fetch_session::FetchSessions;
pub use groups::Groups;
pub(crate) use groups::Overview;
#[cfg(test)]
pub(crate) use groups::partition_of;
pub(crate) use limits::MAX_CONNECTIONS;
use limits::{
    COLD_FETCH_MEMORY, DRAIN_TIMEOUT, FETCH_MEMORY, LOG_LINES, MAX_TLS_HANDSHAKES, MEMORY_UNIT, REQUEST_MEMORY,
    SMALL_REQUEST_MEMORY,
};
use producer_ids::ProducerIds;
use quotas::Quotas;
pub(crate) use quotas::legacy_quota;
use topics::TopicIds;

/// What every request handler may use.
pub struct KafkaDoor {
    pub log: Log,
    pub reader: Reader,
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub security: Arc<Security>,
    /// Where the door speaks TLS; replaced on SIGHUP.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// Connections at once.
    pub max_connections: usize,
    pub groups: Arc<Groups>,
}

/// The door and what its connections share while it is open.
struct Shared {
    door: Arc<KafkaDoor>,
    topic_ids: TopicIds,
    groups: Arc<Groups>,
    fetch_sessions: FetchSessions,
    quotas: Arc<Quotas>,
    producer_ids: ProducerIds,
    /// In units of [`MEMORY_UNIT`] bytes.
    request_memory: Arc<Semaphore>,
    small_request_memory: Arc<Semaphore>,
    fetch_memory: Arc<Semaphore>,
    cold_fetch_memory: Arc<Semaphore>,
    /// TLS handshakes at once.
    handshakes: Semaphore,
    shutdown: CancellationToken,
}

impl Shared {
    fn new(door: Arc<KafkaDoor>, shutdown: CancellationToken) -> Shared {
        Shared {
            topic_ids: TopicIds::new(),
            groups: Arc::clone(&door.groups),
            door,
            fetch_sessions: FetchSessions::default(),
            quotas: Arc::default(),
            producer_ids: ProducerIds::default(),
            request_memory: Arc::new(Semaphore::new(REQUEST_MEMORY / MEMORY_UNIT)),
            small_request_memory: Arc::new(Semaphore::new(SMALL_REQUEST_MEMORY / MEMORY_UNIT)),
            fetch_memory: Arc::new(Semaphore::new(FETCH_MEMORY / MEMORY_UNIT)),
            cold_fetch_memory: Arc::new(Semaphore::new(COLD_FETCH_MEMORY / MEMORY_UNIT)),
            handshakes: Semaphore::new(MAX_TLS_HANDSHAKES),
            shutdown,
        }
    }

    fn node_id(&self) -> i32 {
        self.door.log.node_id().0
    }
}

static REFUSED: LogLimit = LogLimit::new(LOG_LINES);
static ACCEPT_FAILED: LogLimit = LogLimit::new(LOG_LINES);

/// Accepts Kafka connections until shutdown; then requests in flight are answered.
pub async fn serve(door: Arc<KafkaDoor>, listener: TcpListener, shutdown: CancellationToken) {
    let shared = Arc::new(Shared::new(door, shutdown));
    let (quotas, end) = (shared.quotas.follow(&shared.door.log), shared.shutdown.clone());
    tokio::spawn(async move { end.run_until_cancelled(quotas).await });
    let metrics = &shared.door.metrics.kafka;
    let coordinators = Arc::clone(&shared);
    tokio::spawn(
        async move { coordinators.groups.follow(&coordinators.door.log, coordinators.shutdown.clone()).await },
    );
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => {
                metrics.connections.set(connections.len() as i64);
                continue;
            }
            () = shared.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((_, peer)) if connections.len() >= shared.door.max_connections => {
                metrics.refused.inc();
                if let Some(suppressed) = REFUSED.admit() {
                    tracing::warn!(%peer, limit = shared.door.max_connections, suppressed, "too many Kafka connections");
                }
            }
            Ok((stream, peer)) => {
                // Answers are small and awaited: they must not wait for more to come.
                let _ = stream.set_nodelay(true);
                match &shared.door.tls {
                    None => {
                        let (reader, writer) = stream.into_split();
                        let login = Login::new(&shared, peer, None);
                        connections.spawn(connection::run(Arc::clone(&shared), reader, writer, peer, login));
                    }
                    Some(tls) => drop(connections.spawn(tls::run(Arc::clone(&shared), tls.load_full(), stream, peer))),
                }
                metrics.connections.set(connections.len() as i64);
            }
            Err(error) => {
                shared.door.metrics.accept_failed("kafka");
                if let Some(suppressed) = ACCEPT_FAILED.admit() {
                    tracing::warn!(%error, suppressed, "accepting a Kafka connection failed");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
    metrics.connections.set(0);
}
