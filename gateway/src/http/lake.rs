//! `/api/v1/lake`: the tables of the cold tier, and the proof that they agree with the log.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::lake::Lake;

use super::error::ApiError;
use super::front::Opened;

pub(super) async fn status(Opened(gateway): Opened) -> Json<Value> {
    Json(json!({ "topics": gateway.lake.as_ref().map(|lake| lake.status()).unwrap_or_default() }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Verify {
    topic: Option<String>,
}

/// Verifies one topic, or all that are in the lake.
pub(super) async fn verify(Opened(gateway): Opened, Query(asked): Query<Verify>) -> Result<Json<Value>, ApiError> {
    let lake: &Arc<Lake> = gateway.lake.as_ref().ok_or_else(|| ApiError::not_found("this node has no lake"))?;
    let topics: Vec<String> = match asked.topic {
        Some(topic) if gateway.log.topic(&topic).is_none() => return Err(ApiError::unknown_topic(&topic)),
        Some(topic) => vec![topic],
        None => lake.status().into_iter().map(|topic| topic.topic).collect(),
    };
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

#[derive(Debug, Deserialize)]
pub(super) struct Flush {
    topic: String,
}

/// Brings everything that was acknowledged so far into the table; answers when it is there.
pub(super) async fn flush(Opened(gateway): Opened, Query(asked): Query<Flush>) -> Result<Json<Value>, ApiError> {
    let lake = gateway.lake.as_ref().ok_or_else(|| ApiError::not_found("this node has no lake"))?;
    if gateway.log.topic(&asked.topic).is_none() {
        return Err(ApiError::unknown_topic(&asked.topic));
    }
    let flushed = lake.flush(&asked.topic).await;
    flushed.map_err(|error| ApiError::new(StatusCode::BAD_GATEWAY, format!("not in the table yet: {error:#}")))?;
    let table = lake.status().into_iter().find(|topic| topic.topic == asked.topic);
    Ok(Json(json!({ "topic": table })))
}
