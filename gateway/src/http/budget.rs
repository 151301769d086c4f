//! Memory of all requests together: what many at once may hold, so that they cannot exhaust the node.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::limits::{BODY_MEMORY, MAX_BODY_BYTES, READ_MEMORY, READ_RESERVE};

/// One permit a byte.
pub(super) struct Budget {
    pub(super) bodies: Arc<Semaphore>,
    pub(super) reads: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { bodies: Arc::new(Semaphore::new(BODY_MEMORY)), reads: Arc::new(Semaphore::new(READ_MEMORY)) }
    }
}

impl Budget {
    /// Takes in a whole body. Its memory is taken as it comes, not as it is announced, so that a sender who says more than
    /// it sends takes nothing from the others; when there is none left, the request is refused: waiting with a half would
    /// be waiting for others who do the same.
    ///
    /// # Errors
    /// The body is too large or breaks off, or there is no memory for it now.
    pub(super) async fn take(&self, body: Body) -> Result<(Vec<u8>, OwnedSemaphorePermit), ApiError> {
        let mut memory = self.more(0)?;
        let mut taken = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| ApiError::bad_request(format!("the body: {error}")))?;
            if taken.len() + piece.len() > MAX_BODY_BYTES {
                return Err(ApiError::body_too_large());
            }
            memory.merge(self.more(piece.len())?);
            taken.extend_from_slice(&piece);
        }
        Ok((taken, memory))
    }

    fn more(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.bodies).try_acquire_many_owned(permits);
        memory.map_err(|_| ApiError::unavailable("too many records are on their way in other requests: try again"))
    }

    /// Waits for the memory that reading records may need.
    ///
    /// # Errors
    /// The door is closed.
    pub(super) async fn read(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let memory = Arc::clone(&self.reads).acquire_many_owned(READ_RESERVE).await;
        memory.map_err(|_| ApiError::unavailable("the node is draining"))
    }
}

/// An answer's bytes, and its share of the memory until they are written.
struct Held {
    json: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// The answer to a read. Of its memory it keeps only its own size, until it is written.
pub(super) fn answer(json: &Value, mut memory: OwnedSemaphorePermit) -> Response {
    let json = json.to_string().into_bytes();
    let kept = memory.split(json.len().min(memory.num_permits()));
    let body = Bytes::from_owner(Held { json, _memory: kept });
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
