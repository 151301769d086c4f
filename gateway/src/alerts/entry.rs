//! Entries of `_alert_state`: a version, then JSON.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;

/// The bytes of an entry.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    let mut bytes = vec![VERSION];
    // Plain structs of numbers and maps: nothing in them can fail to be written.
    bytes.extend(serde_json::to_vec(value).unwrap_or_default());
    Bytes::from(bytes)
}

/// Reads an entry; `None`, and a log line, if it is not of this version or damaged.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Option<T> {
    let decoded = match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).ok(),
        _ => None,
    };
    if decoded.is_none() {
        let key = String::from_utf8_lossy(key);
        tracing::error!(%key, "an entry of _alert_state cannot be read and is taken as absent");
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back_and_another_version_is_not_guessed_at() {
        let bytes = encode(&vec![1, 2]);
        assert_eq!(decode::<Vec<i32>>(b"k", &bytes), Some(vec![1, 2]));
        assert_eq!(decode::<Vec<i32>>(b"k", b"\x02[1,2]"), None);
        assert_eq!(decode::<Vec<i32>>(b"k", b""), None);
    }
}
