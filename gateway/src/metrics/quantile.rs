//! Reads a histogram back, so that the console can show what a latency is now and not what it was since the start.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Name under which the one histogram is printed to be read.
const NAME: &str = "h";

/// The cumulative counts of a histogram's buckets at one moment: upper bound and count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Buckets(Vec<(f64, u64)>);

/// A histogram whose buckets can be read. The client library has no other way to them than its text.
#[derive(Debug)]
pub(super) struct Readable {
    registry: Registry,
}

impl Readable {
    pub(super) fn new(histogram: &Histogram) -> Readable {
        let mut registry = Registry::default();
        registry.register(NAME, "", histogram.clone());
        Readable { registry }
    }

    pub(super) fn read(&self) -> Buckets {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            return Buckets::default();
        }
        Buckets(text.lines().filter_map(bucket).collect())
    }
}

/// Parses `h_bucket{le="0.5"} 7`.
fn bucket(line: &str) -> Option<(f64, u64)> {
    let (bound, count) = line.strip_prefix("h_bucket{le=\"")?.split_once("\"} ")?;
    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
    Some((bound, count.trim().parse().ok()?))
}

impl Buckets {
    /// The `q` quantile of what was observed after `earlier`, linear within its bucket as Prometheus's
    /// `histogram_quantile`; `None` when nothing was.
    pub(super) fn quantile_since(&self, earlier: &Buckets, q: f64) -> Option<f64> {
        let count_at = |index: usize| {
            let before = earlier.0.get(index).map_or(0, |(_, count)| *count);
            self.0.get(index).map(|(bound, count)| (*bound, count.saturating_sub(before)))
        };
        let total = self.0.len().checked_sub(1).and_then(count_at)?.1;
        if total == 0 {
            return None;
        }
        let rank = q * total as f64;
        let (mut lower, mut below) = (0.0, 0);
        for index in 0..self.0.len() {
            let (bound, count) = count_at(index)?;
            if count as f64 >= rank && count > below {
                let share = (rank - below as f64) / (count - below) as f64;
                return Some(if bound.is_finite() { lower + (bound - lower) * share } else { lower });
            }
            (lower, below) = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_of_what_was_observed_since() {
        let histogram = Histogram::new([0.1, 0.2, 0.4]);
        let readable = Readable::new(&histogram);
        let start = readable.read();
        assert_eq!(start.quantile_since(&Buckets::default(), 0.5), None);
        for _ in 0..10 {
            histogram.observe(0.05);
        }
        let middle = readable.read();
        assert_eq!(middle.quantile_since(&start, 0.5), Some(0.05));
        for value in [0.3, 0.3, 0.3, 9.0] {
            histogram.observe(value);
        }
        let end = readable.read();
        let median = end.quantile_since(&middle, 0.5).unwrap();
        assert!(median > 0.2 && median < 0.4, "{median}");
        assert_eq!(end.quantile_since(&middle, 0.99), Some(0.4));
        assert_eq!(end.quantile_since(&end, 0.5), None);
    }
}
