//! The end of a demo: counts from the real parts side by side, whether they add up, and what to try next.

use std::fmt::Write as _;
use std::path::Path;

use super::tally::Counts;
use crate::figures::grouped;
use crate::node::Addresses;

/// What the parts of the node say once everything has come to rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    pub(super) counts: Counts,
    pub(super) partitions: usize,
    /// Records in the log, by its offsets.
    pub(super) in_log: u64,
    /// Records that are only in the lake any more.
    pub(super) cold: u64,
    /// Rows in the table, counted by the verification.
    pub(super) in_table: u64,
    pub(super) table_version: Option<i64>,
    pub(super) table_files: u64,
    pub(super) table_bytes: u64,
    /// What the verification, or getting that far, found wrong.
    pub(super) problems: Vec<String>,
    /// By the records of the alert topic.
    pub(super) fired: u64,
    pub(super) resolved: u64,
    pub(super) firing: u64,
    /// By the alert service itself.
    pub(super) active: u64,
}

impl Findings {
    /// What does not add up; empty when all is well.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut equal = |left: (&str, u64), right: (&str, u64)| {
            if left.1 != right.1 {
                mistakes.push(format!("{} {} but {} {}", grouped(left.1), left.0, grouped(right.1), right.0));
            }
        };
        equal(("sent", self.counts.sent()), ("acknowledged", self.counts.acked));
        equal(("acknowledged", self.counts.acked), ("in the log", self.in_log));
        equal(("in the log", self.in_log), ("in the table", self.in_table));
        equal(("alerts fired", self.fired), ("resolved or still firing", self.resolved + self.firing));
        equal(("alerts firing by the topic", self.firing), ("by the alert service", self.active));
        if self.counts.refused > 0 {
            mistakes.push(format!("{} readings were refused", grouped(self.counts.refused)));
        }
        mistakes.extend(self.problems.iter().cloned());
        mistakes
    }

    /// The summary, several lines.
    pub(super) fn text(&self) -> String {
        let mark = |well: bool| if well { "✓" } else { "✗" };
        let counts = &self.counts;
        let version = self.table_version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        let mut out = String::from("\nsummary\n");
        let mut line = |name: &str, number: u64, well: bool, remark: String| {
            let _ = writeln!(out, "  {} {name:<9} {:>9}  {remark}", mark(well), grouped(number));
        };
        let roads = format!("{} over MQTT, {} over QUIC", grouped(counts.sent_tcp), grouped(counts.sent_quic));
        line("sent", counts.sent(), counts.sent() > 0, roads);
        line("acked", counts.acked, counts.acked == counts.sent(), "each after it was safe on disk".to_owned());
        let where_ = format!("in {} partitions, {} of them cold by now", self.partitions, grouped(self.cold));
        line("in log", self.in_log, self.in_log == counts.acked, where_);
        let table = format!(
            "Delta version {version}, {} files, {} KiB; {}",
            grouped(self.table_files),
            grouped(self.table_bytes.div_ceil(1024)),
            if self.problems.is_empty() { "verified against log and manifest" } else { "verification failed" }
        );
        line("in table", self.in_table, self.in_table == self.in_log && self.problems.is_empty(), table);
        let well = self.fired == self.resolved + self.firing && self.firing == self.active;
        let alerts = format!(
            "fired on the way; {} resolved since, {} still firing",
            grouped(self.resolved),
            grouped(self.firing)
        );
        line("alerts", self.fired, well, alerts);
        let mistakes = self.mistakes();
        if mistakes.is_empty() {
            out.push_str("  the counts add up\n");
        } else {
            out.push_str("  THE COUNTS DO NOT ADD UP\n");
            for mistake in mistakes {
                let _ = writeln!(out, "    {mistake}");
            }
        }
        out
    }
}

/// The commands to try next; `running` when the node stays up.
pub(super) fn next_steps(program: &str, dir: &Path, addresses: &Addresses, running: bool) -> String {
    let table = dir.join("lake").join("readings");
    let table = table.display();
    let option = |name: &str, usual: u16, address: Option<std::net::SocketAddr>, scheme: &str| match address {
        Some(address) if address.port() != usual => format!(" --{name} {scheme}{address}"),
        _ => String::new(),
    };
    let bootstrap = option("bootstrap", 9092, addresses.kafka, "");
    let url = option("url", 8080, addresses.http, "http://");
    let mut out = String::from("\ntry next\n");
    if !running {
        let _ = writeln!(out, "  {program} serve --config {}", dir.join("forebay.toml").display());
    } else if let Some(http) = addresses.http {
        let _ = writeln!(out, "  console      http://{http}/");
    }
    let _ = write!(
        out,
        "  {program} consume readings --from beginning --max 5{bootstrap}\n  \
           {program} consume _alerts --from beginning --max 5{bootstrap}\n  \
           {program} lake verify readings{url}\n  \
           DuckDB       SELECT meter, max(energy_kwh) FROM delta_scan('{table}') GROUP BY meter;\n  \
           Python       deltalake.DeltaTable(\"{table}\").to_pyarrow_table()\n  \
           Spark        spark.read.format(\"delta\").load(\"{table}\").groupBy(\"meter\").count().show()\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Findings {
        Findings {
            counts: Counts { sent_tcp: 20_000, sent_quic: 16_914, acked: 36_914, refused: 0, clock: 0 },
            partitions: 4,
            in_log: 36_914,
            in_table: 36_914,
            table_version: Some(11),
            fired: 86,
            resolved: 85,
            firing: 1,
            active: 1,
            ..Findings::default()
        }
    }

    #[test]
    fn counts_that_add_up_are_marked_so() {
        let text = well().text();
        assert!(text.contains("the counts add up") && !text.contains('✗'), "{text}");
    }

    #[test]
    fn any_count_that_does_not_add_up_is_named() {
        type Spoil = fn(&mut Findings);
        let cases: [(Spoil, &str); 6] = [
            (|f| f.counts.acked = 36_913, "36,914 sent but 36,913 acknowledged"),
            (|f| f.in_log = 36_915, "36,914 acknowledged but 36,915 in the log"),
            (|f| f.in_table = 0, "36,914 in the log but 0 in the table"),
            (|f| f.resolved = 0, "86 alerts fired but 1 resolved or still firing"),
            (|f| f.active = 2, "1 alerts firing by the topic but 2 by the alert service"),
            (|f| f.problems.push("part-1 is missing".into()), "part-1 is missing"),
        ];
        for (spoil, expected) in cases {
            let mut findings = well();
            spoil(&mut findings);
            let text = findings.text();
            assert!(text.contains("DO NOT ADD UP") && text.contains('✗'), "{text}");
            assert!(findings.mistakes().iter().any(|m| m == expected), "{:?}", findings.mistakes());
        }
    }

    #[test]
    fn commands_name_ports_only_when_they_are_unusual() {
        let usual = Addresses { kafka: "127.0.0.1:9092".parse().ok(), ..Addresses::default() };
        assert!(!next_steps("forebay", Path::new("/d"), &usual, true).contains("--bootstrap"));
        let other = Addresses { kafka: "127.0.0.1:40001".parse().ok(), ..Addresses::default() };
        let text = next_steps("forebay", Path::new("/d"), &other, false);
        assert!(text.contains("--max 5 --bootstrap 127.0.0.1:40001"), "{text}");
        assert!(text.contains("serve --config /d/forebay.toml"), "{text}");
    }
}
