//! Metrics of the process: memory, processor time, file descriptors, start time, version.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks of `/proc/PID/stat` in a second: 100 wherever Linux runs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields of `/proc/PID/stat` after the command's closing parenthesis (proc(5)).
const UTIME: usize = 11;
const STIME: usize = 12;

/// Reads `/proc/self` at each scrape; what cannot be read there is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    start_time_seconds: f64,
}

impl ProcessCollector {
    pub(super) fn new() -> ProcessCollector {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ProcessCollector { start_time_seconds: since.as_secs_f64() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_memory_bytes", "Resident memory size in bytes", bytes)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            gauge("process_open_fds", "Number of open file descriptors", open.count() as f64)?;
        }
        if let Some(limit) = max_descriptors() {
            gauge("process_max_fds", "Maximum number of open file descriptors", limit)?;
        }
        if let Ok(threads) = fs::read_dir("/proc/self/task") {
            gauge("process_threads", "Number of threads", threads.count() as f64)?;
        }
        let start = "Start time of the process since unix epoch in seconds";
        gauge("process_start_time_seconds", start, self.start_time_seconds)?;
        if let Some(seconds) = cpu_seconds() {
            let help = "Total user and system CPU time spent in seconds";
            let counter = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(counter)?;
        }
        let mut build = encoder.encode_descriptor("build_info", "The program's version", None, MetricType::Gauge)?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1i64).encode(build.encode_family(&labels)?)
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// The soft limit, "unlimited" left out.
fn max_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(UTIME)? + ticks(STIME)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_memory_and_its_time() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1e5));
        assert!(max_descriptors().is_none_or(|limit| limit >= 64.0));
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }
}
