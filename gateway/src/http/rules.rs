//! `/api/v1/alerts` and `/api/v1/rules`: what fires, what is loaded, and loading it again.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::error::ApiError;
use super::front::Opened;
use crate::alerts::{Alerts, OfferError};
use crate::settings::SettingsError;

pub(super) async fn alerts(Opened(gateway): Opened) -> Json<Value> {
    Json(json!({ "alerts": gateway.alerts.active() }))
}

pub(super) async fn list(Opened(gateway): Opened) -> Json<Value> {
    Json(view(&gateway.alerts))
}

pub(super) async fn reload(Opened(gateway): Opened) -> Result<Json<Value>, ApiError> {
    match gateway.alerts.reload(true).await {
        Ok(()) => Ok(Json(view(&gateway.alerts))),
        Err(error) => {
            let unavailable = matches!(
                error.downcast_ref(),
                Some(OfferError::NotTaken(SettingsError::Log(_) | SettingsError::Changed))
            );
            let status = if unavailable { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNPROCESSABLE_ENTITY };
            Err(ApiError::new(status, format!("the old rules stay: {error:#}")))
        }
    }
}

/// The rules, and where they come from.
fn view(alerts: &Alerts) -> Value {
    let mut view = json!(alerts.origin());
    view["rules"] = json!(alerts.rules());
    view
}
