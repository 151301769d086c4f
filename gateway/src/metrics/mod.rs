//! Every metric of the program, by door; Prometheus names with the `forebay_` prefix, base units, `_total` on counters.

mod kafka;
mod lake;

use prometheus_client::registry::Registry;

pub use kafka::KafkaMetrics;
pub use lake::LakeMetrics;

/// All metrics and the registry that `/metrics` prints. Each part of the program has a file and a field here.
pub struct Metrics {
    pub registry: Registry,
    pub kafka: KafkaMetrics,
    pub lake: LakeMetrics,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("forebay");
        let kafka = KafkaMetrics::new(&mut registry);
        let lake = LakeMetrics::new(&mut registry);
        Metrics { registry, kafka, lake }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
