//! The `receivers` of a rule file: where transitions are sent.

use std::fmt;
use std::io;

use marked_yaml::types::{MarkedMappingNode, Node};

use super::load::Inputs;
use crate::diagnostic;
use crate::limits;
use crate::template::{Part, Template};
use crate::yaml::{Doc, Key, span, span_of};

/// What a webhook's messages are signed with. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Known(Vec<u8>),
    /// It lies in a file that this node does not have: why not.
    Missing(String),
}

impl Secret {
    /// Of a file's bytes, without the line end.
    pub(super) fn of_file(mut bytes: Vec<u8>) -> io::Result<Secret> {
        let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
        if end == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        bytes.truncate(end);
        Ok(Secret::Known(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverConfig {
    /// POSTs each transition as JSON.
    Webhook { url: String, hmac_secret: Option<Secret>, timeout_ms: i64 },
    /// Prometheus Alertmanager's `POST /api/v2/alerts`.
    Alertmanager { url: String, timeout_ms: i64 },
    /// Publishes each transition to the node's own MQTT broker.
    Mqtt { topic: Template, text: String, retain: bool },
    /// Appends each transition to a topic of the log.
    Kafka { topic: String },
}

impl ReceiverConfig {
    /// What tells this receiver from others, across restarts: its kind and its address.
    pub fn id(&self) -> String {
        match self {
            ReceiverConfig::Webhook { url, .. } => format!("webhook:{url}"),
            ReceiverConfig::Alertmanager { url, .. } => format!("alertmanager:{url}"),
            ReceiverConfig::Mqtt { text, .. } => format!("mqtt:{text}"),
            ReceiverConfig::Kafka { topic } => format!("kafka:{topic}"),
        }
    }
    /// What people are shown: of an address its host and port only, as paths may hold tokens.
    pub fn name(&self) -> String {
        match self {
            ReceiverConfig::Webhook { url, .. } | ReceiverConfig::Alertmanager { url, .. } => {
                let url = reqwest::Url::parse(url).ok();
                let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
                let port = url.as_ref().and_then(reqwest::Url::port).map(|port| format!(":{port}"));
                format!("{}:{host}{}", self.kind(), port.unwrap_or_default())
            }
            ReceiverConfig::Mqtt { .. } | ReceiverConfig::Kafka { .. } => self.id(),
        }
    }
    pub fn kind(&self) -> &'static str {
        match self {
            ReceiverConfig::Webhook { .. } => "webhook",
            ReceiverConfig::Alertmanager { .. } => "alertmanager",
            ReceiverConfig::Mqtt { .. } => "mqtt",
            ReceiverConfig::Kafka { .. } => "kafka",
        }
    }
}

const KINDS: [Key; 4] = [Key::Known("webhook"), Key::Known("alertmanager"), Key::Known("mqtt"), Key::Known("kafka")];

/// Reads the list under `receivers`.
pub(super) fn read(doc: &mut Doc<'_>, node: &Node, inputs: &dyn Inputs) -> Vec<ReceiverConfig> {
    let Some(list) = doc.sequence(node, "`receivers`") else { return Vec::new() };
    let mut receivers = Vec::new();
    for item in list.iter() {
        let Some(map) = doc.mapping(item, "a receiver") else { continue };
        doc.check_keys(map, &KINDS, "a receiver");
        if map.len() > 1 {
            doc.error(span(item), "a receiver has one kind; write the next one as a list item of its own", None);
        }
        for (kind, body) in map.iter() {
            let what = format!("`{}`", kind.as_str());
            let Some(body) = doc.mapping(body, &what) else { continue };
            let receiver = match kind.as_str() {
                "webhook" => webhook(doc, body, inputs),
                "alertmanager" => alertmanager(doc, body),
                "mqtt" => mqtt(doc, body),
                "kafka" => kafka(doc, body),
                _ => None,
            };
            receivers.extend(receiver);
        }
    }
    receivers
}

fn webhook(doc: &mut Doc<'_>, body: &MarkedMappingNode, inputs: &dyn Inputs) -> Option<ReceiverConfig> {
    let keys = [Key::Known("url"), Key::Known("hmac_secret"), Key::Known("timeout")];
    doc.check_keys(body, &keys, "`webhook`");
    let hmac_secret = body.get_node("hmac_secret").and_then(|node| secret(doc, node, inputs));
    Some(ReceiverConfig::Webhook { url: url(doc, body, "`webhook`")?, hmac_secret, timeout_ms: timeout(doc, body) })
}

fn alertmanager(doc: &mut Doc<'_>, body: &MarkedMappingNode) -> Option<ReceiverConfig> {
    doc.check_keys(body, &[Key::Known("url"), Key::Known("timeout")], "`alertmanager`");
    let url = url(doc, body, "`alertmanager`")?;
    Some(ReceiverConfig::Alertmanager { url: url.trim_end_matches('/').to_owned(), timeout_ms: timeout(doc, body) })
}

fn mqtt(doc: &mut Doc<'_>, body: &MarkedMappingNode) -> Option<ReceiverConfig> {
    doc.check_keys(body, &[Key::Known("topic"), Key::Known("retain")], "`mqtt`");
    let retain = body.get_node("retain").and_then(|node| doc.boolean(node, "`retain`")).unwrap_or(false);
    let node = required(doc, body, "topic", "`mqtt`")?;
    let scalar = doc.text(node, "`topic`")?;
    match Template::parse(scalar.as_str()) {
        Ok(topic) => {
            let wild = |part: &Part| matches!(part, Part::Text(text) if text.contains(['+', '#', '\0']));
            if topic.parts.iter().any(wild) {
                doc.error(node.span(), "a topic to publish to has no wildcards (`+`, `#`)", None);
                return None;
            }
            Some(ReceiverConfig::Mqtt { topic, text: scalar.as_str().to_owned(), retain })
        }
        Err(error) => {
            doc.error_inside(scalar, error.at, format!("`topic`: {}", error.message), error.help);
            None
        }
    }
}

fn kafka(doc: &mut Doc<'_>, body: &MarkedMappingNode) -> Option<ReceiverConfig> {
    doc.check_keys(body, &[Key::Known("topic")], "`kafka`");
    let node = required(doc, body, "topic", "`kafka`")?;
    let topic = doc.text(node, "`topic`")?.as_str().to_owned();
    let problem = match forebay_log::topic::check_topic_name(&topic) {
        Err(problem) => problem,
        Ok(()) if forebay_log::topic::is_internal(&topic) => "this topic is the program's own",
        Ok(()) => return Some(ReceiverConfig::Kafka { topic }),
    };
    doc.error(node.span(), format!("`topic`: {problem}"), None);
    None
}

pub(super) fn required<'n>(doc: &mut Doc<'_>, map: &'n MarkedMappingNode, key: &str, what: &str) -> Option<&'n Node> {
    let node = map.get_node(key);
    // A misspelt key is told as such.
    let misspelt = || map.iter().any(|(name, _)| diagnostic::nearest(name.as_str(), [key]).is_some());
    if node.is_none() && !misspelt() {
        doc.error(span_of(map), format!("{what} needs `{key}`"), None);
    }
    node
}

fn url(doc: &mut Doc<'_>, body: &MarkedMappingNode, what: &str) -> Option<String> {
    let node = required(doc, body, "url", what)?;
    let text = doc.text(node, "`url`")?.as_str().to_owned();
    let problem = match reqwest::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => return Some(text),
        Ok(_) => "it begins with http:// or https://".to_owned(),
        Err(error) => error.to_string(),
    };
    doc.error(node.span(), format!("`{text}` is not a URL to post to: {problem}"), None);
    None
}

fn timeout(doc: &mut Doc<'_>, body: &MarkedMappingNode) -> i64 {
    let given = body.get_node("timeout").and_then(|node| {
        let millis = doc.duration(node, "`timeout`")?;
        if millis == 0 {
            doc.error(node.span(), "`timeout` must be more than 0", None);
        }
        Some(millis)
    });
    given.unwrap_or(limits::DEFAULT_DELIVERY_TIMEOUT_MS)
}

/// A secret as it stands, or from `file:PATH` (relative to the rule file) without the line end.
fn secret(doc: &mut Doc<'_>, node: &Node, inputs: &dyn Inputs) -> Option<Secret> {
    let text = doc.text(node, "`hmac_secret`")?.as_str();
    let Some(path) = text.strip_prefix("file:") else {
        return Some(Secret::Known(text.as_bytes().to_vec()));
    };
    match inputs.secret(path) {
        Ok(secret) => Some(secret),
        Err(error) => {
            doc.error(node.span(), format!("`hmac_secret`: {path}: {error}"), None);
            None
        }
    }
}
