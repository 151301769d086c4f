//! Metrics of the MQTT doors.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QosLabel {
    qos: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    /// The v5 reason code, in hexadecimal.
    reason: String,
}

/// What the MQTT doors count.
pub struct MqttMetrics {
    pub connections: Gauge,
    /// Sessions, connected or not.
    pub sessions: Gauge,
    pub subscriptions: Gauge,
    pub retained: Gauge,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// PUBACK and PUBREC with success.
    pub acks: Counter,
    pub deliveries: Counter,
    /// QoS 0 messages that a slow subscriber did not get.
    pub deliveries_dropped: Counter,
    /// Damaged stretches of the log that subscribers were taken past.
    pub delivery_gaps: Counter,
    /// Times that new subscriptions got retained messages that may be older than on other nodes.
    pub retained_unsure: Counter,
    /// From the read of a publish to the moment its append is settled.
    pub ack_duration: Histogram,
    published: [Counter; 3],
    refused: Family<ReasonLabel, Counter>,
    disconnected: Family<ReasonLabel, Counter>,
}

impl MqttMetrics {
    pub(super) fn new(registry: &mut Registry) -> MqttMetrics {
        let by_qos: Family<QosLabel, Counter> = Family::default();
        let metrics = MqttMetrics {
            connections: Gauge::default(),
            sessions: Gauge::default(),
            subscriptions: Gauge::default(),
            retained: Gauge::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            acks: Counter::default(),
            deliveries: Counter::default(),
            deliveries_dropped: Counter::default(),
            delivery_gaps: Counter::default(),
            retained_unsure: Counter::default(),
            ack_duration: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            published: ["0", "1", "2"].map(|qos| by_qos.get_or_create(&QosLabel { qos }).clone()),
            refused: Family::default(),
            disconnected: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("mqtt");
        registry.register("connections", "Open MQTT connections", metrics.connections.clone());
        registry.register("sessions", "MQTT sessions, connected or not", metrics.sessions.clone());
        registry.register("subscriptions", "Subscriptions of connected sessions", metrics.subscriptions.clone());
        registry.register("retained_messages", "Retained messages", metrics.retained.clone());
        registry.register_with_unit("received", "Bytes from MQTT clients", Unit::Bytes, metrics.received_bytes.clone());
        registry.register_with_unit("sent", "Bytes to MQTT clients", Unit::Bytes, metrics.sent_bytes.clone());
        registry.register("publishes", "PUBLISH packets from clients", by_qos);
        registry.register("acks", "Publishes acknowledged to clients", metrics.acks.clone());
        registry.register("publishes_refused", "Publishes not stored, by reason code", metrics.refused.clone());
        registry.register(
            "disconnects",
            "Connections closed by the node, by reason code",
            metrics.disconnected.clone(),
        );
        registry.register("deliveries", "PUBLISH packets to subscribers", metrics.deliveries.clone());
        registry.register(
            "deliveries_dropped",
            "QoS 0 messages that a slow subscriber did not get",
            metrics.deliveries_dropped.clone(),
        );
        registry.register(
            "delivery_gaps",
            "Damaged stretches of the log that subscribers were taken past",
            metrics.delivery_gaps.clone(),
        );
        registry.register(
            "retained_unsure",
            "Times that new subscriptions got retained messages that may be older than on other nodes",
            metrics.retained_unsure.clone(),
        );
        registry.register_with_unit(
            "ack_duration",
            "Time from the read of a publish until it was durable or refused",
            Unit::Seconds,
            metrics.ack_duration.clone(),
        );
        metrics
    }

    /// Counts a PUBLISH of QoS 0, 1 or 2.
    pub fn published(&self, qos: u8) {
        if let Some(counter) = self.published.get(usize::from(qos)) {
            counter.inc();
        }
    }

    /// Counts a publish that was not stored.
    pub fn refused(&self, reason: u8) {
        self.refused.get_or_create(&reason_label(reason)).inc();
    }

    /// Counts a connection that the node refused or closed.
    pub fn disconnected(&self, reason: u8) {
        self.disconnected.get_or_create(&reason_label(reason)).inc();
    }

    /// Notes when appends that were read `took` ago are settled.
    pub fn settled(&self, took: Duration) {
        self.ack_duration.observe(took.as_secs_f64());
    }
}

fn reason_label(reason: u8) -> ReasonLabel {
    ReasonLabel { reason: format!("0x{reason:02x}") }
}
