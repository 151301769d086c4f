//! Every metric of the program, by door; Prometheus names with the `forebay_` prefix, base units, `_total` on counters.

mod alerts;
mod kafka;

use prometheus_client::registry::Registry;

pub use alerts::AlertMetrics;
pub use kafka::KafkaMetrics;

/// All metrics and the registry that `/metrics` prints. Each part of the program has a file and a field here.
pub struct Metrics {
    pub registry: Registry,
    pub alerts: AlertMetrics,
    pub kafka: KafkaMetrics,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("forebay");
        let alerts = AlertMetrics::new(&mut registry);
        let kafka = KafkaMetrics::new(&mut registry);
        Metrics { registry, alerts, kafka }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
