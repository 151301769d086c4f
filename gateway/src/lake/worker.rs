//! The task of one topic: polls its segments, carries out the offload, answers flush and verify.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use forebay_cluster::{Partition, Topic};
use forebay_log::topic::LakeFormat;
use forebay_log::{Millis, Offset};
use forebay_tiering::manifest::Leads;
use forebay_tiering::offload::{Driver, ManifestStore, Parts, Policy};
use forebay_tiering::table::{DeltaLake, Table};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::local::TopicLog;
use super::status::Totals;
use super::told::Told;
use super::{Shared, VerifyReport, is_offloaded, status, verify};
use crate::leadership;

/// How often the closed segments are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often a flush looks again while it waits for a segment to close.
const FLUSH_POLL: Duration = Duration::from_millis(20);
/// How long a flush waits without getting any further.
const FLUSH_STALL: Duration = Duration::from_secs(30);
/// Wait after the manifest could not be written.
const MANIFEST_RETRY: Duration = Duration::from_secs(5);
/// Most bytes of one topic that wait for an unhurried copy, however much may stay on the local disk.
const MOST_UNHURRIED_BYTES: u64 = 8 << 30;

/// What others ask of a worker.
pub(super) enum Command {
    Flush(oneshot::Sender<Result<(), String>>),
    Verify(oneshot::Sender<VerifyReport>),
}

/// How far a worker is, for the status.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) table_version: Option<i64>,
    pub(super) error: Option<String>,
    /// From when on each look has shown an error.
    pub(super) failing_since: Option<Millis>,
}

/// How much of a topic may wait for its copy while the node is busy: half of what may lie on the local disk in any case.
fn unhurried_bytes(local_retention_bytes: Option<u64>, partitions: usize) -> u64 {
    let stays = local_retention_bytes.map(|bytes| bytes.saturating_mul(partitions as u64));
    stays.map_or(MOST_UNHURRIED_BYTES, |bytes| (bytes / 2).min(MOST_UNHURRIED_BYTES))
}

