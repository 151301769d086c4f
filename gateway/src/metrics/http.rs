//! Metrics of the HTTP door.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The route's pattern, not the path: as many as there are routes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    code: u16,
}

/// What the HTTP door counts.
pub struct HttpMetrics {
    pub connections: Gauge,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
}

impl HttpMetrics {
    pub(super) fn new(registry: &mut Registry) -> HttpMetrics {
        let metrics = HttpMetrics {
            connections: Gauge::default(),
            requests: Family::default(),
            // 0.5 ms to 8 s
            duration: Histogram::new(exponential_buckets(0.0005, 4.0, 8)),
        };
        let registry = registry.sub_registry_with_prefix("http");
        registry.register("connections", "Open HTTP connections", metrics.connections.clone());
        registry.register("requests", "Answered HTTP requests by route and status code", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        metrics
    }

    /// Counts one answered request.
    pub fn answered(&self, route: &str, code: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), code }).inc();
        self.duration.observe(took.as_secs_f64());
    }
}
