//! Every metric of the program, by door; Prometheus names with the `forebay_` prefix, base units, `_total` on counters.

mod alerts;
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

use forebay_disk::Log;
use prometheus_client::registry::Registry;

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
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("forebay");
        let alerts = AlertMetrics::new(&mut registry);
        let http = HttpMetrics::new(&mut registry);
        let kafka = KafkaMetrics::new(&mut registry);
        let mqtt = MqttMetrics::new(&mut registry);
        let lake = LakeMetrics::new(&mut registry);
        Metrics { registry, alerts, http, kafka, lake, mqtt }
    }

    /// The metrics of a node: those of the program, of its log and of the process.
    pub fn of_node(log: &Log) -> Arc<Metrics> {
        let mut metrics = Metrics::new();
        metrics.registry.register_collector(Box::new(log::LogCollector::new(log.clone())));
        metrics.registry.register_collector(Box::new(process::ProcessCollector::new()));
        Arc::new(metrics)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
