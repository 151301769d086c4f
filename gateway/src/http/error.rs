//! What a request that failed is answered: a status code and `{"error": ...}`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use forebay_log::{AppendError, ReadError};
use serde_json::{Value, json};

use super::limits::{MAX_BODY_BYTES, RETRY_AFTER};

/// A refused or failed request.
#[derive(Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    pub what: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> ApiError {
        ApiError { status, what: what.into() }
    }
    pub(super) fn bad_request(what: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, what)
    }
    pub(super) fn not_found(what: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, what)
    }
    pub(super) fn forbidden(what: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, what)
    }
    pub(super) fn method_not_allowed() -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
    }
    pub(super) fn body_too_large() -> ApiError {
        let what = format!("a body holds at most {} MiB: send the records in several requests", MAX_BODY_BYTES >> 20);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, what)
    }
    pub(super) fn unavailable(what: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what)
    }
    pub(super) fn timeout(after: Duration) -> ApiError {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("not done within {} s", after.as_secs()))
    }
    /// The answer with a body that says more.
    pub(super) fn with(self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
    pub(super) fn unknown_topic(name: &str) -> ApiError {
        ApiError::not_found(format!("there is no topic {name}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.what });
        self.with(body)
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> ApiError {
        let status = match &error {
            AppendError::Corrupt(_) | AppendError::Invalid(_) => StatusCode::BAD_REQUEST,
            AppendError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            AppendError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::new(status, error.to_string())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> ApiError {
        let status = match &error {
            ReadError::OutOfRange { .. } | ReadError::Tiered { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            ReadError::Offline(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    }
}
