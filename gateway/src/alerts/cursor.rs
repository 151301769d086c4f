//! How far a receiver got in `_alerts`, as `_alert_state` holds it.

use bytes::Bytes;
use forebay_log::{AppendError, Offset};
use serde::{Deserialize, Serialize};

use super::entry::{decode, encode};
use crate::state::StateTopic;

/// How far a receiver got.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cursor {
    next: i64,
}

pub(super) fn cursor_key(id: &str) -> Bytes {
    Bytes::from(format!("receiver/{id}"))
}

/// How far a receiver got, as far as it is noted.
pub(super) fn saved(state: &StateTopic, id: &str) -> Option<Offset> {
    let key = cursor_key(id);
    let cursor: Cursor = decode(&key, &state.get(&key)?)?;
    Some(Offset(cursor.next))
}

/// Notes how far a receiver got; durable on return.
pub(super) async fn save(state: &StateTopic, id: &str, next: Offset) -> Result<(), AppendError> {
    state.put(cursor_key(id), Some(encode(&Cursor { next: next.0 }))).await
}
