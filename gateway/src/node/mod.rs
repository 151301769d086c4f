//! One node: opens the log, starts every service and door in order, and drains them in reverse.

mod bind;
#[cfg(test)]
mod cluster_mqtt_tests;
#[cfg(test)]
mod cluster_tests;
pub(crate) mod descriptors;
#[cfg(test)]
mod growth_tests;
mod health;
mod member;
#[cfg(test)]
mod operation_tests;
mod ready;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod three_tests;
pub mod tls;
mod topics;
#[cfg(test)]
pub(crate) mod trio_tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use forebay_cluster::{Files, LocalLog, Log, LogOptions, RealFiles};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alerts::Alerts;
use crate::cluster::{self, Controller};
use crate::cluster_tls::LinkTls;
use crate::config::{Config, SaslMechanism, SecurityProtocol};
use crate::http;
use crate::ingest::Router;
use crate::kafka::{self, Groups, KafkaDoor};
use crate::lake::Lake;
use crate::metrics::Metrics;
use crate::mqtt::{self, Broker};
use crate::quic::QuicListener;
use crate::reader::Reader;
use crate::security::Security;
use crate::settings;

use bind::Bound;

/// How long connections may take to finish what is in flight when the node drains.
const DOORS_DRAIN: Duration = Duration::from_secs(5);

/// How long other nodes may take to lead what this one leads when it drains.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How long the services behind the doors may take to save their last state.
const SERVICES_END: Duration = Duration::from_secs(2);

/// Everything a running node shares.
pub struct Gateway {
    pub config: Arc<Config>,
    pub log: Log,
    pub reader: Reader,
    pub router: Arc<Router>,
    pub lake: Option<Arc<Lake>>,
    pub broker: Arc<Broker>,
    pub alerts: Arc<Alerts>,
    pub metrics: Arc<Metrics>,
    pub groups: Arc<Groups>,
    pub(crate) controller: Controller,
    pub addresses: Addresses,
    pub started: Instant,
    /// Cancelled when the node begins to drain.
    pub shutdown: CancellationToken,
}

/// Where the listeners are bound.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub mqtt: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
    pub ws: Option<SocketAddr>,
    pub wss: Option<SocketAddr>,
    pub quic: Option<SocketAddr>,
    pub kafka: Option<SocketAddr>,
    pub cluster: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    pub gateway: Arc<Gateway>,
    /// The doors for data: they go first.
    doors: JoinSet<()>,
    /// The HTTP door stays open while the others drain, to answer `/readyz`.
    http: JoinSet<()>,
    /// Ends the services behind the doors.
    services: CancellationToken,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    kafka_tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    link_tls: Option<LinkTls>,
    security: Arc<Security>,
    quic: Option<Arc<QuicListener>>,
}

/// Opens and locks the data directory of the configuration.
///
/// # Errors
/// It cannot be made or written, or another process has it.
pub fn open_data_dir(config: &Config) -> anyhow::Result<Arc<dyn Files>> {
    let path = &config.node.data_dir;
    let files = RealFiles::open(path)
        .with_context(|| format!("cannot use the data directory {} (node.data_dir, --data-dir)", path.display()))?;
    Ok(files)
}