fn now() -> Millis {
    Millis::from_system(SystemTime::now())
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    topic: Arc<Topic>,
    log: Arc<TopicLog>,
    progress: Arc<Mutex<Progress>>,
    stop: CancellationToken,
    /// `None` until opened, after the manifest could not be written, and while this node leads nothing of the topic.
    driver: Option<Driver>,
    told: Told,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        topic: Arc<Topic>,
        progress: Arc<Mutex<Progress>>,
        stop: CancellationToken,
    ) -> Worker {
        let log = Arc::new(TopicLog { log: shared.log.clone(), topic: topic.clone(), stop: stop.clone() });
        Worker { shared, topic, log, progress, stop, driver: None, told: Told::default() }
    }

    /// Works until stopped, and ends a step that has begun; only when the node goes down it is left in the middle, which is
    /// as harmless as a crash there.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let shutdown = self.shared.shutdown.clone();
        let work = async {
            self.look_at_table().await;
            let stop = self.stop.clone();
            let mut ticks = tokio::time::interval(POLL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut placed = self.shared.log.topics_changed();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = placed.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let leads = self.leads();
                        if self.driver.as_ref().map_or(!leads.is_empty(), |driver| *driver.leads() != leads) {
                            ticks.reset_immediately();
                        }
                    }
                    _ = ticks.tick() => {
                        if !is_offloaded(&self.topic) {
                            self.rest();
                            continue;
                        }
                        let asked = self.roll_asked().await;
                        match self.poll(asked).await {
                            Ok(true) => ticks.reset_immediately(),
                            Ok(false) => {}
                            Err(_) => ticks.reset_after(MANIFEST_RETRY),
                        }
                    }
                    command = commands.recv() => match command {
                        Some(command) => self.answer(command).await,
                        None => return,
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Ends early when whoever asked has gone.
    async fn answer(&mut self, command: Command) {
        match command {
            Command::Flush(mut done) => {
                let flushed = self.flush(&mut done).await;
                let _ = done.send(flushed);
            }
            Command::Verify(mut done) => tokio::select! {
                report = verify::verify(&self.shared, &self.topic) => drop(done.send(report)),
                () = done.closed() => {}
                () = self.stop.cancelled() => {}
            },
        }
    }

    fn policy(&self) -> Policy {
        let config = self.topic.config();
        Policy {
            table: config.lake_format == LakeFormat::Delta,
            commit_interval: config.lake_commit_interval_ms,
            unhurried_bytes: unhurried_bytes(config.local_retention_bytes, self.topic.partitions.len()),
        }
    }

    /// The table's version is shown from the start, before anything is committed.
    async fn look_at_table(&mut self) {
        if self.shared.manifest.all(self.topic.id).is_empty() || !self.policy().table {
            return;
        }
        let mut table = DeltaLake::new(self.shared.store.clone(), &self.topic.name, self.topic.id);
        let looked = table.contents().await;
        if let Ok(contents) = &looked {
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).table_version = contents.version;
        }
        self.note(looked.err().map(|error| error.to_string()));
    }

    fn leads(&self) -> Leads {
        leadership::of_topic(&self.shared.log, &self.topic)
    }

    /// The driver of what this node leads now.
    async fn driver(&mut self, leads: Leads) -> Result<&mut Driver, String> {
        if self.driver.as_ref().is_some_and(|driver| *driver.leads() != leads) {
            self.driver = None;
        }
        if self.driver.is_none() {
            let (shared, topic) = (&self.shared, &self.topic);
            let table = DeltaLake::new(shared.store.clone(), &topic.name, topic.id);
            let driver = Driver::open(Parts {
                topic: topic.name.clone(),
                topic_id: topic.id,
                leads,
                policy: self.policy(),
                ids: Box::new(Uuid::new_v4),
                store: shared.store.clone(),
                manifest: Arc::new(shared.manifest.of(topic)) as Arc<dyn ManifestStore>,
                log: self.log.clone(),
                table: Box::new(table),
                copies: shared.copies.clone(),
                clock: Arc::new(now),
            });
            self.driver = Some(driver.await.map_err(|error| error.to_string())?);
        }
        self.driver.as_mut().ok_or_else(|| "no driver".to_owned())
    }

    /// What is due, one copy at most; returns whether another one is. After an error the next poll begins anew from the
    /// manifest.
    async fn poll(&mut self, flush: bool) -> Result<bool, String> {
        self.look_for_partitions();
        let leads = self.leads();
        if leads.is_empty() {
            self.driver = None;
            self.note(None);
            return Ok(false);
        }
        let (policy, mut failures) = (self.policy(), 1);
        let polled = match self.driver(leads).await {
            Ok(driver) => {
                let failed = driver.offload().failures();
                let polled = driver.poll(policy, flush).await.map_err(|error| error.to_string());
                failures = driver.offload().failures() - failed + u64::from(polled.is_err());
                polled
            }
            Err(error) => Err(error),
        };
        self.shared.metrics.lake.failed(failures);
        match &polled {
            Ok(_) => {
                let error = self.driver.as_ref().and_then(|driver| driver.offload().error()).map(str::to_owned);
                self.note(error);
            }
            Err(error) => {
                self.driver = None;
                self.note(Some(error.clone()));
            }
        }
        polled
    }

    /// Whether another node wants more of what this one leads in the table than is there. It gets into closed segments here.
    async fn roll_asked(&self) -> bool {
        let asked = self.shared.manifest.asked(self.topic.id);
        let totals = if asked.is_empty() { Arc::default() } else { self.totals() };
        let led = |index: &u32| {
            let partition = self.topic.partitions.get(*index as usize)?;
            leadership::led(&self.shared.log, partition).map(|_| partition)
        };
        let mut wanted = false;
        for (partition, end) in asked.iter().filter_map(|(index, end)| Some((led(index)?, *end))) {
            if totals.end(partition.index()).max(partition.watermarks().log_start) >= end {
                continue;
            }
            wanted = true;
            let closed = partition.closed_segments().last().map_or(Offset::ZERO, |segment| segment.end_offset);
            if closed < end
                && let Err(error) = partition.roll().await
            {
                tracing::debug!(topic = self.topic.name, partition = partition.index(), %error, "not rolled for a flush");
            }
        }
        wanted
    }

    /// A topic that has got partitions is begun anew with them, from the manifest.
    fn look_for_partitions(&mut self) {
        let now = self.shared.log.topic(&self.topic.name).filter(|now| now.id == self.topic.id);
        if let Some(topic) = now.filter(|now| now.partitions.len() > self.topic.partitions.len()) {
            let (log, stop) = (self.shared.log.clone(), self.stop.clone());
            self.log = Arc::new(TopicLog { log, topic: topic.clone(), stop });
            (self.topic, self.driver) = (topic, None);
        }
    }

    fn note(&mut self, error: Option<String>) {
        let version = self.driver.as_mut().and_then(|driver| driver.table().version());
        let totals = self.totals();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = &error {
            progress.failing_since.get_or_insert_with(now);
            if self.told.is_news(new, std::time::Instant::now()) {
                tracing::warn!(topic = self.topic.name, error = new, "the offload to the lake failed; trying again");
            }
        } else if progress.failing_since.take().is_some() {
            self.told = Told::default();
            tracing::info!(topic = self.topic.name, "the offload to the lake works again");
        }
        progress.error = error;
        progress.table_version = version.or(progress.table_version);
        let leads = self.leads().into_keys().collect();
        let shown = status::of(&self.topic, &self.shared.url, &totals, progress.clone(), leads);
        drop(progress);
        self.shared.metrics.lake.show(&shown);
    }

    /// Of a topic that is not offloaded nothing is shown, and nothing is wrong.
    fn rest(&mut self) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        (progress.error, progress.failing_since, self.told) = (None, None, Told::default());
        self.shared.metrics.lake.forget(&self.topic.name);
    }

    fn totals(&self) -> Arc<Totals> {
        self.shared.manifest.totals(self.topic.id, status::settled(&self.topic))
    }

    async fn flush(&mut self, done: &mut oneshot::Sender<Result<(), String>>) -> Result<(), String> {
        self.look_for_partitions();
        let led = |partition: &&Arc<Partition>| leadership::led(&self.shared.log, partition).is_some();
        let led: Vec<Arc<Partition>> = self.topic.partitions.iter().filter(led).cloned().collect();
        for partition in &led {
            partition.roll().await.map_err(|error| format!("partition {}: {error}", partition.index()))?;
        }
        let targets: Vec<Offset> = led.iter().map(|p| p.watermarks().high_watermark).collect();
        let (mut last, mut deadline) = (None, Instant::now() + FLUSH_STALL);
        let mut hurry = true;
        loop {
            if self.stop.is_cancelled() || done.is_closed() {
                return Err("stopped".to_owned());
            }
            let more = self.poll(hurry).await?;
            hurry = !more;
            let totals = self.totals();
            let missing: i64 = targets
                .iter()
                .zip(&led)
                .map(|(target, partition)| {
                    let end = totals.end(partition.index());
                    (target.0 - end.max(partition.watermarks().log_start).0).max(0)
                })
                .sum();
            if missing == 0 {
                return Ok(());
            }
            let offload = self.driver.as_ref().map(Driver::offload);
            let now = Some((missing, offload.map_or(0, |offload| offload.ranges().count())));
            if last != now {
                (last, deadline) = (now, Instant::now() + FLUSH_STALL);
            }
            let stalled = Instant::now() >= deadline;
            if let Some(error) = offload.and_then(|offload| offload.error()).filter(|_| stalled || !more) {
                return Err(error.to_owned());
            }
            if more {
                continue;
            }
            if stalled {
                let segments: usize = led.iter().map(|partition| partition.closed_segments().len()).sum();
                return Err(format!("{missing} records are not in a closed segment ({segments} are closed)"));
            }
            tokio::time::sleep(FLUSH_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_hurry_before_more_waits_than_may_lie_on_the_disk() {
        assert_eq!(unhurried_bytes(Some(512 << 10), 2), 512 << 10);
        assert_eq!(unhurried_bytes(Some(10 << 30), 4), MOST_UNHURRIED_BYTES);
        assert_eq!(unhurried_bytes(None, 4), MOST_UNHURRIED_BYTES);
        assert_eq!(unhurried_bytes(Some(u64::MAX), 4), MOST_UNHURRIED_BYTES);
    }
}
