//! Keeps one follower for each partition that this node leads of each topic that rules read, as topics, rules and leaders come
//! and go. Where new sources begin, and what deleted ones leave behind, is settled by one node: the one that leads `_alerts`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::{Claim, Partition, Topic};
use forebay_log::{AppendError, Epoch, Offset};
use forebay_sinks::{Engine, RuleSet};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::board::SourceId;
use super::checkpoint::{
    Checkpoint, Checkpoints, KnownSource, Starts, await_topic, awaited, is_awaited, known_sources, stop_awaiting,
};
use super::entry::encode;
use super::follower::Follower;
use super::limits::FOLLOWER_CHECK;
use super::recorder::Recorder;
use super::service::{Service, pause};
use super::standing::OpeningGuard;
use crate::leadership::Term;
use crate::log_limit::FaultLog;

/// The followers that run.
pub(super) struct Supervisor {
    service: Arc<Service>,
    followers: HashMap<SourceId, (CancellationToken, JoinHandle<()>)>,
    stop: CancellationToken,
    /// Until the followers of the present sources are started.
    starting: Option<OpeningGuard>,
    /// The term at `_alerts` in which this node has seen all that was settled before.
    keeps: Option<(Epoch, Claim)>,
}

/// What settles sources, to who keeps `_alert_state`.
const SOURCES: u8 = 2;

/// What a new leader of `_alerts` writes: behind it, it sees all that the one before has settled.
const KEEPER: Bytes = Bytes::from_static(b"keeper");

impl Supervisor {
    /// Settles where new sources begin, if that can be noted now: before the doors open, so that rules get what comes in
    /// through them.
    pub(super) async fn start(service: Arc<Service>, stop: CancellationToken) -> Supervisor {
        let starting = Some(service.opening.begin());
        let mut supervisor = Supervisor { service, followers: HashMap::new(), stop, starting, keeps: None };
        if supervisor.service.knows_rules()
            && let Err(error) = supervisor.register().await
        {
            tracing::error!(%error, "sources of alert rules cannot be noted; new rules wait for that");
        }
        supervisor
    }

    /// Starts the followers and runs until the shutdown; then waits for their last checkpoints. What the alerts wait for
    /// keeps nobody else waiting.
    pub(super) async fn run(mut self) {
        static FAULTS: FaultLog = FaultLog::new();
        if !self.service.rules_known(&self.stop).await {
            return;
        }
        let mut topics = self.service.log.topics_changed();
        let mut rules = self.service.rules.subscribe();
        loop {
            while let Err(error) = self.register().await {
                if let Some(suppressed) = FAULTS.admit(&error) {
                    tracing::error!(%error, suppressed, "sources of alert rules cannot be noted; trying again");
                }
                if pause(&self.stop).await {
                    break;
                }
            }
            if self.stop.is_cancelled() {
                break;
            }
            self.sync().await;
            self.starting = None;
            if !self.changed(&mut topics, &mut rules).await {
                break;
            }
        }
        for (_, (stop, task)) in self.followers.drain() {
            stop.cancel();
            let _ = task.await;
        }
    }