impl Node {
    /// Starts a node on `files` (its data directory). Returns once every listener accepts.
    ///
    /// # Errors
    /// What cannot be bound, opened or loaded, and what to do about it.
    pub async fn start(mut config: Config, files: Arc<dyn Files>) -> anyhow::Result<Node> {
        let started = Instant::now();
        let shares = descriptors::share(descriptors::raise(&config), &config);
        config.mqtt.max_connections = shares.mqtt;
        let config = Arc::new(config);
        let bound = Bound::bind(&config)?;
        let addresses = bound.addresses();
        let router = Router::new(&config.routes).context("a route cannot work")?;
        let (doors_end, services) = (CancellationToken::new(), CancellationToken::new());

        // Answers /healthz from here on; everything else once the node is assembled.
        let mut http = JoinSet::new();
        let front = http::Front::new();
        if let Some(listener) = bound.http {
            http.spawn(http::serve(front.clone(), listener, shares.http, services.clone()));
        }

        let certificates = config.clone();
        let tls = tokio::task::spawn_blocking(move || tls::load(&certificates));
        let certificates = config.cluster.tls.clone();
        let link_tls = tokio::task::spawn_blocking(move || certificates.as_ref().map(LinkTls::load).transpose());
        let options = LogOptions { shards: shards(), fsync: config.durability.fsync, alone: false };
        let (node_id, opened) = (config.node.id, Arc::clone(&files));
        let local = tokio::task::spawn_blocking(move || LocalLog::open_as(node_id, opened, options))
            .await?
            .with_context(|| format!("cannot open the log in {}", config.node.data_dir.display()))?;
        let link_tls = link_tls.await??;
        let log = member::join(&config, &addresses, bound.cluster, link_tls.clone(), files, local).await?;
        topics::create_at_start(&log, &config).await?;

        settings::take_over(&log).await.context("what users, ACLs and quotas were set before")?;
        let security = Arc::new(Security::new(log.clone(), config.clone()));
        if bound.kafka.is_some() {
            security.start().await.context("listeners.kafka")?;
        }
        let metrics = Metrics::of_node(&log, services.clone());
        let lake = Lake::start(log.clone(), config.clone(), metrics.clone(), services.clone()).await?;
        let lake = Some(lake);
        let reader = Reader::new(lake.clone());
        let router = Arc::new(router);
        let broker = Broker::start(
            log.clone(),
            reader.clone(),
            router.clone(),
            config.clone(),
            metrics.clone(),
            services.clone(),
        )
        .await?;
        let alerts = Alerts::start(
            log.clone(),
            reader.clone(),
            broker.clone(),
            config.clone(),
            metrics.clone(),
            services.clone(),
        )
        .await?;
        let groups = Arc::new(Groups::new(metrics.clone(), &config));
        let gateway = Arc::new(Gateway {
            config: config.clone(),
            log: log.clone(),
            reader: reader.clone(),
            router,
            lake,
            broker: broker.clone(),
            alerts,
            metrics: metrics.clone(),
            groups: groups.clone(),
            controller: Controller::follow(log.cluster(), cluster::LOOK, services.clone()),
            addresses: addresses.clone(),
            started,
            shutdown: doors_end.clone(),
        });

        let tls = tls.await??;
        let mut doors = JoinSet::new();
        if let Some(listener) = bound.mqtt {
            doors.spawn(mqtt::serve(broker.clone(), listener, None, doors_end.clone()));
        }
        let kafka_tls = tls.kafka.map(|config| Arc::new(ArcSwap::from_pointee(config)));
        let tcp_tls = tls.tcp.map(|config| Arc::new(ArcSwap::from_pointee(config)));
        if let (Some(listener), Some(tls)) = (bound.mqtts, &tcp_tls) {
            doors.spawn(mqtt::serve(broker.clone(), listener, Some(tls.clone()), doors_end.clone()));
        }
        let mut quic = None;
        if let Some(socket) = bound.quic {
            let listener = Arc::new(QuicListener::new(socket, tls.quic).context("listeners.quic")?);
            let (serving, broker, end) = (listener.clone(), broker.clone(), doors_end.clone());
            doors.spawn(async move { serving.serve(broker, end).await });
            quic = Some(listener);
        }
        if let (Some(listener), Some(address)) = (bound.kafka, addresses.kafka) {
            if !address.ip().is_loopback() && config.node.advertised_host == "127.0.0.1" {
                tracing::warn!(
                    "Kafka clients on other machines are told to connect to 127.0.0.1; set node.advertised_host"
                );
            }
            let kafka = &config.kafka;
            let bare = kafka.security_protocol == SecurityProtocol::SaslPlaintext;
            if !address.ip().is_loopback() && bare && kafka.sasl_enabled_mechanisms.contains(&SaslMechanism::Plain) {
                tracing::warn!(
                    "passwords of Kafka clients cross the network unencrypted; use SASL_SSL, or SCRAM alone"
                );
            }
            log.advertise(config.node.advertised_host.clone(), address.port());
            let max_connections = shares.kafka;
            let (security, tls) = (security.clone(), kafka_tls.clone());
            let door = KafkaDoor { log, reader, config, metrics, security, tls, max_connections, groups };
            doors.spawn(kafka::serve(Arc::new(door), listener, doors_end));
        }
        tokio::spawn(topics::keep(gateway.log.clone(), gateway.config.clone(), gateway.shutdown.clone()));
        front.open(gateway.clone());
        tracing::info!(took = ?started.elapsed(), "every listener accepts");
        Ok(Node { gateway, doors, http, services, tls: tcp_tls, kafka_tls, link_tls, security, quic })
    }

    /// Reads rules, certificates and the password files of `[users]` again; what is wrong is logged and the old ones stay.
    pub async fn reload(&self) {
        match self.gateway.alerts.reload(false).await {
            Ok(()) => tracing::info!("rules reloaded"),
            Err(error) => tracing::error!("rules not reloaded, the old ones stay: {error:#}"),
        }
        match self.reload_certificates().await {
            Ok(()) => tracing::info!("certificates reloaded"),
            Err(error) => tracing::error!("certificates not reloaded, the old ones stay: {error:#}"),
        }
        if let Err(error) = self.security.reload().await {
            tracing::error!("passwords not reloaded, the old ones stay: {error:#}");
        }
    }

    async fn reload_certificates(&self) -> anyhow::Result<()> {
        let config = self.gateway.config.clone();
        let links = self.link_tls.clone();
        let fresh = tokio::task::spawn_blocking(move || {
            if let (Some(links), Some(files)) = (&links, &config.cluster.tls) {
                links.reload(files)?;
            }
            tls::load(&config)
        });
        let fresh = fresh.await??;
        if let Some(quic) = &self.quic {
            quic.set_tls(fresh.quic)?;
        }
        if let (Some(current), Some(fresh)) = (&self.tls, fresh.tcp) {
            current.store(Arc::new(fresh));
        }
        if let (Some(current), Some(fresh)) = (&self.kafka_tls, fresh.kafka) {
            current.store(Arc::new(fresh));
        }
        Ok(())
    }

    /// No new connections, acks in flight finished, everything flushed; at most 10 s.
    pub async fn drain(mut self) {
        self.gateway.shutdown.cancel();
        let emptied = async { while self.doors.join_next().await.is_some() {} };
        if tokio::time::timeout(DOORS_DRAIN, emptied).await.is_err() {
            tracing::warn!("some connections did not drain within {DOORS_DRAIN:?} and are closed");
        }
        self.doors.abort_all();
        self.services.cancel();
        let ended = async {
            self.gateway.alerts.stopped().await;
            while self.http.join_next().await.is_some() {}
        };
        if tokio::time::timeout(SERVICES_END, ended).await.is_err() {
            tracing::warn!("a service did not end within {SERVICES_END:?}; it goes on from its last saved state");
        }
        self.http.abort_all();
        let log = self.gateway.log.clone();
        if let Some(cluster) = log.cluster() {
            cluster.shutdown(HAND_OVER).await;
        }
        if tokio::task::spawn_blocking(move || log.shutdown()).await.is_err() {
            tracing::error!("the log did not shut down cleanly; it recovers at the next start");
        }
    }
}

/// Threads that own partitions: one for each core, within reason.
fn shards() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 16))
}
