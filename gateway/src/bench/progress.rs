//! What is shown while a benchmark runs: a bar on a terminal, a line a second when asked for, else nothing.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Load;
use super::fleet::Shared;

const LINE_EVERY: Duration = Duration::from_secs(1);

/// Who wants to see progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// A bar if standard error is a terminal.
    Auto,
    /// A line a second on standard error.
    Lines,
}

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    /// Seconds, or messages, that make the whole.
    total: u64,
    by_time: bool,
    started: Instant,
    last: (Instant, u64),
}

/// How far the clients are.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    done: u64,
    sent: u64,
    errors: u64,
}

impl Progress {
    pub(super) fn new(show: Show) -> Progress {
        let bar = show == Show::Auto && std::io::stderr().is_terminal();
        let bar = bar.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let now = Instant::now();
        Progress { bar, lines: show == Show::Lines, total: 0, by_time: true, started: now, last: (now, 0) }
    }

    /// All clients are connected and begin.
    pub(super) fn begin(&mut self, load: &Load) {
        self.by_time = load.duration.is_some();
        self.total =
            load.duration.map_or(load.count.unwrap_or(0), |duration| (duration + load.warmup).as_secs().max(1));
        self.started = Instant::now();
        self.last = (self.started, 0);
        if let Some(bar) = &self.bar {
            // A template that does not parse leaves indicatif's own.
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
                bar.set_style(style);
            }
            bar.set_length(self.total);
        }
    }

    pub(super) fn look(&mut self, counts: &[Shared]) {
        if self.bar.is_none() && !self.lines {
            return;
        }
        let since = self.last.0.elapsed();
        if since < LINE_EVERY {
            return;
        }
        let mut now = Totals::default();
        for shared in counts {
            let counts = shared.lock();
            now.sent += counts.tally.sent;
            now.done += if counts.tally.acked > 0 { counts.tally.acked } else { counts.tally.sent };
            now.errors += counts.tally.errors.values().sum::<u64>();
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
        let rate = now.done.saturating_sub(self.last.1) as f64 / since.as_secs_f64();
        self.last = (Instant::now(), now.done);
        let elapsed = self.started.elapsed();
        let line =
            format!("{:>3} s  {rate:.0} messages/s, sent {}, errors {}", elapsed.as_secs(), now.sent, now.errors);
        match &self.bar {
            Some(bar) => {
                let position = if self.by_time { elapsed.as_secs() } else { now.done };
                bar.set_position(position.min(self.total));
                bar.set_message(line);
            }
            // Nobody may be reading any more; that is no reason to end a run.
            None => drop(writeln!(std::io::stderr().lock(), "{line}")),
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
