//! `/api/v1/alerts` and `/api/v1/rules`: what fires, what is loaded, and loading it again.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::error::ApiError;
use super::front::Opened;

pub(super) async fn alerts(Opened(gateway): Opened) -> Json<Value> {
    Json(json!({ "alerts": gateway.alerts.active() }))
}

pub(super) async fn list(Opened(gateway): Opened) -> Json<Value> {
    Json(json!({ "rules": gateway.alerts.rules() }))
}

pub(super) async fn reload(Opened(gateway): Opened) -> Result<Json<Value>, ApiError> {
    match gateway.alerts.reload().await {
        Ok(()) => Ok(Json(json!({ "rules": gateway.alerts.rules() }))),
        Err(error) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the old rules stay: {error:#}"))),
    }
}
