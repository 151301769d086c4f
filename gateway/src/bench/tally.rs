//! What one thread's clients have counted: messages, latencies, and what went wrong, by reason.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Latencies are kept in microseconds, to three digits, up to ten minutes.
const HIGHEST_MICROS: u64 = 600_000_000;
const DIGITS: u8 = 3;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The broker's own code for a message that it did not take.
    Refused(u8),
    /// A message or connection that failed, in words.
    Other(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = match self {
            Reason::Other(text) => return f.write_str(text),
            Reason::Refused(code) => *code,
        };
        // MQTT 5.0 section 3.4.2.1.
        let name = match code {
            0x80 => "unspecified error",
            0x83 => "implementation specific error",
            0x87 => "not authorized",
            0x90 => "topic name invalid",
            0x91 => "packet identifier in use",
            0x97 => "quota exceeded",
            0x99 => "payload format invalid",
            _ => "see MQTT 5.0, section 2.4",
        };
        write!(f, "refused with 0x{code:02x}, {name}")
    }
}

/// The span of a run that is measured, in nanoseconds since its start: after the warm-up, up to the end of sending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Counts of one thread, or of all.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) span: Span,
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// Sent, wanted an ack, and got none.
    pub(super) missing: u64,
    pub(super) errors: BTreeMap<Reason, u64>,
    /// Done within the span: acknowledged, or sent where no ack is asked for.
    pub(super) measured: u64,
    pub(super) measured_bytes: u64,
    /// nanoseconds since the start
    pub(super) last_done: u64,
    /// From the time at which a message was due to its ack, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// By how much messages left later than they were due, in microseconds.
    pub(super) delay: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(span: Span) -> Tally {
        Tally {
            span,
            sent: 0,
            acked: 0,
            missing: 0,
            errors: BTreeMap::new(),
            measured: 0,
            measured_bytes: 0,
            last_done: 0,
            latency: histogram(),
            delay: histogram(),
        }
    }

    /// `messages` that were due at `due` have left.
    pub(super) fn sent(&mut self, messages: u64, due: u64, now: u64) {
        self.sent += messages;
        if due >= self.span.from {
            self.delay.saturating_record(now.saturating_sub(due) / 1000);
        }
    }

    /// `messages` that were due at `due` are acknowledged.
    pub(super) fn acked(&mut self, messages: u64, bytes: u64, due: u64, now: u64) {
        self.acked += messages;
        self.done(messages, bytes, now);
        if due >= self.span.from {
            self.latency.saturating_record(now.saturating_sub(due) / 1000);
        }
    }

    /// `messages` are done with, for the throughput.
    pub(super) fn done(&mut self, messages: u64, bytes: u64, now: u64) {
        self.last_done = self.last_done.max(now);
        if now >= self.span.from && now < self.span.to {
            self.measured += messages;
            self.measured_bytes += bytes;
        }
    }

    pub(super) fn error(&mut self, reason: Reason, times: u64) {
        *self.errors.entry(reason).or_default() += times;
    }

    /// Takes in the counts of another thread of the same run.
    pub(super) fn merge(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.missing += other.missing;
        self.measured += other.measured;
        self.measured_bytes += other.measured_bytes;
        self.last_done = self.last_done.max(other.last_done);
        for (reason, times) in &other.errors {
            self.error(reason.clone(), *times);
        }
        for (ours, theirs) in [(&mut self.latency, &other.latency), (&mut self.delay, &other.delay)] {
            // Both have the same bounds, the only thing that could keep them apart.
            let _ = ours.add(theirs);
        }
    }

    /// Seconds that the measured messages took.
    pub(super) fn seconds(&self) -> f64 {
        // When sending ends by time, quiet at the end counts too.
        let to = if self.span.to == u64::MAX { self.last_done } else { self.span.to };
        let nanos = to.saturating_sub(self.span.from);
        std::time::Duration::from_nanos(nanos).as_secs_f64()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_MICROS, DIGITS).expect("constants that a histogram takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn latency_counts_from_the_due_time_and_the_warm_up_does_not_count() {
        let mut tally = Tally::new(Span { from: 100 * MS, to: 200 * MS });
        tally.acked(1, 10, 50 * MS, 99 * MS);
        assert_eq!((tally.measured, tally.latency.len()), (0, 0), "all in the warm-up");
        tally.acked(1, 10, 99 * MS, 150 * MS);
        assert_eq!((tally.measured, tally.latency.len()), (1, 0), "due in the warm-up, done after it");
        tally.acked(1, 10, 150 * MS, 250 * MS);
        assert_eq!(
            (tally.measured, tally.latency.len()),
            (1, 1),
            "acknowledged after the end, but a latency all the same"
        );
        assert_eq!((tally.latency.max() + 50) / 100, 1000, "100 ms");
        assert_eq!((tally.acked, tally.measured_bytes), (3, 10));
    }

    #[test]
    fn figures_of_threads_add_up() {
        let span = Span { from: 0, to: 1000 * MS };
        let (mut one, mut two) = (Tally::new(span), Tally::new(span));
        for ms in 1..=500 {
            one.acked(1, 1, 0, ms * MS);
            two.acked(1, 1, 0, (ms + 500) * MS - 1);
        }
        two.error(Reason::Refused(0x97), 2);
        one.error(Reason::Refused(0x97), 1);
        one.merge(&two);
        assert_eq!((one.acked, one.measured, one.errors[&Reason::Refused(0x97)]), (1000, 1000, 3));
        let median = one.latency.value_at_quantile(0.5);
        assert!((499_000..=501_000).contains(&median), "{median}");
    }

    #[test]
    fn a_run_by_count_takes_as_long_as_its_last_ack() {
        let mut tally = Tally::new(Span { from: 0, to: u64::MAX });
        tally.acked(1, 1, 0, 250 * MS);
        assert!((tally.seconds() - 0.25).abs() < 1e-9);
        let timed = Tally::new(Span { from: 1000 * MS, to: 3000 * MS });
        assert!((timed.seconds() - 2.0).abs() < 1e-9);
    }
}
