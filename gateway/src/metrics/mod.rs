//! Every metric of the program, by door; Prometheus names with the `forebay_` prefix, base units, `_total` on counters.

mod alerts;
mod cluster;
mod exposition;
mod http;
mod kafka;
mod lake;
pub mod live;
mod log;
mod mqtt;
mod process;
mod quantile;

use std::sync::Arc;

use forebay_cluster::Log;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use alerts::AlertMetrics;
pub use exposition::{Format, render};
pub use http::HttpMetrics;
pub use kafka::KafkaMetrics;
pub use lake::LakeMetrics;
pub use mqtt::MqttMetrics;

/// All metrics and the registry that `/metrics` prints. Each part of the program has a file and a field here.
pub struct Metrics {
    pub registry: Registry,
    pub alerts: AlertMetrics,
    pub http: HttpMetrics,
    pub kafka: KafkaMetrics,
    pub mqtt: MqttMetrics,
    pub lake: LakeMetrics,
    accept_failures: Family<DoorLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabel {
    door: &'static str,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("forebay");
        let alerts = AlertMetrics::new(&mut registry);
        let http = HttpMetrics::new(&mut registry);
        let kafka = KafkaMetrics::new(&mut registry);
        let mqtt = MqttMetrics::new(&mut registry);
        let lake = LakeMetrics::new(&mut registry);
        let accept_failures: Family<DoorLabel, Counter> = Family::default();
        for door in ["http", "kafka", "mqtt"] {
            accept_failures.get_or_create(&DoorLabel { door }).inc_by(0);
        }
        let help = "Connections that could not be accepted, mostly for want of file descriptors";
        registry.register("accept_failures", help, accept_failures.clone());
        Metrics { registry, alerts, http, kafka, lake, mqtt, accept_failures }
    }

    /// Counts a connection that a door ("http", "kafka", "mqtt") could not accept.
    pub fn accept_failed(&self, door: &'static str) {
        self.accept_failures.get_or_create(&DoorLabel { door }).inc();
    }

    /// The metrics of a node: those of the program, of its log, of its cluster and of the process. Until `shutdown` it is looked up
    /// now and then how far followers are behind.
    pub fn of_node(log: &Log, shutdown: CancellationToken) -> Arc<Metrics> {
        let mut metrics = Metrics::new();
        metrics.registry.register_collector(Box::new(log::LogCollector::new(log.clone())));
        let lag = cluster::Lag::default();
        if let Some(part) = log.cluster() {
            tokio::spawn(cluster::follow_lag(part.clone(), Arc::clone(&lag), shutdown));
        }
        metrics.registry.register_collector(Box::new(cluster::ClusterCollector::new(log.clone(), lag)));
        metrics.registry.register_collector(Box::new(process::ProcessCollector::new()));
        Arc::new(metrics)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