    /// Waits until there may be followers to start or to end. `false`: told to stop.
    async fn changed<T, R>(&self, topics: &mut watch::Receiver<T>, rules: &mut watch::Receiver<R>) -> bool {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                changed = topics.changed() => return changed.is_ok(),
                _ = rules.changed() => return true,
                // A follower may end just when its rules come back.
                () = tokio::time::sleep(FOLLOWER_CHECK), if !self.followers.is_empty() => {
                    if self.followers.values().any(|(_, task)| task.is_finished()) {
                        return true;
                    }
                }
            }
        }
    }

    /// Settles durably where each source is read from: what rules did not read before from its present end, unless it was
    /// awaited since before it existed or is a topic that rules did read, made again.
    async fn register(&mut self) -> Result<(), AppendError> {
        let state = &self.service.state;
        let Some(term) = Term::of(&self.service.log, &self.service.journal.partition) else {
            self.keeps = None;
            return Ok(());
        };
        let present = self.keeps.take().filter(|(epoch, _)| *epoch == term.epoch());
        let keeper = match present {
            Some((_, keeper)) => keeper,
            None => {
                let keeper = Claim::new(SOURCES, self.service.journal.topic_id, [(0, term.epoch())].into());
                state.put_as(&keeper, vec![(KEEPER, Some(encode(&term.epoch().0)))]).await?;
                keeper
            }
        };
        let rules = self.service.rules.borrow().clone();
        for topic in awaited(state) {
            if !rules.sources().contains(&topic.as_str()) {
                stop_awaiting(state, &keeper, &topic).await?;
            }
        }
        for source in rules.sources() {
            let Some(topic) = self.service.log.topic(source) else {
                if !is_awaited(state, source) {
                    await_topic(state, &keeper, source).await?;
                }
                continue;
            };
            if Starts::load(state, &topic).is_none() {
                let mut starts = Starts { journal: self.service.journal.end().0, ..Starts::default() };
                // Made again before it was noticed that it had gone: as new as one that was awaited.
                let again = known_sources(state).iter().any(|k| k.topic == source && k.id != topic.id.to_string());
                if !again && !is_awaited(state, source) {
                    for partition in &topic.partitions {
                        starts.from.insert(partition.index(), end_of(partition).await?.0);
                    }
                }
                starts.save(state, &keeper, &topic).await?;
            }
            if is_awaited(state, source) {
                stop_awaiting(state, &keeper, source).await?;
            }
        }
        // After an error it claims anew.
        self.keeps = Some((term.epoch(), keeper));
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
        let gone = |id: &SourceId| self.service.log.topic(&id.0).is_none_or(|topic| topic.id != id.1);
        for (id, (stop, _)) in &self.followers {
            if gone(id) {
                stop.cancel();
            }
        }
        for topic in wanted {
            for partition in &topic.partitions {
                let id: SourceId = (topic.name.clone(), topic.id, partition.index());
                if self.followers.contains_key(&id) {
                    continue;
                }
                let Some(term) = Term::of(&self.service.log, partition) else { continue };
                let stop = self.stop.child_token();
                let opening = self.service.opening.begin();
                let (service, topic, partition) = (self.service.clone(), topic.clone(), partition.clone());
                let (told, source) = (stop.clone(), id.clone());
                let task = tokio::spawn(async move {
                    let evaluate = async {
                        let follower =
                            Follower::open(service.clone(), &topic, partition, term.clone(), told.clone()).await;
                        drop(opening);
                        if let Some(follower) = follower {
                            follower.run().await;
                        }
                    };
                    let end = async {
                        term.ended().await;
                        told.cancel();
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        () = evaluate => {}
                        () = end => {}
                    }
                    if !term.lasts() {
                        service.board.remove(&source);
                        service.board.measure(&service.metrics);
                    }
                });
                self.followers.insert(id, (stop, task));
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
        let Some((keeper, _)) = self.keeps else { return };
        for partition in known_partitions(&self.service, source) {
            let state = self.service.state.clone();
            let mut checkpoints = Checkpoints::new(state, &source.topic, &source.id, partition, keeper);
            let mut resolved = Vec::new();
            if let Some(Checkpoint { snapshot, journal }) = checkpoints.load() {
                let none = RuleSet::default();
                let _ = Engine::restore(&none, &source.topic, partition, &snapshot, &mut resolved);
                let id = (source.topic.clone(), Uuid::nil(), partition);
                let mut recorder = Recorder::of_keeper(self.service.clone(), id, keeper);
                if recorder.begin(&self.stop).await.is_none() {
                    return;
                }
                let Some(emitted) = recorder.emitted_since(journal, &self.stop).await else { return };
                resolved.retain(|transition| !emitted.contains(&transition.id));
                if !recorder.record(&resolved, &self.stop).await {
                    return;
                }
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

/// Where a source partition ends now. Where there is no replica here, only its leader knows.
async fn end_of(partition: &Partition) -> Result<Offset, AppendError> {
    if partition.is_here() {
        return Ok(partition.watermarks().high_watermark);
    }
    let asked = partition.fetch_from_leader(Offset::ZERO, 0).await;
    asked.map(|fetched| fetched.watermarks.high_watermark).map_err(|error| AppendError::Offline(error.to_string()))
}

/// The partitions of a source that have a checkpoint by now.
fn known_partitions(service: &Service, source: &KnownSource) -> Vec<u32> {
    let same = |known: &KnownSource| known.topic == source.topic && known.id == source.id;
    known_sources(&service.state).into_iter().find(same).map(|known| known.partitions).unwrap_or_default()
}
