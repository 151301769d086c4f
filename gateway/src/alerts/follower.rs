//! Follows one partition of a source topic that this node leads: reads, evaluates, records transitions, checkpoints.
//!
//! The order makes a crash harmless: transitions are durable in `_alerts` before the state that knows them is saved. After a crash
//! the records since the last checkpoint are evaluated again and give the same transitions with the same ids; those
//! that `_alerts` has already are left out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::{Partition, Topic};
use forebay_log::{Offset, ReadError};
use forebay_sinks::{Engine, Reading, RuleSet, Transition};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::SourceId;
use super::checkpoint::{Checkpoint, Checkpoints, NotSaved, Starts};
use super::journal::{behind_damage, visit};
use super::limits::{CHECKPOINT_INTERVAL, CHECKPOINT_INTERVAL_MAX, CHECKPOINT_STRETCH_BYTES, READ_BYTES};
use super::recorder::Recorder;
use super::service::{Service, now, pause};
use crate::leadership::Term;
use crate::log_limit::{FaultLog, LogLimit};

/// The task of one source partition.
pub(super) struct Follower {
    service: Arc<Service>,
    partition: Arc<Partition>,
    /// This node's leadership: it ends with it.
    term: Term,
    id: SourceId,
    engine: Engine,
    /// Ids of transitions that are in `_alerts` but not in the state.
    emitted: HashSet<String>,
    /// From where on in `_alerts` these are, and up to where in the source records may have caused them.
    emitted_from: Offset,
    evaluated_again: Offset,
    checkpoints: Checkpoints,
    recorder: Recorder,
    saved: i64,
    save_at: Instant,
    rules: watch::Receiver<Arc<RuleSet>>,
    stop: CancellationToken,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Progress,
    CaughtUp,
    Failed,
    Stopped,
}

impl Follower {
    /// Takes the partition over, restores its state and resolves alerts of removed rules. `None`: told to stop before that was
    /// done.
    pub(super) async fn open(
        service: Arc<Service>,
        topic: &Topic,
        partition: Arc<Partition>,
        term: Term,
        stop: CancellationToken,
    ) -> Option<Follower> {
        let index = partition.index();
        let id: SourceId = (topic.name.clone(), topic.id, index);
        let checkpoints = Checkpoints::new(service.state.clone(), &topic.name, topic.id, index, term.epoch());
        let mut checkpoints = checkpoints.led(topic.id);
        let loaded = take_over(&mut checkpoints, &stop).await?;
        // From here on nothing more comes of a leader before, neither a checkpoint nor a transition.
        let mut recorder = Recorder::new(service.clone(), id.clone(), term.epoch());
        recorder.begin(&stop).await?;
        let mut rules = service.rules.subscribe();
        let current = rules.borrow_and_update().clone();
        let mut resolved = Vec::new();
        let mut saved = -1;
        let (engine, journal) = match loaded {
            Some(Checkpoint { snapshot, journal }) => {
                if !checkpoints.is_own() {
                    adopt(&mut checkpoints, &snapshot, journal, &stop).await?;
                }
                let engine = Engine::restore(&current, &topic.name, index, &snapshot, &mut resolved).unwrap_or_else(|error| {
                    tracing::error!(topic = topic.name, partition = index, %error, "alerts begin anew at the present end");
                    resolved.clear();
                    Engine::new(&current, &topic.name, index, partition.watermarks().high_watermark.0)
                });
                if resolved.is_empty() {
                    saved = engine.next_offset();
                }
                (engine, journal)
            }
            None => {
                let starts = settled_starts(&service, topic, &stop).await?;
                let begin = starts.from.get(&index).copied().unwrap_or(partition.watermarks().log_start.0);
                (Engine::new(&current, &topic.name, index, begin), Offset(starts.journal))
            }
        };
        let evaluated_again = partition.watermarks().log_end;
        let behind = Offset(engine.next_offset()) < evaluated_again;
        let emitted =
            if behind || !resolved.is_empty() { recorder.emitted_since(journal, &stop).await? } else { HashSet::new() };
        service.board.replace(&id, &engine);
        let save_at = Instant::now() + CHECKPOINT_INTERVAL;
        let mut follower = Follower {
            service,
            partition,
            term,
            id,
            engine,
            emitted,
            emitted_from: journal,
            evaluated_again,
            checkpoints,
            recorder,
            saved,
            save_at,
            rules,
            stop,
        };
        follower.record(resolved).await.then_some(follower)
    }

