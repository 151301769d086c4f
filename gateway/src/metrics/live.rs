//! Rates of the last seconds, for the console: what the log took in and how long acks took, sampled once a second.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use forebay_cluster::Log;
use serde::Serialize;

use super::Metrics;
use super::quantile::{Buckets, Readable};

/// Seconds that a rate is averaged over.
const WINDOW_SECONDS: usize = 5;
/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Cumulative sums at one moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    records: f64,
    bytes: f64,
    acks: Buckets,
}

/// What flows into the log now. Topics of the program's own state do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    pub records_per_second: f64,
    /// Bytes as stored, compressed.
    pub bytes_per_second: f64,
    /// From the read of an MQTT publish to its durable append; `None` when there was none.
    pub ack_p50_seconds: Option<f64>,
    pub ack_p99_seconds: Option<f64>,
}

/// The samples of the last seconds.
#[derive(Debug, Default)]
pub struct Live {
    inner: Mutex<Samples>,
    acks: OnceLock<Readable>,
}

#[derive(Debug, Default)]
struct Samples {
    recent: VecDeque<Sample>,
    /// Records and local bytes of each partition at the last sample: retention and deleted topics take away, which is no
    /// negative rate.
    seen: HashMap<(String, u32), (f64, f64)>,
    records: f64,
    bytes: f64,
}

impl Live {
    /// Takes a sample.
    pub fn sample(&self, log: &Log, metrics: &Metrics, now: Instant) {
        let mut current = HashMap::new();
        for topic in log.topics().values().filter(|topic| !topic.is_internal()) {
            for partition in &topic.partitions {
                let records = partition.watermarks().high_watermark.0 as f64;
                current.insert((topic.name.clone(), partition.index()), (records, partition.local_bytes() as f64));
            }
        }
        let acks = self.acks.get_or_init(|| Readable::new(&metrics.mqtt.ack_duration)).read();
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).add(current, acks, now);
    }

    /// The rates now.
    pub fn rates(&self) -> Rates {
        let samples = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (samples.recent.front(), samples.recent.back()) else {
            return Rates::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        Rates {
            records_per_second: (last.records - first.records) / seconds,
            bytes_per_second: (last.bytes - first.bytes) / seconds,
            ack_p50_seconds: last.acks.quantile_since(&first.acks, 0.5),
            ack_p99_seconds: last.acks.quantile_since(&first.acks, 0.99),
        }
    }
}

impl Samples {
    fn add(&mut self, current: HashMap<(String, u32), (f64, f64)>, acks: Buckets, now: Instant) {
        let first = self.recent.is_empty();
        for (partition, (records, bytes)) in &current {
            let (before_records, before_bytes) = self.seen.get(partition).copied().unwrap_or_default();
            // What was there before the first sample did not flow in now.
            if !first {
                self.records += (records - before_records).max(0.0);
                self.bytes += (bytes - before_bytes).max(0.0);
            }
        }
        self.seen = current;
        self.recent.push_back(Sample { at: now, records: self.records, bytes: self.bytes, acks });
        if self.recent.len() > WINDOW_SECONDS + 1 {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(records: f64, bytes: f64) -> HashMap<(String, u32), (f64, f64)> {
        HashMap::from([(("readings".to_owned(), 0), (records, bytes))])
    }

    #[test]
    fn rates_are_averages_of_the_last_seconds_and_never_negative() {
        let live = Live::default();
        let start = Instant::now();
        let add = |second: u64, values| {
            live.inner.lock().unwrap().add(values, Buckets::default(), start + INTERVAL * second as u32)
        };
        add(0, at(1000.0, 9000.0));
        assert_eq!(live.rates(), Rates::default());
        add(1, at(1100.0, 10_000.0));
        assert_eq!(live.rates(), Rates { records_per_second: 100.0, bytes_per_second: 1000.0, ..Rates::default() });
        // Local retention lets bytes go.
        add(2, at(1100.0, 10.0));
        assert_eq!(live.rates(), Rates { records_per_second: 50.0, bytes_per_second: 500.0, ..Rates::default() });
        for second in 3..9 {
            add(second, at(1100.0, 10.0));
        }
        assert_eq!(live.rates(), Rates::default());
    }
}
