//! A change of an alert's state: what the topic `_alerts` holds and receivers get.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use forebay_log::Millis;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The state that an alert changed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Pending,
    Firing,
    Resolved,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Firing => "firing",
            State::Resolved => "resolved",
        }
    }
}

/// The record that caused a transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
}

/// A change of an alert's state. Times are event times, RFC 3339 in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The same for the same change, however often it is computed: the idempotency key of deliveries.
    pub id: String,
    pub alert: String,
    pub state: State,
    /// The group's key, then the rule's labels as they were when the alert became active.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The left side of the rule's first comparison, when it is a number.
    pub value: Option<f64>,
    /// When the condition began to hold.
    #[serde(with = "rfc3339")]
    pub active_at: Millis,
    /// When the alert fired; absent if it has not.
    #[serde(with = "rfc3339_option", skip_serializing_if = "Option::is_none", default)]
    pub starts_at: Option<Millis>,
    /// When it was resolved.
    #[serde(with = "rfc3339_option", skip_serializing_if = "Option::is_none", default)]
    pub ends_at: Option<Millis>,
    pub source: Source,
    /// Names the alert instance: the key of the record in `_alerts`.
    #[serde(skip)]
    pub fingerprint: String,
}

impl Transition {
    /// The JSON that is stored and sent.
    pub fn to_json(&self) -> Vec<u8> {
        // Text, numbers and string-keyed maps: nothing in it can fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
    /// Whether receivers are told: pending alerts are not worth waking anyone.
    pub fn is_delivered(&self) -> bool {
        self.state != State::Pending
    }
}

/// What tells an alert instance from all others: group, rule and the values of the group's key.
pub fn fingerprint<'a>(group: &str, alert: &str, key: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut hash = Sha256::new();
    for part in [group, alert].into_iter().chain(key.into_iter().flat_map(|(name, value)| [name, value])) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..8])
}

/// The id of a transition: of what happened to which alert, since when, and at which record.
pub fn transition_id(fingerprint: &str, active_at: Millis, state: State, cause: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(fingerprint.as_bytes());
    hash.update(active_at.0.to_be_bytes());
    hash.update(state.name().as_bytes());
    hash.update(cause.as_bytes());
    hex(&hash.finalize()[..16])
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// A time as RFC 3339 in UTC, with milliseconds if it has any.
pub fn format_time(at: Millis) -> String {
    let time = DateTime::<Utc>::from_timestamp_millis(at.0).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

mod rfc3339 {
    use super::{DateTime, Millis, format_time};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_time(*at))
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        let text = String::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text).map(|time| Millis(time.timestamp_millis())).map_err(D::Error::custom)
    }
}

mod rfc3339_option {
    use super::{Millis, rfc3339};
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Present(#[serde(with = "rfc3339")] Millis);

    pub(super) fn serialize<S: Serializer>(at: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => rfc3339::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
        Ok(Option::<Present>::deserialize(deserializer)?.map(|Present(at)| at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_the_contracts() {
        let transition = Transition {
            id: "abc".into(),
            alert: "Overvoltage".into(),
            state: State::Firing,
            labels: BTreeMap::from([("meter".into(), "m1".into())]),
            annotations: BTreeMap::new(),
            value: Some(254.5),
            active_at: Millis(1_166_290_000_000),
            starts_at: Some(Millis(1_166_290_180_250)),
            ends_at: None,
            source: Source { topic: "readings".into(), partition: 3, offset: 17 },
            fingerprint: String::new(),
        };
        let json = String::from_utf8(transition.to_json()).unwrap();
        assert_eq!(
            json,
            "{\"id\":\"abc\",\"alert\":\"Overvoltage\",\"state\":\"firing\",\"labels\":{\"meter\":\"m1\"},\
             \"annotations\":{},\"value\":254.5,\"active_at\":\"2006-12-16T17:26:40Z\",\
             \"starts_at\":\"2006-12-16T17:29:40.250Z\",\
             \"source\":{\"topic\":\"readings\",\"partition\":3,\"offset\":17}}"
        );
        assert_eq!(serde_json::from_str::<Transition>(&json).unwrap(), transition);
    }

    #[test]
    fn fingerprints_tell_instances_apart() {
        let of = |group, alert, meter| fingerprint(group, alert, [("meter", meter)]);
        assert_eq!(of("g", "a", "m1"), of("g", "a", "m1"));
        assert_ne!(of("g", "a", "m1"), of("g", "a", "m2"));
        assert_ne!(of("g", "a", "m1"), of("ga", "", "m1"));
        assert_eq!(of("g", "a", "m1").len(), 16);
    }
}
