//! `/healthz`, `/readyz` and `/metrics`: what probes and Prometheus ask.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::metrics::{Format, render};

use super::error::ApiError;
use super::front::Opened;

/// The process runs and answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Whether the node should get traffic; 503 with the reasons when it should not.
pub(super) async fn ready(node: Result<Opened, ApiError>) -> Response {
    let reasons = match &node {
        Ok(Opened(gateway)) => gateway.not_ready(),
        Err(starting) => vec![starting.what.clone()],
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

pub(super) async fn metrics(Opened(gateway): Opened, headers: HeaderMap) -> Result<Response, ApiError> {
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    match render(&gateway.metrics.registry, format) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response()),
        Err(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "a metric cannot be printed")),
    }
}
