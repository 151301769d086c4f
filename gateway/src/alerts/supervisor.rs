//! Keeps one follower for each partition of each topic that rules read, as topics and rules come and go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use forebay_disk::Topic;
use forebay_log::{AppendError, Offset};
use forebay_sinks::{Engine, RuleSet};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::board::SourceId;
use super::checkpoint::{Checkpoints, KnownSource, Starts, await_topic, is_awaited, known_sources, stop_awaiting};
use super::follower::Follower;
use super::journal::SourcePartition;
use super::service::{Service, pause};

/// The followers that run.
pub(super) struct Supervisor {
    service: Arc<Service>,
    followers: HashMap<SourceId, (CancellationToken, JoinHandle<()>)>,
    /// Ids of transitions that may come again from records evaluated before a crash.
    emitted: HashMap<SourcePartition, HashSet<String>>,
    stop: CancellationToken,
}

impl Supervisor {
    /// Reads back what was recorded since the oldest checkpoint, settles where new sources begin, and starts the followers.
    ///
    /// # Errors
    /// `_alerts` cannot be read, or `_alert_state` not be written.
    pub(super) async fn start(service: Arc<Service>, stop: CancellationToken) -> anyhow::Result<Supervisor> {
        let from = oldest_checkpoint(&service);
        let journal = service.journal.clone();
        let emitted = tokio::task::spawn_blocking(move || journal.emitted_since(from)).await??;
        let mut supervisor = Supervisor { service, followers: HashMap::new(), emitted, stop };
        supervisor.register().await?;
        supervisor.sync().await;
        Ok(supervisor)
    }

    /// Runs until the shutdown; then waits for the followers' last checkpoints.
    pub(super) async fn run(mut self) {
        let mut topics = self.service.log.topics_changed();
        let mut rules = self.service.rules.subscribe();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = topics.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                _ = rules.changed() => {}
            }
            while let Err(error) = self.register().await {
                tracing::error!(%error, "sources of alert rules cannot be noted; trying again");
                if pause(&self.stop).await {
                    break;
                }
            }
            self.sync().await;
        }
        for (_, (stop, task)) in self.followers.drain() {
            stop.cancel();
            let _ = task.await;
        }
    }

    /// Settles durably where each source is read from: what rules did not read before from its present end, unless it was
    /// awaited since before it existed.
    async fn register(&self) -> Result<(), AppendError> {
        let state = &self.service.state;
        let rules = self.service.rules.borrow().clone();
        for source in rules.sources() {
            let Some(topic) = self.service.log.topic(source) else {
                if !is_awaited(state, source) {
                    await_topic(state, source).await?;
                }
                continue;
            };
            if Starts::load(state, &topic).is_none() {
                let mut starts = Starts { journal: self.service.journal.end().0, ..Starts::default() };
                if !is_awaited(state, source) {
                    let ends = topic.partitions.iter().map(|p| (p.index(), p.watermarks().high_watermark.0));
                    starts.from = ends.collect();
                }
                starts.save(state, &topic).await?;
            }
            if is_awaited(state, source) {
                stop_awaiting(state, source).await?;
            }
        }
        Ok(())
    }

    /// Starts followers that are missing and ends those of deleted topics.
    async fn sync(&mut self) {
        self.followers.retain(|_, (_, task)| !task.is_finished());
        let rules = self.service.rules.borrow().clone();
        let known = known_sources(&self.service.state);
        let mut wanted: Vec<Arc<Topic>> =
            rules.sources().iter().filter_map(|name| self.service.log.topic(name)).collect();
        for source in &known {
            match self.service.log.topic(&source.topic) {
                // Rules that are gone: their followers resolve what is active, and end.
                Some(topic) if topic.id.to_string() == source.id => {
                    if wanted.iter().all(|other| other.id != topic.id) {
                        wanted.push(topic);
                    }
                }
                _ => self.bury(source).await,
            }
        }
        for topic in wanted {
            for partition in &topic.partitions {
                let id: SourceId = (topic.name.clone(), topic.id, partition.index());
                if self.followers.contains_key(&id) {
                    continue;
                }
                let stop = self.stop.child_token();
                let emitted = self.emitted.remove(&(topic.name.clone(), partition.index())).unwrap_or_default();
                let service = self.service.clone();
                let opened = Follower::open(service, &topic, partition.clone(), emitted, stop.clone()).await;
                let Some(follower) = opened else { return };
                self.followers.insert(id, (stop, tokio::spawn(follower.run())));
            }
        }
    }

    /// Resolves the alerts of a topic that was deleted and forgets its state.
    async fn bury(&mut self, source: &KnownSource) {
        let ids: Vec<SourceId> =
            self.followers.keys().filter(|id| id.0 == source.topic && id.1.to_string() == source.id).cloned().collect();
        for id in ids {
            if let Some((stop, task)) = self.followers.remove(&id) {
                stop.cancel();
                let _ = task.await;
            }
            self.service.board.remove(&id);
        }
        for partition in known_partitions(&self.service, source) {
            let mut checkpoints = Checkpoints::new(self.service.state.clone(), &source.topic, &source.id, partition);
            let mut resolved = Vec::new();
            if let Some(snapshot) = checkpoints.load() {
                let none = RuleSet::default();
                let _ = Engine::restore(&none, &source.topic, partition, &snapshot, &mut resolved);
            }
            if let Some(emitted) = self.emitted.get(&(source.topic.clone(), partition)) {
                resolved.retain(|transition| !emitted.contains(&transition.id));
            }
            if !self.service.record(&resolved, &self.stop).await {
                return;
            }
            if let Err(error) = checkpoints.remove().await {
                tracing::warn!(%error, topic = source.topic, "the state of alerts of a deleted topic stays behind");
            }
        }
        if let Err(error) = Starts::remove(&self.service.state, &source.topic, &source.id).await {
            tracing::warn!(%error, topic = source.topic, "the state of alerts of a deleted topic stays behind");
        }
        self.service.board.measure(&self.service.metrics);
    }
}

/// The partitions of a source that have a checkpoint by now.
fn known_partitions(service: &Service, source: &KnownSource) -> Vec<u32> {
    let same = |known: &KnownSource| known.topic == source.topic && known.id == source.id;
    known_sources(&service.state).into_iter().find(same).map(|known| known.partitions).unwrap_or_default()
}

/// From where on `_alerts` may hold transitions that no checkpoint knows of.
fn oldest_checkpoint(service: &Service) -> Offset {
    let mut oldest = service.journal.end();
    for source in known_sources(&service.state) {
        let topic = service.log.topic(&source.topic);
        if let Some(starts) = topic.and_then(|topic| Starts::load(&service.state, &topic)) {
            let partitions = service.log.topic(&source.topic).map_or(0, |topic| topic.partitions.len());
            if source.partitions.len() < partitions {
                oldest = oldest.min(Offset(starts.journal));
            }
        }
        for partition in source.partitions {
            let checkpoints = Checkpoints::new(service.state.clone(), &source.topic, &source.id, partition);
            if let Some(journal) = checkpoints.journal() {
                oldest = oldest.min(journal);
            }
        }
    }
    oldest
}
