//! Metrics of the log, read from its partitions when somebody scrapes.

use std::fmt;

use forebay_cluster::{Log, LogStats, Partition};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads the log at each scrape.
pub(super) struct LogCollector {
    log: Log,
}

impl LogCollector {
    pub(super) fn new(log: Log) -> LogCollector {
        LogCollector { log }
    }
}

impl fmt::Debug for LogCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogCollector")
    }
}

/// Name, help and value of a gauge that every partition has.
type PartitionGauge = (&'static str, &'static str, fn(&Partition) -> i64);

const PARTITION_GAUGES: &[PartitionGauge] = &[
    ("partition_log_start_offset", "First offset of the partition, cold tier included", |p| p.watermarks().log_start.0),
    ("partition_local_start_offset", "First offset on the local disk", |p| p.watermarks().local_start.0),
    ("partition_high_watermark", "First offset that readers do not see yet", |p| p.watermarks().high_watermark.0),
    ("partition_log_end_offset", "The next offset to be written", |p| p.watermarks().log_end.0),
    ("partition_local_bytes", "Bytes of the partition on the local disk", |p| signed(p.local_bytes())),
    ("partition_local_segments", "Segments on the local disk, the active one included", |p| {
        signed(p.closed_segments().len() as u64 + 1)
    }),
    ("partition_offline", "1 when the partition takes no writes", |p| i64::from(p.offline().is_some())),
];

/// Name, help and value of a counter of the whole log.
type LogCounter = (&'static str, &'static str, fn(&LogStats) -> f64);

const LOG_COUNTERS: &[LogCounter] = &[
    ("log_commits", "Group commits: writes of all that had gathered, synced together", |s| s.commits as f64),
    ("log_synced_files", "Files synced by group commits", |s| s.synced_files as f64),
    ("log_sync_seconds", "Time spent in the syncs of group commits", |s| s.sync_nanos as f64 / 1e9),
    ("log_appended_bytes", "Bytes of record batches made durable", |s| s.appended_bytes as f64),
    ("log_failed_writes", "Writes and syncs that failed, their appends refused", |s| s.failed_writes as f64),
    ("log_compacted_records", "Records that compaction has removed", |s| s.compacted_records as f64),
    ("log_compacted_bytes", "Bytes by which compaction has made the log smaller", |s| s.compacted_bytes as f64),
    ("log_corrupt_batches", "Times that damaged batches were found", |s| s.corrupt_batches as f64),
];

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let topics = self.log.topics();
        let mut appended = encoder.encode_descriptor(
            "log_appended_records",
            "Records ever appended to the topic",
            None,
            MetricType::Counter,
        )?;
        for topic in topics.values() {
            let records: i64 = topic.partitions.iter().map(|p| p.watermarks().high_watermark.0).sum();
            let labels = [("topic", topic.name.as_str())];
            ConstCounter::new(records.unsigned_abs()).encode(appended.encode_family(&labels)?)?;
        }
        for (name, help, value) in PARTITION_GAUGES {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for topic in topics.values() {
                for partition in &topic.partitions {
                    let labels = [("topic", topic.name.clone()), ("partition", partition.index().to_string())];
                    ConstGauge::new(value(partition)).encode(gauge.encode_family(&labels)?)?;
                }
            }
        }
        let stats = self.log.stats();
        for (name, help, value) in LOG_COUNTERS {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value(&stats)).encode(counter)?;
        }
        let full = ConstGauge::new(i64::from(self.log.disk_full()));
        let help = "1 while appends are refused because the disk is full";
        full.encode(encoder.encode_descriptor("log_disk_full", help, None, MetricType::Gauge)?)
    }
}
