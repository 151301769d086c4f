//! `/api/v1/lake`: the tables of the cold tier, the proof that they agree with the log, and the push to bring them up to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::lake::Lake;
use crate::node::Gateway;

use super::error::ApiError;
use super::front::Opened;

pub(super) async fn status(Opened(gateway): Opened) -> Json<Value> {
    Json(json!({ "topics": gateway.lake.as_ref().map(|lake| lake.status()).unwrap_or_default() }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    topic: Option<String>,
}

impl Asked {
    /// The topic asked for, or all that are in the lake.
    fn topics(self, gateway: &Gateway, lake: &Lake) -> Result<Vec<String>, ApiError> {
        match self.topic {
            Some(topic) if gateway.log.topic(&topic).is_none() => Err(ApiError::unknown_topic(&topic)),
            Some(topic) => Ok(vec![topic]),
            None => Ok(lake.status().into_iter().map(|topic| topic.topic).collect()),
        }
    }
}

fn lake_of(gateway: &Gateway) -> Result<&Arc<Lake>, ApiError> {
    gateway.lake.as_ref().ok_or_else(|| ApiError::not_found("this node has no lake"))
}

/// Brings the tables up to the present end of the log: rolls, offloads, commits. For tests, audits and shutdowns.
pub(super) async fn flush(Opened(gateway): Opened, Query(asked): Query<Asked>) -> Result<Json<Value>, ApiError> {
    let lake = lake_of(&gateway)?;
    let topics = asked.topics(&gateway, lake)?;
    for topic in &topics {
        lake.flush(topic).await.map_err(|error| {
            ApiError::new(StatusCode::BAD_GATEWAY, format!("{topic} could not be brought to the lake: {error:#}"))
        })?;
    }
    Ok(Json(json!({ "topics": topics })))
}

/// Verifies one topic, or all that are in the lake.
pub(super) async fn verify(Opened(gateway): Opened, Query(asked): Query<Asked>) -> Result<Json<Value>, ApiError> {
    let lake = lake_of(&gateway)?;
    let topics = asked.topics(&gateway, lake)?;
    let mut reports = Vec::with_capacity(topics.len());
    for topic in &topics {
        let report = lake.verify(topic).await.map_err(|error| {
            ApiError::new(StatusCode::BAD_GATEWAY, format!("{topic} could not be verified: {error:#}"))
        })?;
        reports.push(report);
    }
    let agree = reports.iter().all(|report| report.problems.is_empty());
    Ok(Json(json!({ "agree": agree, "topics": reports })))
}
