//! The HTTP door's own state: it answers before the node is assembled, and knows the node from then on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::metrics::live::{Live, Rates};
use crate::node::Gateway;

use super::budget::Budget;
use super::error::ApiError;

/// What the handlers share.
#[derive(Default)]
pub struct Front {
    gateway: OnceLock<Arc<Gateway>>,
    pub(super) budget: Budget,
    live: Live,
    keyless: AtomicU32,
}

impl Front {
    #[must_use]
    pub fn new() -> Arc<Front> {
        Arc::new(Front::default())
    }

    /// From now on requests are answered for this node; before, they are told to wait.
    pub fn open(&self, gateway: Arc<Gateway>) {
        let _ = self.gateway.set(gateway);
    }

    pub(super) fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.gateway.get()
    }

    pub(super) fn sample(&self) {
        if let Some(gateway) = self.gateway() {
            self.live.sample(&gateway.log, &gateway.metrics, Instant::now());
        }
    }

    pub(super) fn rates(&self) -> Rates {
        self.live.rates()
    }

    /// The partition for a request's records without a key: one after the other, request by request.
    pub(super) fn next_keyless(&self) -> u32 {
        self.keyless.fetch_add(1, Ordering::Relaxed)
    }
}

/// The node, for handlers that need it.
pub(super) struct Opened(pub Arc<Gateway>);

impl FromRequestParts<Arc<Front>> for Opened {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, front: &Arc<Front>) -> Result<Opened, ApiError> {
        match front.gateway() {
            Some(gateway) => Ok(Opened(gateway.clone())),
            None => Err(ApiError::unavailable("the node is starting")),
        }
    }
}
