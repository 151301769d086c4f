//! Follows openraft's metrics: who leads, whether the quorum has stopped, and when the log has grown too large.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::error::Fatal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::errors::QuorumError;
use super::limits::{self, AGAIN_MAX, AGAIN_MIN};
use super::running::Running;
use super::status::Leadership;
use super::{Inner, store};

impl Inner {
    /// Who leads: by what openraft says, unless it has stopped, or the leader has not been heard from, or has not been answered,
    /// for longer than the longest election timeout.
    pub(super) fn leadership(&self) -> Leadership {
        let running = self.running.load();
        let stopped = self.has_stopped();
        let metrics = running.metrics.borrow();
        let patience = self.options.timings.election_max;
        let leads = if stopped {
            false
        } else if metrics.current_leader == Some(metrics.id) {
            let answered = metrics.millis_since_quorum_ack.map(Duration::from_millis);
            metrics.state == ServerState::Leader && answered.is_some_and(|ago| ago <= patience)
        } else {
            self.election.heard_within(patience)
        };
        Leadership { term: metrics.current_term, leader: metrics.current_leader.filter(|_| leads) }
    }

    /// Runs until the quorum is shut down, or its machine refuses what is committed. When the disk has failed, tries again to go
    /// on.
    pub(super) async fn run_watch(
        self: Arc<Inner>,
        leads: watch::Sender<Leadership>,
        failed: watch::Sender<Option<QuorumError>>,
    ) {
        let mut pause = AGAIN_MIN;
        loop {
            let began = Instant::now();
            let ended = self.watch_run(&leads).await;
            leads.send_modify(|now| now.leader = None);
            let Some(why) = ended.filter(|_| !self.closing.is_cancelled()) else { return };
            if let Some(why) = self.machine.refused() {
                tracing::error!(why, "the quorum has stopped on this node until another release is started");
                failed.send_replace(Some(QuorumError::Stopped(why.to_owned())));
                return;
            }
            tracing::error!(why, "the quorum has stopped on this node; it is tried again");
            failed.send_replace(Some(QuorumError::Stopped(why)));
            if began.elapsed() > AGAIN_MAX * 2 {
                pause = AGAIN_MIN;
            }
            loop {
                if self.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(AGAIN_MAX);
                match self.go_on().await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the quorum cannot go on yet");
                        failed.send_replace(Some(error));
                    }
                }
                if self.machine.refused().is_some() {
                    return;
                }
            }
            tracing::info!("the quorum goes on");
            failed.send_replace(None);
        }
    }

    /// Follows one run until it ends; `None` when it was shut down.
    async fn watch_run(&self, leads: &watch::Sender<Leadership>) -> Option<String> {
        let running = self.running.load_full();
        let mut metrics = running.metrics.clone();
        let mut asked = None;
        loop {
            let stopped = metrics.borrow_and_update().running_state.clone().err();
            if let Some(fatal) = stopped {
                return (!matches!(fatal, Fatal::Stopped)).then(|| fatal.to_string());
            }
            let now = self.leadership();
            let changed = leads.send_if_modified(|before| std::mem::replace(before, now) != now);
            if changed {
                tracing::info!(term = now.term, leader = now.leader, "the quorum's leader");
            }
            self.keep_log_small(&running, &mut asked).await;
            let ended = tokio::select! {
                changed = metrics.changed() => changed.is_err(),
                () = self.election.heard() => false,
            };
            if ended && metrics.borrow().running_state.is_ok() {
                return Some("its task ended".to_owned());
            }
        }
    }

    /// Starts openraft anew. The log in memory is what is durable, and the machine has applied nothing that is not committed.
    async fn go_on(&self) -> Result<(), QuorumError> {
        let (log, machine) = (self.log.clone(), self.machine.clone());
        let repair = move || {
            // From here on the last run changes nothing any more.
            let machine = machine.begin_run();
            log.repair()?;
            machine.save()?;
            Ok(machine)
        };
        let repaired = store::blocking(repair).await;
        let machine = repaired.map_err(|error| QuorumError::Storage(error.to_string()))?;
        let peers = self.running.load().peers.begin_run();
        let running = Running::start(&self.options, self.log.clone(), machine, peers).await?;
        self.running.store(Arc::new(running));
        if self.closing.is_cancelled() {
            let _ = self.running.load_full().raft.shutdown().await;
        }
        Ok(())
    }

    /// Asks for a snapshot when the entries have too many bytes, and lets go of those that a snapshot covers: openraft
    /// itself counts entries only.
    /// It may not happen at once, while a snapshot is being made or a follower is sent those entries: then it is asked for
    /// again. Metrics change with every tick.
    async fn keep_log_small(&self, running: &Running, asked: &mut Option<Instant>) {
        let (bytes, first) = {
            let memory = self.log.memory();
            (memory.bytes(), memory.first())
        };
        if bytes < self.options.snapshot_bytes || asked.is_some_and(|at| at.elapsed() < limits::TRIM_PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        let (applied, snapshot) = {
            let metrics = running.metrics.borrow();
            (metrics.last_applied, metrics.snapshot)
        };
        if let Some(covered) = snapshot.filter(|snapshot| first.is_some_and(|first| first.index <= snapshot.index)) {
            let _ = running.raft.trigger().purge_log(covered.index).await;
        } else if applied > snapshot {
            let _ = running.raft.trigger().snapshot().await;
        }
    }
}
