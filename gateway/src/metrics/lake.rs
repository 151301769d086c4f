//! Metrics of the lake.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::lake::TopicStatus;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

/// What the lake counts.
pub struct LakeMetrics {
    objects: Counter,
    records: Counter,
    malformed: Counter,
    bytes: Counter,
    lost: Counter,
    off: Gauge,
    failures: Counter,
    cold_reads: Counter,
    cold_failures: Counter,
    cold_bytes: Counter,
    failing_since: Family<TopicLabel, Gauge>,
    lag: Family<TopicLabel, Gauge>,
    files: Family<TopicLabel, Gauge>,
    rows: Family<TopicLabel, Gauge>,
    size: Family<TopicLabel, Gauge>,
    version: Family<TopicLabel, Gauge>,
}

impl LakeMetrics {
    pub(super) fn new(registry: &mut Registry) -> LakeMetrics {
        let metrics = LakeMetrics {
            objects: Counter::default(),
            records: Counter::default(),
            malformed: Counter::default(),
            bytes: Counter::default(),
            lost: Counter::default(),
            off: Gauge::default(),
            failures: Counter::default(),
            cold_reads: Counter::default(),
            cold_failures: Counter::default(),
            cold_bytes: Counter::default(),
            failing_since: Family::default(),
            lag: Family::default(),
            files: Family::default(),
            rows: Family::default(),
            size: Family::default(),
            version: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("lake");
        registry.register("objects_written", "Parquet objects written", metrics.objects.clone());
        registry.register("records_written", "Records written to Parquet objects", metrics.records.clone());
        registry.register("malformed_records", "Records written with an _error", metrics.malformed.clone());
        registry.register(
            "lost_records",
            "Records that were damaged in the local log when their segment was copied: they are not in the lake",
            metrics.lost.clone(),
        );
        registry.register("off", "1 while the lake is off because its manifest is damaged", metrics.off.clone());
        registry.register("written_bytes", "Bytes of Parquet objects written", metrics.bytes.clone());
        registry.register("failures", "Offload steps that failed", metrics.failures.clone());
        registry.register(
            "failing_since_seconds",
            "Unix time from which on the topic's offload has not got on; 0 while it does",
            metrics.failing_since.clone(),
        );
        registry.register(
            "cold_read_failures",
            "Reads of the cold tier that failed, or came when too many were waiting",
            metrics.cold_failures.clone(),
        );
        registry.register("cold_reads", "Reads served from the cold tier", metrics.cold_reads.clone());
        registry.register("cold_read_bytes", "Bytes served from the cold tier", metrics.cold_bytes.clone());
        let teller = "told by the node that leads the topic's partition 0";
        let help = format!("Records of the topic not yet in the table, {teller}");
        registry.register("lag_records", help, metrics.lag.clone());
        registry.register("files", format!("Files in the table, {teller}"), metrics.files.clone());
        registry.register("rows", format!("Rows in the table, {teller}"), metrics.rows.clone());
        registry.register("size_bytes", format!("Bytes of the files in the table, {teller}"), metrics.size.clone());
        registry.register("table_version", format!("Version of the table, {teller}"), metrics.version.clone());
        metrics
    }

    pub fn object_written(&self, rows: u64, malformed: u64, bytes: u64) {
        self.objects.inc();
        self.records.inc_by(rows);
        self.malformed.inc_by(malformed);
        self.bytes.inc_by(bytes);
    }

    pub fn lost(&self, records: u64) {
        self.lost.inc_by(records);
    }

    pub fn set_off(&self, off: bool) {
        self.off.set(off.into());
    }

    pub fn failed(&self, steps: u64) {
        self.failures.inc_by(steps);
    }

    pub fn cold_read_failed(&self) {
        self.cold_failures.inc();
    }

    pub fn cold_read(&self, bytes: usize) {
        self.cold_reads.inc();
        self.cold_bytes.inc_by(bytes as u64);
    }

    pub fn show(&self, status: &TopicStatus) {
        let label = TopicLabel { topic: status.topic.clone() };
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.failing_since.get_or_create(&label).set(status.failing_since.map_or(0, |since| since / 1000));
        // Every node could tell of the whole topic: one does, so that a sum over all nodes is right.
        if !status.leads.contains(&0) {
            return self.forget_topic(&label);
        }
        self.lag.get_or_create(&label).set(status.lag_records);
        self.files.get_or_create(&label).set(gauge(status.files));
        self.rows.get_or_create(&label).set(gauge(status.rows));
        self.size.get_or_create(&label).set(gauge(status.bytes));
        if let Some(version) = status.table_version {
            self.version.get_or_create(&label).set(version);
        }
    }

    /// Shows nothing of a topic any more.
    pub fn forget(&self, topic: &str) {
        let label = TopicLabel { topic: topic.to_owned() };
        self.failing_since.remove(&label);
        self.forget_topic(&label);
    }

    fn forget_topic(&self, label: &TopicLabel) {
        for family in [&self.lag, &self.files, &self.rows, &self.size, &self.version] {
            family.remove(label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_all_nodes_counts_a_topic_once() {
        let status = |leads: &[u32]| TopicStatus {
            topic: "readings".to_owned(),
            url: String::new(),
            table_version: Some(3),
            files: 2,
            rows: 20,
            bytes: 200,
            leads: leads.to_vec(),
            lag_records: 7,
            lost_records: 0,
            error: None,
            failing_since: None,
        };
        let told = |leads: &[&[u32]]| {
            let mut registry = Registry::default();
            let metrics = LakeMetrics::new(&mut registry);
            leads.iter().for_each(|leads| metrics.show(&status(leads)));
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            ["lag_records", "files", "rows", "size_bytes", "table_version"]
                .map(|name| text.contains(&format!("lake_{name}{{topic=\"readings\"}}")))
        };
        assert_eq!(told(&[&[0, 2]]), [true; 5]);
        assert_eq!(told(&[&[1]]), [false; 5]);
        assert_eq!(told(&[&[0], &[]]), [false; 5], "the lead went elsewhere");
    }
}
