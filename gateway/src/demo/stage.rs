//! The course of a demo: connect, replay, let everything come to rest, count, and go on until told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::alert_book::{Follower, transitions};
use super::fleet::{Fleet, Pace};
use super::readings::{Meter, Readings};
use super::screen::{Pulse, Screen};
use super::summary::{Findings, next_steps};
use super::tally::{Road, Tally};
use crate::figures::grouped;
use crate::lake::TopicStatus;
use crate::node::Gateway;

/// The log topic of the readings, by the demo's own configuration.
const TOPIC: &str = "readings";
/// Time between two looks at the node.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long alerts may take to come to rest once the last reading is in the log.
const SETTLE: Duration = Duration::from_secs(30);
/// Alerts that get a line of their own; the others are counted.
const ALERT_LINES: usize = 5;
/// How much slower the meters go on once all has been counted.
const CALM_FACTOR: f64 = 20.0;
const DAY_MS: i64 = 86_400_000;

pub(super) struct Stage {
    gateway: Arc<Gateway>,
    dir: PathBuf,
    meters: Vec<Arc<Meter>>,
    readings: usize,
    description: String,
    /// Milliseconds between two rounds of the same readings: their span in whole days.
    round: i64,
    tally: Arc<Tally>,
    follower: Follower,
    alert_lines: mpsc::Receiver<String>,
    screen: Screen,
    seen: Seen,
}

/// What has been told already.
#[derive(Default)]
struct Seen {
    alerts: usize,
    table: bool,
    cold: bool,
}

impl Stage {
    pub(super) fn new(gateway: Arc<Gateway>, dir: PathBuf, readings: Readings) -> Stage {
        let (lines, alert_lines) = mpsc::channel(ALERT_LINES);
        let total = readings.len();
        Stage {
            follower: Follower::start(gateway.log.clone(), gateway.reader.clone(), lines),
            gateway,
            dir,
            readings: total,
            round: (readings.span / DAY_MS + 1) * DAY_MS,
            description: readings.description,
            meters: readings.meters.into_iter().map(Arc::new).collect(),
            tally: Arc::default(),
            alert_lines,
            screen: Screen::new(total as u64),
            seen: Seen::default(),
        }
    }

    /// The whole demo.
    ///
    /// # Errors
    /// A connection that failed, or counts that do not add up.
    pub(super) async fn play(mut self, options: &Options, stop: &CancellationToken) -> anyhow::Result<()> {
        self.introduce(options);
        let mut fleet = Fleet::connect(&self.meters, &self.gateway.addresses).await?;
        let (tcp, quic) = (fleet.count(Road::Tcp), fleet.count(Road::Quic));
        self.screen.note(&format!("meters connected: {tcp} over MQTT, {quic} over QUIC"));

        let until = stop.child_token();
        if let Some(duration) = options.duration {
            let until = until.clone();
            tokio::spawn(async move {
                tokio::time::sleep(duration).await;
                until.cancel();
            });
        }
        let mut round = 0;
        while round == 0 || (options.duration.is_some() && !until.is_cancelled()) {
            let pace = Pace { speedup: f64::from(options.speedup.max(1)), shift: round * self.round };
            fleet = self.replay(fleet, pace, &until).await?;
            round += 1;
        }
        let leaving = options.once || options.duration.is_some() || stop.is_cancelled();
        self.sum_up(!leaving).await?;
        if !leaving {
            self.screen.calm();
            self.screen.note("the meters keep going, with the same readings on later days; Ctrl-C stops");
        }
        while !leaving && !stop.is_cancelled() {
            let speedup = f64::from(options.speedup.max(1)) / CALM_FACTOR;
            let pace = Pace { speedup, shift: round * self.round };
            fleet = self.replay(fleet, pace, stop).await?;
            round += 1;
        }
        self.screen.end();
        fleet.disconnect().await;
        let counts = self.tally.counts();
        self.screen.note(&format!(
            "stopped: {} readings sent, {} acknowledged",
            grouped(counts.sent()),
            grouped(counts.acked)
        ));
        Ok(())
    }

    fn introduce(&self, options: &Options) {
        let plural = if self.meters.len() == 1 { "" } else { "s" };
        self.screen.print(&format!(
            "forebay demo: {} readings of {} meter{plural} ({}), {} times as fast as they came",
            grouped(self.readings as u64),
            self.meters.len(),
            self.description,
            grouped(u64::from(options.speedup))
        ));
        for (name, address) in self.gateway.addresses.list() {
            let scheme = if name == "http" { "http://" } else { "" };
            self.screen.print(&format!("  {name:<6} {scheme}{address}"));
        }
        self.screen.print(&format!("  data   {}", self.dir.display()));
    }

