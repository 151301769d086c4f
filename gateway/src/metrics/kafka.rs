//! Metrics of the Kafka door.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Which API a request was of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    api: &'static str,
}

/// Which groups: their protocol and Kafka's name of their state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    r#type: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

/// What the Kafka door counts.
pub struct KafkaMetrics {
    pub connections: Gauge,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// Connections closed for what they sent, or because there were too many.
    pub refused: Counter,
    /// Logins and TLS handshakes that failed.
    pub authentication_failures: Counter,
    /// Questions that the ACLs denied.
    pub authorizations_denied: Counter,
    duration: Family<ApiLabel, Histogram, fn() -> Histogram>,
    groups: Family<GroupLabel, Gauge>,
    rebalances: Family<TypeLabel, Counter>,
}

impl KafkaMetrics {
    pub(super) fn new(registry: &mut Registry) -> KafkaMetrics {
        let duration = Family::new_with_constructor(new_histogram as fn() -> Histogram);
        let metrics = KafkaMetrics {
            connections: Gauge::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            refused: Counter::default(),
            authentication_failures: Counter::default(),
            authorizations_denied: Counter::default(),
            duration,
            groups: Family::default(),
            rebalances: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("kafka");
        registry.register("connections", "Open Kafka connections", metrics.connections.clone());
        registry.register_with_unit("received", "Kafka requests", Unit::Bytes, metrics.received_bytes.clone());
        registry.register_with_unit("sent", "Kafka responses", Unit::Bytes, metrics.sent_bytes.clone());
        registry.register("connections_refused", "Kafka connections closed by the node", metrics.refused.clone());
        let help = "Logins and TLS handshakes on the Kafka port that failed";
        registry.register("authentication_failures", help, metrics.authentication_failures.clone());
        let help = "Operations that the ACLs denied to a Kafka client";
        registry.register("authorizations_denied", help, metrics.authorizations_denied.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a whole Kafka request to its answer, long polls included",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("groups", "Consumer groups by protocol and state", metrics.groups.clone());
        registry.register(
            "group_rebalances",
            "Times that partitions were shared out anew among the members of a consumer group",
            metrics.rebalances.clone(),
        );
        metrics
    }

    /// How many groups there are of a protocol in a state.
    pub fn groups(&self, kind: &'static str, state: &'static str) -> Gauge {
        self.groups.get_or_create(&GroupLabel { r#type: kind, state }).clone()
    }

    /// Counts rebalances.
    pub fn rebalanced(&self, kind: &'static str, times: u64) {
        self.rebalances.get_or_create(&TypeLabel { r#type: kind }).inc_by(times);
    }

    /// Counts one answered request.
    pub fn answered(&self, api: &'static str, took: Duration) {
        self.duration.get_or_create(&ApiLabel { api }).observe(took.as_secs_f64());
    }
}

/// Buckets from 0.1 ms to 26 s.
fn new_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}
