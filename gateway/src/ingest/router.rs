//! Which log topic, key and timestamp a published message gets: the config's `[[routes]]`, first match wins.

use std::borrow::Cow;

use forebay_log::Millis;
use forebay_log::topic::{check_topic_name, is_internal};
use forebay_sinks::time;

use super::filter::{Filter, Template};
use super::json_pointer::Pointer;
use crate::config::RouteConfig;

/// The log topic of messages that no route matches.
pub const DEFAULT_TOPIC: &str = "mqtt";

/// A message's place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<'a> {
    pub topic: &'a str,
    pub key: Cow<'a, [u8]>,
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
    routes: Vec<Route>,
}

struct Route {
    filter: Filter,
    topic: String,
    /// `None`: the client id
    key: Option<Template>,
    /// `None`: arrival
    timestamp: Option<Pointer>,
}

impl Router {
    /// Compiles the routes of a config.
    ///
    /// # Errors
    /// The route, the key and what is wrong with it.
    pub fn new(routes: &[RouteConfig]) -> Result<Router, RouteError> {
        let compile = |(index, route): (usize, &RouteConfig)| {
            let wrong = |key| move |what| RouteError { index, key, what };
            let filter = Filter::parse(&route.filter).map_err(wrong("filter"))?;
            check_topic_name(&route.topic).map_err(str::to_owned).map_err(wrong("topic"))?;
            if is_internal(&route.topic) {
                let what = format!("\"{}\": this topic is the program's own", route.topic);
                return Err(wrong("topic")(what));
            }
            let key = route.key.as_deref().map(|key| Template::parse(key, filter.wildcards())).transpose();
            let timestamp = route.timestamp.as_deref().map(Pointer::parse).transpose();
            Ok(Route {
                topic: route.topic.clone(),
                key: key.map_err(wrong("key"))?,
                timestamp: timestamp.map_err(wrong("timestamp"))?,
                filter,
            })
        };
        Ok(Router { routes: routes.iter().enumerate().map(compile).collect::<Result<_, _>>()? })
    }

    /// Routes a message. `mqtt_topic` is a valid topic name.
    pub fn route<'a>(&'a self, mqtt_topic: &'a str, client_id: &'a str, payload: &[u8]) -> Routed<'a> {
        for route in &self.routes {
            let Some(captures) = route.filter.captures(mqtt_topic) else { continue };
            return Routed {
                topic: &route.topic,
                key: match &route.key {
                    Some(template) => template.fill(&captures),
                    None => Cow::Borrowed(client_id.as_bytes()),
                },
                timestamp: route.timestamp.as_ref().and_then(|at| at.find(payload)).and_then(time::parse),
            };
        }
        Routed { topic: DEFAULT_TOPIC, key: Cow::Borrowed(mqtt_topic.as_bytes()), timestamp: None }
    }

    /// Log topics that published messages may be in (delivery to subscribers reads these).
    pub fn topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = self.routes.iter().map(|route| route.topic.as_str()).collect();
        topics.push(DEFAULT_TOPIC);
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(filter: &str, topic: &str, key: Option<&str>, timestamp: Option<&str>) -> RouteConfig {
        let own = |text: Option<&str>| text.map(str::to_owned);
        RouteConfig { filter: filter.into(), topic: topic.into(), key: own(key), timestamp: own(timestamp) }
    }

    fn router(routes: &[RouteConfig]) -> Router {
        Router::new(routes).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let router = router(&[
            route("meters/+/readings", "readings", Some("{1}"), Some("/ts")),
            route("meters/#", "other", None, None),
        ]);
        let payload = br#"{"meter":"m1","ts":"2013-01-01T00:30:00Z"}"#;
        let routed = router.route("meters/m1/readings", "client-9", payload);
        assert_eq!((routed.topic, &*routed.key), ("readings", &b"m1"[..]));
        assert_eq!(routed.timestamp, Some(Millis(1_357_000_200_000)));

        let routed = router.route("meters/m1/status", "client-9", payload);
        assert_eq!((routed.topic, &*routed.key, routed.timestamp), ("other", &b"client-9"[..], None));

        let routed = router.route("lights/on", "client-9", payload);
        assert_eq!((routed.topic, &*routed.key, routed.timestamp), ("mqtt", &b"lights/on"[..], None));
        assert_eq!(router.topics(), ["mqtt", "other", "readings"]);
    }

    #[test]
    fn a_payload_without_the_time_asked_for_gets_the_time_of_arrival() {
        let router = router(&[route("#", "readings", None, Some("/ts"))]);
        for payload in ["", "not json", "{\"ts\":\"soon\"}", "{\"time\":1357000200}"] {
            assert_eq!(router.route("a", "c", payload.as_bytes()).timestamp, None, "{payload}");
        }
    }

    #[test]
    fn a_route_that_cannot_work_names_its_place() {
        for (bad, place) in [
            (route("a/#/b", "t", None, None), "routes[1].filter"),
            (route("a", "t/x", None, None), "routes[1].topic"),
            (route("a", "_alerts", None, None), "routes[1].topic"),
            (route("a/+", "t", Some("{2}"), None), "routes[1].key"),
            (route("a/+", "t", None, Some("ts")), "routes[1].timestamp"),
        ] {
            let error = Router::new(&[route("#", "fine", None, None), bad]).err().map(|e| e.to_string());
            assert!(error.as_deref().is_some_and(|e| e.starts_with(place)), "{error:?}");
        }
    }
}