    /// One round of the readings, watched.
    async fn replay(&mut self, fleet: Fleet, pace: Pace, stop: &CancellationToken) -> anyhow::Result<Fleet> {
        let replay = fleet.replay(pace, self.tally.clone(), stop.clone());
        let mut replay = std::pin::pin!(replay);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                fleet = &mut replay => return fleet,
                _ = look.tick() => self.look(),
                Some(line) = self.alert_lines.recv() => self.tell_alert(&line),
            }
        }
    }

    fn tell_alert(&mut self, line: &str) {
        self.seen.alerts += 1;
        match self.seen.alerts {
            1..=ALERT_LINES => self.screen.note(line),
            n if n == ALERT_LINES + 1 => self.screen.note("further alerts are only counted"),
            _ => {}
        }
    }

    fn look(&mut self) {
        let table = self.table();
        let pulse = Pulse {
            counts: self.tally.counts(),
            in_log: self.in_log(),
            in_table: table.as_ref().map_or(0, |table| table.rows),
            fired: self.follower.book().fired,
        };
        if let Some(table) = table.filter(|table| table.table_version.is_some() && !self.seen.table) {
            self.seen.table = true;
            self.screen.note(&format!(
                "first segments in the Delta table: {} rows at {}",
                grouped(table.rows),
                table.url
            ));
        }
        if self.cold() > 0 && !self.seen.cold {
            self.seen.cold = true;
            self.screen.note("first segments left the local log: their offsets are read from Parquet from now on");
        }
        self.screen.tick(&pulse);
    }

    fn table(&self) -> Option<TopicStatus> {
        self.gateway.lake.as_ref()?.status().into_iter().find(|status| status.topic == TOPIC)
    }

    /// Sums a position over the partitions of the readings' topic.
    fn sum(&self, position: impl Fn(&forebay_cluster::Watermarks) -> i64) -> u64 {
        let topic = self.gateway.log.topic(TOPIC);
        let partitions = topic.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| u64::try_from(position(&partition.watermarks())).unwrap_or_default()).sum()
    }

    fn in_log(&self) -> u64 {
        self.sum(|marks| marks.high_watermark.0 - marks.log_start.0)
    }

    fn cold(&self) -> u64 {
        self.sum(|marks| marks.local_start.0 - marks.log_start.0)
    }

    /// Lets everything come to rest, counts, and says whether it adds up.
    async fn sum_up(&mut self, stays: bool) -> anyhow::Result<()> {
        self.look();
        self.screen.note("replayed; offloading what is left and checking it all");
        let findings = self.find().await;
        self.screen.end();
        self.screen.print(&findings.text());
        let mistakes = findings.mistakes();
        if !mistakes.is_empty() {
            bail!(
                "the counts of the demo do not add up\n{}\nthe data is in {}",
                mistakes.join("\n"),
                self.dir.display()
            );
        }
        self.screen.print(&next_steps(&program(), &self.dir, &self.gateway.addresses, stays));
        Ok(())
    }

    async fn find(&mut self) -> Findings {
        let mut findings = Findings {
            counts: self.tally.counts(),
            partitions: self.gateway.log.topic(TOPIC).map_or(0, |topic| topic.partitions.len()),
            ..Findings::default()
        };
        if !self.alerts_at_rest().await {
            findings.problems.push(format!("alerts were not evaluated to the end within {SETTLE:?}"));
        }
        if let Some(lake) = &self.gateway.lake {
            match lake.flush(TOPIC).await {
                Ok(()) => match lake.verify(TOPIC).await {
                    Ok(report) => {
                        findings.in_table = report.rows;
                        findings.table_files = report.files;
                        findings.problems.extend(report.problems);
                    }
                    Err(error) => findings.problems.push(format!("the table cannot be verified: {error:#}")),
                },
                Err(error) => findings.problems.push(format!("the lake does not take the rest: {error:#}")),
            }
        }
        if let Some(table) = self.table() {
            findings.table_version = table.table_version;
            findings.table_bytes = table.bytes;
        }
        findings.in_log = self.in_log();
        findings.cold = self.cold();
        let active = self.gateway.alerts.active();
        findings.active = active.iter().filter(|alert| alert.0["state"] == "firing").count() as u64;
        let book = self.follower.book();
        findings.fired = book.fired;
        findings.resolved = book.resolved;
        findings.firing = book.firing();
        drop(book);
        findings
    }

    /// Waits until all readings are evaluated and all transitions are in the books.
    async fn alerts_at_rest(&mut self) -> bool {
        let deadline = Instant::now() + SETTLE;
        loop {
            let settled = self.gateway.alerts.settled().await;
            if settled && self.follower.book().records >= transitions(&self.gateway.log) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }
}

/// How the user can call this program: its name where the shell finds it, otherwise its path.
fn program() -> String {
    const NAME: &str = "forebay";
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&paths).any(|dir| dir.join(NAME).is_file()) {
        return NAME.to_owned();
    }
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(NAME));
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}
