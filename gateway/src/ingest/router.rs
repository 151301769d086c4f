//! Which log topic, key and timestamp a published message gets: the config's `[[routes]]`, first match wins.

use bytes::Bytes;
use forebay_log::Millis;

use crate::config::RouteConfig;

/// The log topic of messages that no route matches.
pub const DEFAULT_TOPIC: &str = "mqtt";

/// A message's place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<'a> {
    pub topic: &'a str,
    pub key: Bytes,
    /// The reading's own time, when the route has a `timestamp` and the payload holds it.
    pub timestamp: Option<Millis>,
}

/// A route that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("routes[{index}].{key}: {what}")]
pub struct RouteError {
    pub index: usize,
    pub key: &'static str,
    pub what: String,
}

/// The compiled routes.
pub struct Router {
    _private: (),
}

impl Router {
    pub fn new(routes: &[RouteConfig]) -> Result<Router, RouteError> {
        let _ = routes;
        todo!()
    }
    /// Routes a message. `mqtt_topic` is a valid topic name.
    pub fn route(&self, mqtt_topic: &str, client_id: &str, payload: &[u8]) -> Routed<'_> {
        let _ = (mqtt_topic, client_id, payload);
        todo!()
    }
    /// Log topics that messages matching an MQTT topic filter may be in (delivery to subscribers reads these).
    pub fn topics(&self) -> Vec<&str> {
        todo!()
    }
}
