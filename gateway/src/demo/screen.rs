//! What a demo shows while it runs: a live line on a terminal, a line a second in a pipe, and notes in between.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Counts;
use crate::figures::grouped;

/// Time between two lines in a pipe while the replay runs.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Time between two lines in a pipe once the meters only keep going.
const CALM_LINE_EVERY: Duration = Duration::from_secs(10);
const DAY_MS: i64 = 86_400_000;

/// The state of everything at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulse {
    pub(super) counts: Counts,
    pub(super) in_log: u64,
    pub(super) in_table: u64,
    pub(super) fired: u64,
}

/// Standard output, as a person or a pipe sees it.
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    every: Duration,
    last_acked: (Instant, u64),
    rate: f64,
}

impl Screen {
    pub(super) fn new(total: u64) -> Screen {
        let bar = std::io::stdout().is_terminal().then(|| live_line(Some(total), "{bar:24} {msg}"));
        let now = Instant::now();
        Screen { bar, started: now, last_line: now, every: LINE_EVERY, last_acked: (now, 0), rate: 0.0 }
    }

    /// A line that stays.
    pub(super) fn note(&self, text: &str) {
        let line = format!("{:>6.1}s  {text}", self.started.elapsed().as_secs_f64());
        self.print(&line);
    }

    /// Text as it is.
    pub(super) fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    /// Shows how things stand.
    pub(super) fn tick(&mut self, pulse: &Pulse) {
        let since = self.last_acked.0.elapsed();
        if since >= LINE_EVERY {
            #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
            let done = (pulse.counts.acked - self.last_acked.1) as f64;
            self.rate = done / since.as_secs_f64();
            self.last_acked = (Instant::now(), pulse.counts.acked);
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(pulse.counts.acked);
                bar.set_message(self.line(pulse));
            }
            None if self.last_line.elapsed() >= self.every => {
                self.last_line = Instant::now();
                self.note(&self.line(pulse));
            }
            None => {}
        }
    }

    fn line(&self, pulse: &Pulse) -> String {
        format!(
            "day {}: sent {}, acked {} ({:.0}/s), in log {}, in table {}, alerts fired {}",
            pulse.counts.clock / DAY_MS + 1,
            grouped(pulse.counts.sent()),
            grouped(pulse.counts.acked),
            self.rate,
            grouped(pulse.in_log),
            grouped(pulse.in_table),
            grouped(pulse.fired),
        )
    }

    /// The replay is over; from here on a pipe gets a line now and then.
    pub(super) fn calm(&mut self) {
        self.every = CALM_LINE_EVERY;
        // A bar that was ended draws no more, so this is a new one.
        self.bar = self.bar.is_some().then(|| live_line(None, "{spinner} {msg}"));
    }

    /// Takes the live line away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn live_line(total: Option<u64>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, indicatif::ProgressDrawTarget::stdout());
    // A template that does not parse leaves indicatif's own.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A pipe whose reader is gone must not end the demo.
fn write_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
