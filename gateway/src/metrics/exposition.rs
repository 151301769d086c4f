//! The text that `/metrics` answers: OpenMetrics for those who ask for it, else the Prometheus text format 0.0.4.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The two text formats and their content types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// What an `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Format {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Format::OpenMetrics,
            _ => Format::Prometheus,
        }
    }

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Prints all metrics.
///
/// # Errors
/// A metric that cannot be encoded.
pub fn render(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => to_prometheus(&text),
    })
}

/// OpenMetrics names a counter's family without `_total`; the older format names it as its samples. `# UNIT` and `# EOF`
/// do not exist there.
fn to_prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = Some((name, text));
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            let kind = if kind == "unknown" { "untyped" } else { kind };
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn counters_have_one_name_in_the_older_format() {
        let mut registry = Registry::with_prefix("forebay");
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("mqtt_publishes", "Publishes", counter);
        registry.register_with_unit("ack", "Acks", Unit::Seconds, Histogram::new([0.1]));
        let text = render(&registry, Format::accepted(None)).unwrap();
        let head = "# HELP forebay_mqtt_publishes_total Publishes.\n# TYPE forebay_mqtt_publishes_total counter\n\
                    forebay_mqtt_publishes_total 1\n";
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("# TYPE forebay_ack_seconds histogram\n") && !text.contains("UNIT"), "{text}");
        assert!(!text.contains("EOF"));
        let open = render(&registry, Format::accepted(Some("application/openmetrics-text;version=1.0.0"))).unwrap();
        assert!(open.ends_with("# EOF\n") && open.contains("# TYPE forebay_mqtt_publishes counter"));
    }
}
