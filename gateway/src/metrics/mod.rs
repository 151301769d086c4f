//! Every metric of the program, by door; Prometheus names with the `forebay_` prefix, base units, `_total` on counters.

use prometheus_client::registry::Registry;

/// All metrics and the registry that `/metrics` prints. Each part of the program has a file and a field here.
pub struct Metrics {
    pub registry: Registry,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics { registry: Registry::with_prefix("forebay") }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
