//! Follows openraft's metrics: who leads, whether the quorum has stopped, and when the log has grown too large.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::error::Fatal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Inner;
use super::errors::QuorumError;
use super::limits;
use super::raft::Metrics;
use super::status::Leadership;

/// Who leads, by what openraft says; `patience`: a leader whom no majority has answered for so long leads nobody.
pub(super) fn leadership(metrics: &Metrics, patience: Duration) -> Leadership {
    let cut_off = || metrics.millis_since_quorum_ack.is_none_or(|millis| u128::from(millis) > patience.as_millis());
    let leader = if metrics.current_leader == Some(metrics.id) {
        metrics.current_leader.filter(|_| metrics.state == ServerState::Leader && !cut_off())
    } else {
        metrics.current_leader
    };
    Leadership { term: metrics.current_term, leader }
}

impl Inner {
    pub(super) fn leadership(&self) -> Leadership {
        leadership(&self.metrics.borrow(), self.options.timings.election_max)
    }

    /// Runs until the quorum stops.
    pub(super) async fn run_watch(
        self: Arc<Inner>,
        leads: watch::Sender<Leadership>,
        failed: watch::Sender<Option<QuorumError>>,
    ) {
        let mut metrics = self.metrics.clone();
        let mut asked = None;
        loop {
            let (now, stopped) = {
                let metrics = metrics.borrow_and_update();
                (leadership(&metrics, self.options.timings.election_max), metrics.running_state.clone().err())
            };
            if let Some(fatal) = stopped {
                leads.send_replace(Leadership { leader: None, ..now });
                if !matches!(fatal, Fatal::Stopped) {
                    fail(&failed, &fatal.to_string());
                }
                return;
            }
            let changed = leads.send_if_modified(|before| std::mem::replace(before, now) != now);
            if changed {
                tracing::info!(term = now.term, leader = now.leader, "the quorum's leader");
            }
            self.keep_log_small(&mut asked).await;
            if metrics.changed().await.is_err() {
                leads.send_replace(Leadership { leader: None, ..now });
                fail(&failed, "its task ended");
                return;
            }
        }
    }

    /// Asks for a snapshot when the entries have too many bytes, and lets go of those that a snapshot covers: openraft
    /// itself counts entries only.
    /// It may not happen at once, while a snapshot is being made or a follower is sent those entries: then it is asked for
    /// again. Metrics change with every tick.
    async fn keep_log_small(&self, asked: &mut Option<Instant>) {
        let (bytes, first) = {
            let memory = self.log.memory();
            (memory.bytes(), memory.first())
        };
        if bytes < self.options.snapshot_bytes || asked.is_some_and(|at| at.elapsed() < limits::TRIM_PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        let (applied, snapshot) = {
            let metrics = self.metrics.borrow();
            (metrics.last_applied, metrics.snapshot)
        };
        if let Some(covered) = snapshot.filter(|snapshot| first.is_some_and(|first| first.index <= snapshot.index)) {
            let _ = self.raft.trigger().purge_log(covered.index).await;
        } else if applied > snapshot {
            let _ = self.raft.trigger().snapshot().await;
        }
    }
}

fn fail(failed: &watch::Sender<Option<QuorumError>>, why: &str) {
    tracing::error!(why, "the quorum has stopped on this node; restart it when the cause is gone");
    failed.send_replace(Some(QuorumError::Stopped(why.to_owned())));
}