    /// Runs until told to stop, or until no rule reads the topic any more.
    pub(super) async fn run(mut self) {
        let mut marks = self.partition.watch();
        loop {
            if self.rules.has_changed().unwrap_or(false) && !self.reload().await {
                return;
            }
            if self.engine.is_idle() {
                self.retire().await;
                return;
            }
            if Instant::now() >= self.save_at {
                self.save().await;
            }
            marks.borrow_and_update();
            match self.step().await {
                Step::Progress => continue,
                Step::Stopped => return,
                Step::Failed if pause(&self.stop).await => break,
                Step::Failed => continue,
                Step::CaughtUp => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = marks.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                _ = self.rules.changed() => self.rules.mark_changed(),
                () = tokio::time::sleep_until(self.save_at) => {}
            }
        }
        self.save().await;
    }

    /// Reads and evaluates some records.
    async fn step(&mut self) -> Step {
        let next = Offset(self.engine.next_offset());
        if next >= self.partition.watermarks().high_watermark {
            return Step::CaughtUp;
        }
        if self.stop.is_cancelled() {
            return Step::CaughtUp;
        }
        let fetched = match self.service.reader.read(&self.partition, next, READ_BYTES).await {
            Ok(fetched) => fetched,
            Err(error) => return self.unreadable(next, &error),
        };
        let Some(transitions) = self.evaluate(fetched.batches).await else { return Step::Stopped };
        if self.engine.next_offset() <= next.0 {
            return Step::CaughtUp;
        }
        if self.record(transitions).await { Step::Progress } else { Step::Stopped }
    }

    /// Evaluates batches on a thread for blocking work: a batch may take longer than other tasks should wait.
    async fn evaluate(&mut self, batches: Bytes) -> Option<Vec<Transition>> {
        let idle = Engine::new(&RuleSet::default(), &self.id.0, self.id.2, 0);
        let mut engine = std::mem::replace(&mut self.engine, idle);
        let work = tokio::task::spawn_blocking(move || {
            let mut transitions = Vec::new();
            let mut problems = 0u64;
            let mut next = Offset(engine.next_offset());
            let now = now();
            visit(batches, &mut next, |record| match record {
                Ok(record) => {
                    let value = record.value.as_deref();
                    let reading = Reading { offset: record.offset.0, timestamp: record.timestamp, value };
                    engine.feed(reading, now, &mut transitions);
                }
                Err(_) => problems += 1,
            });
            engine.skip_to(next.0);
            (engine, transitions, problems)
        });
        match work.await {
            Ok((engine, transitions, problems)) => {
                self.engine = engine;
                if problems > 0 {
                    tracing::error!(
                        topic = self.id.0,
                        partition = self.id.2,
                        problems,
                        "rules passed over batches that cannot be read"
                    );
                }
                Some(transitions)
            }
            Err(error) => {
                tracing::error!(topic = self.id.0, partition = self.id.2, %error, "rules stopped on this partition");
                None
            }
        }
    }

    /// Makes transitions durable and shows them. `false`: told to stop before.
    async fn record(&mut self, mut transitions: Vec<Transition>) -> bool {
        static FAULTS: FaultLog = FaultLog::new();
        let tally = self.engine.take_tally();
        self.service.metrics.alerts.add(&tally);
        if tally.beyond_limit > 0
            && let Some(suppressed) = FAULTS.admit(&self.id.0)
        {
            tracing::error!(
                topic = self.id.0,
                readings = tally.beyond_limit,
                suppressed,
                limit = forebay_sinks::limits::MAX_KEYS_PER_GROUP,
                "a rule group has as many keys as it may; readings of further ones are not evaluated"
            );
        }
        let shown = transitions.clone();
        if !self.emitted.is_empty() {
            transitions.retain(|transition| !self.emitted.remove(&transition.id));
        }
        if !transitions.is_empty() && (!self.term.lasts() || !self.recorder.record(&transitions, &self.stop).await) {
            return false;
        }
        let errors = self.service.board.update(&self.id, &self.engine, &shown);
        self.service.metrics.alerts.evaluation_errors.inc_by(errors);
        self.service.board.measure(&self.service.metrics);
        true
    }

    fn unreadable(&mut self, next: Offset, error: &ReadError) -> Step {
        static LIMIT: LogLimit = LogLimit::new(1);
        static FAULTS: FaultLog = FaultLog::new();
        let place = (self.id.0.as_str(), self.id.2);
        if let ReadError::OutOfRange { start, .. } = error
            && *start > next
        {
            let gone = start.0 - next.0;
            tracing::warn!(?place, gone, "records were removed before the rules could read them");
            self.service.metrics.alerts.skipped_records.inc_by(gone.unsigned_abs());
            self.engine.skip_to(start.0);
            return Step::Progress;
        }
        if let Some(behind) = behind_damage(error, next) {
            let lost = behind.0 - next.0;
            if let Some(suppressed) = LIMIT.admit() {
                tracing::error!(?place, %error, lost, suppressed, "rules pass over damaged records");
            }
            self.service.metrics.alerts.skipped_records.inc_by(lost.unsigned_abs());
            self.engine.skip_to(behind.0);
            return Step::Progress;
        }
        if let Some(suppressed) = FAULTS.admit(error) {
            tracing::error!(?place, %error, suppressed, "rules cannot read their source; trying again");
        }
        Step::Failed
    }

