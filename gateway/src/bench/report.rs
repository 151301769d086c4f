//! The outcome of a run: figures as a table for people, as JSON for programs, and whether it failed.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::tally::Tally;
use super::verify::Verdict;
use crate::figures::grouped;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) protocol: &'static str,
    pub(super) clients: usize,
    pub(super) inflight: u16,
    pub(super) acks: &'static str,
    pub(super) rate: Option<f64>,
}

/// A run, summed up.
#[derive(Debug)]
pub(crate) struct Report {
    facts: Facts,
    tally: Tally,
    verdict: Option<Verdict>,
}

/// Names and quantiles of the latencies shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report {
    pub(super) fn new(facts: Facts, tally: Tally, verdict: Option<Verdict>) -> Report {
        Report { facts, tally, verdict }
    }

    /// Why the run failed, if it did: an error, an ack that never came, or something wrong in what was read back.
    pub(crate) fn failure(&self) -> Option<String> {
        let tally = &self.tally;
        let mut reasons = Vec::new();
        if tally.missing > 0 {
            reasons.push(format!("{} messages were never acknowledged", tally.missing));
        }
        reasons.extend(tally.errors.iter().map(|(reason, times)| format!("{times} times: {reason}")));
        if let Some(verdict) = self.verdict.as_ref().filter(|verdict| !verdict.is_good()) {
            reasons.push(format!("verification failed: {verdict}"));
            reasons.extend(verdict.examples.iter().cloned());
        }
        (!reasons.is_empty()).then(|| reasons.join("\n"))
    }

    fn per_second(&self, amount: u64) -> f64 {
        let seconds = self.tally.seconds();
        if seconds > 0.0 { real(amount) / seconds } else { 0.0 }
    }

    fn errors(&self) -> u64 {
        self.tally.errors.values().sum()
    }

    /// A table.
    pub(crate) fn text(&self) -> String {
        let (facts, tally) = (&self.facts, &self.tally);
        let mut out =
            format!("{}: {} clients, {} in flight, {}", facts.protocol, facts.clients, facts.inflight, facts.acks);
        if let Some(rate) = facts.rate {
            let _ = write!(out, ", {rate} messages/s asked for");
        }
        out.push('\n');
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<20}{value:>14}");
        };
        row("messages/s", grouped(self.per_second(tally.measured)));
        row("MB/s", format!("{:.1}", self.per_second(tally.measured_bytes) / 1e6));
        row("sent", grouped(tally.sent));
        row("acked", grouped(tally.acked));
        row("never acked", grouped(tally.missing));
        row("errors", grouped(self.errors()));
        for (title, histogram) in [("ack latency", &tally.latency), ("sent late by", &tally.delay)] {
            // How late messages leave says something only where there is a schedule.
            if histogram.is_empty() || (title == "sent late by" && facts.rate.is_none()) {
                continue;
            }
            for (name, quantile) in QUANTILES {
                row(&format!("{title} {name}"), millis(histogram.value_at_quantile(quantile)));
            }
            row(&format!("{title} max"), millis(histogram.max()));
        }
        row("duration", format!("{:.1} s", tally.seconds()));
        if let Some(verdict) = &self.verdict {
            let _ = writeln!(out, "  verified: {verdict}");
        }
        for (reason, times) in &tally.errors {
            let _ = writeln!(out, "  error, {times} times: {reason}");
        }
        out
    }

    /// The same as one JSON object.
    pub(crate) fn json(&self) -> Value {
        let (facts, tally) = (&self.facts, &self.tally);
        let errors: Map<String, Value> =
            tally.errors.iter().map(|(reason, times)| (reason.to_string(), (*times).into())).collect();
        json!({
            "protocol": facts.protocol,
            "clients": facts.clients,
            "inflight": facts.inflight,
            "acks": facts.acks,
            "target_messages_per_second": facts.rate,
            "duration_seconds": tally.seconds(),
            "messages_per_second": self.per_second(tally.measured),
            "megabytes_per_second": self.per_second(tally.measured_bytes) / 1e6,
            "sent": tally.sent,
            "acked": tally.acked,
            "never_acked": tally.missing,
            "errors": self.errors(),
            "errors_by_reason": errors,
            "ack_latency_seconds": quantiles(&tally.latency),
            "sent_late_by_seconds": facts.rate.and_then(|_| quantiles(&tally.delay)),
            "verify": self.verdict.as_ref().map(Verdict::json),
        })
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Option<Value> {
    if histogram.is_empty() {
        return None;
    }
    let seconds = |micros: u64| Value::from(real(micros) / 1e6);
    let mut object = Map::new();
    for (name, quantile) in QUANTILES {
        object.insert(name.to_owned(), seconds(histogram.value_at_quantile(quantile)));
    }
    object.insert("max".to_owned(), seconds(histogram.max()));
    object.insert("mean".to_owned(), (histogram.mean() / 1e6).into());
    Some(object.into())
}

fn millis(micros: u64) -> String {
    format!("{:.3} ms", real(micros) / 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::{Reason, Span};

    fn report(verdict: Option<Verdict>, spoil: impl FnOnce(&mut Tally)) -> Report {
        let mut tally = Tally::new(Span { from: 0, to: 2_000_000_000 });
        for ms in 1..=1000 {
            tally.sent(1, 0, 0);
            tally.acked(1, 200, 0, ms * 1_000_000);
        }
        spoil(&mut tally);
        let facts = Facts { protocol: "mqtt", clients: 10, inflight: 20, acks: "QoS 1", rate: None };
        Report::new(facts, tally, verdict)
    }

    #[test]
    fn figures_are_the_same_in_table_and_json_and_say_their_units() {
        let report = report(None, |_| {});
        let json = report.json();
        assert_eq!(
            (json["messages_per_second"].as_f64(), json["megabytes_per_second"].as_f64()),
            (Some(500.0), Some(0.1))
        );
        let p99 = json["ack_latency_seconds"]["p99"].as_f64().unwrap_or_default();
        assert!((0.989..=0.991).contains(&p99), "{p99}");
        let text = report.text();
        let row = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        assert!(row("messages/s").ends_with(" 500") && row("acked").ends_with(" 1,000"), "{text}");
        assert!(row("ack latency p99 ").contains("990."), "{text}");
        assert_eq!(report.failure(), None);
    }

    #[test]
    fn a_missing_ack_an_error_or_a_loss_fails_the_run() {
        let failure = |report: Report| report.failure().unwrap_or_default();
        assert!(failure(report(None, |tally| tally.missing = 3)).contains("3 messages were never acknowledged"));
        let refused = report(None, |tally| tally.error(Reason::Refused(0x97), 4));
        assert!(refused.text().contains("error, 4 times: refused with 0x97, quota exceeded"));
        assert!(failure(refused).contains("quota exceeded"));
        let lost = Verdict { records: 9, missing: 1, ..Verdict::default() };
        assert!(failure(report(Some(lost), |_| {})).contains("1 missing"));
    }
}
