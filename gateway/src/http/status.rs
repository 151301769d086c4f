//! `/api/v1/status` and `/api/v1/clients`: the node at one glance, for the console and for scripts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::front::{Front, Opened};
use super::limits::{MAX_CLIENTS, MAX_STATUS_ALERTS};
use super::topics;

pub(super) async fn status(State(front): State<Arc<Front>>, Opened(gateway): Opened) -> Json<Value> {
    let node = gateway.config.node.id;
    let all = gateway.log.topics();
    let reasons = gateway.not_ready();
    let active = gateway.alerts.active();
    let count = |state: &str| active.iter().filter(|alert| alert.0["state"] == state).count();
    let addresses = gateway.addresses.list().into_iter();
    let listeners: Map<String, Value> = addresses.map(|(name, at)| (name.to_owned(), at.to_string().into())).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": node,
        "cluster_id": gateway.log.cluster_id(),
        "uptime_seconds": gateway.started.elapsed().as_secs_f64(),
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "problems": gateway.problems(),
        "listeners": listeners,
        "rates": front.rates(),
        "connections": {
            "mqtt": gateway.broker.connected(),
            "kafka": gateway.metrics.kafka.connections.get(),
            "http": gateway.metrics.http.connections.get(),
        },
        "disk_full": gateway.log.disk_full(),
        "topics": all.values().map(|topic| topics::view(topic)).collect::<Vec<_>>(),
        "lake": gateway.lake.as_ref().map(|lake| lake.status()).unwrap_or_default(),
        "alerts": {
            "firing": count("firing"),
            "pending": count("pending"),
            "active": active.iter().take(MAX_STATUS_ALERTS).collect::<Vec<_>>(),
        },
        "rules": gateway.alerts.rules(),
        "receivers": gateway.alerts.receivers(),
    }))
}

pub(super) async fn clients(Opened(gateway): Opened) -> Json<Value> {
    Json(json!({ "connected": gateway.broker.connected(), "clients": gateway.broker.clients(MAX_CLIENTS) }))
}