    /// Takes up changed rules. `false`: told to stop before.
    async fn reload(&mut self) -> bool {
        let rules = self.rules.borrow_and_update().clone();
        let mut resolved = Vec::new();
        match Engine::restore(&rules, &self.id.0, self.id.2, &self.engine.snapshot(), &mut resolved) {
            Ok(engine) => self.engine = engine,
            Err(error) => {
                tracing::error!(%error, "the state of the alerts was not kept over the reload");
                self.engine = Engine::new(&rules, &self.id.0, self.id.2, self.engine.next_offset());
            }
        }
        self.service.board.replace(&self.id, &self.engine);
        if !self.record(resolved).await {
            return false;
        }
        self.saved = -1;
        self.save().await;
        true
    }

    /// Saves the state, if it changed.
    async fn save(&mut self) {
        static FAULTS: FaultLog = FaultLog::new();
        self.save_at = Instant::now() + CHECKPOINT_INTERVAL;
        if self.saved == self.engine.next_offset() {
            return;
        }
        let snapshot = self.engine.snapshot();
        let stretch = u32::try_from(snapshot.len() / CHECKPOINT_STRETCH_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        let interval: Duration = CHECKPOINT_INTERVAL.saturating_mul(stretch).min(CHECKPOINT_INTERVAL_MAX);
        if Offset(self.engine.next_offset()) >= self.evaluated_again {
            self.emitted.clear();
        }
        // Who goes on from here has to find those that this one has found and not come to yet.
        let journal = if self.emitted.is_empty() { self.service.journal.end() } else { self.emitted_from };
        match self.checkpoints.save(&snapshot, journal).await {
            Ok(()) => self.saved = self.engine.next_offset(),
            Err(NotSaved::Superseded) => self.stop.cancel(),
            Err(error) => {
                if let Some(suppressed) = FAULTS.admit(&error) {
                    let what = "the state of alerts could not be saved; after a crash more is evaluated again";
                    tracing::warn!(%error, suppressed, "{what}");
                }
            }
        }
        self.save_at = Instant::now() + interval;
    }

    /// No rule reads the topic any more: its state goes.
    async fn retire(&mut self) {
        let starts = Starts::remove(&self.service.state, &self.id.0, self.id.1);
        if let Err(error) = self.checkpoints.remove().await.and(starts.await) {
            tracing::warn!(%error, "the state of removed rules stays behind");
        }
        self.service.board.remove(&self.id);
        self.service.board.measure(&self.service.metrics);
    }
}

/// Notes that this leader evaluates the partition from now on, trying again while that cannot be written, and takes up the last
/// checkpoint before. `None`: told to stop before, or another one does.
async fn take_over(checkpoints: &mut Checkpoints, stop: &CancellationToken) -> Option<Option<Checkpoint>> {
    static FAULTS: FaultLog = FaultLog::new();
    loop {
        match checkpoints.take_over().await {
            Ok(loaded) => return Some(loaded),
            Err(NotSaved::Superseded) => {}
            Err(error) => {
                if let Some(suppressed) = FAULTS.admit(&error) {
                    tracing::error!(%error, suppressed, "a partition's alerts cannot be taken over; trying again");
                }
            }
        }
        if pause(stop).await {
            return None;
        }
    }
}

/// Makes the checkpoint of the leader before this one's own, before anything is recorded on its ground.
async fn adopt(
    checkpoints: &mut Checkpoints,
    snapshot: &[u8],
    journal: Offset,
    stop: &CancellationToken,
) -> Option<()> {
    static FAULTS: FaultLog = FaultLog::new();
    while let Err(error) = checkpoints.save(snapshot, journal).await {
        if let Some(suppressed) = FAULTS.admit(&error) {
            tracing::error!(%error, suppressed, "a partition's alerts cannot be taken over; trying again");
        }
        if pause(stop).await {
            return None;
        }
    }
    Some(())
}

/// Where a new source is read from, once that is settled. `None`: told to stop before.
async fn settled_starts(service: &Service, topic: &Topic, stop: &CancellationToken) -> Option<Starts> {
    loop {
        if let Some(starts) = Starts::load(&service.state, topic) {
            return Some(starts);
        }
        if pause(stop).await {
            return None;
        }
    }
}
